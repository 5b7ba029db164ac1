"""URLs of servers: for display without secrets, and their hosts."""

from urllib.parse import urlsplit, urlunsplit

from evofool.errors import TargetError
from evofool.targets.kinds import COMMON, KINDS

OPTIONS = (*(KINDS["http"].options or ()), *COMMON)
"""The options of a URL that are evofool's; all others are sent to the server."""


def redacted_url(url: str) -> str:
    """A URL without user and password, and without the values of query parameters that are not evofool's options."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]
    queries = (query.partition("=") for query in parts.query.split("&") if query)
    query = "&".join(f"{key}={value if key in OPTIONS else '...'}" for key, _, value in queries)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def host_of(url: str) -> str:
    """The host of a URL; TargetError if there is none, and for a password."""
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    if not host:
        raise TargetError(f"{redacted_url(url)} is not the URL of a server; it has to be http(s)://HOST[:PORT]/PATH")
    if "@" in parts.netloc:
        raise TargetError(
            f"{redacted_url(url)}: a password in a URL would be stored with the run; use token_env=NAME, the name "
            "of an environment variable with the token, or header_env=HEADER:NAME"
        )
    return host
