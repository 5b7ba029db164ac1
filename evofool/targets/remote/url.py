"""URLs of servers: for display without secrets, and their hosts."""

from urllib.parse import urlsplit, urlunsplit

from evofool.errors import TargetError
from evofool.targets.kinds import options_of_url, server_kind


def redacted_url(url: str) -> str:
    """A URL without user and password, and without the values of query parameters that are not evofool's options."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]
    queries = (query.partition("=") for query in parts.query.split("&") if query)
    options = options_of_url(url)
    query = "&".join(f"{key}={value if key in options else '...'}" for key, _, value in queries)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def shown_spec(spec: str) -> str:
    """A target's spec for display: that of a server as redacted_url, any other as it is."""
    return redacted_url(spec) if server_kind(spec) else spec


def address_of(url: str) -> str:
    """The URL that requests are sent to, http:// or https://, of one that may have another scheme."""
    scheme, _, rest = url.partition("://")
    return f"{'https' if scheme.endswith('s') else 'http'}://{rest}"


def host_of(url: str) -> str:
    """The host of a URL; TargetError if there is none, and for a password."""
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    if not host:
        raise TargetError(f"{redacted_url(url)} is not the URL of a server; it has to be SCHEME://HOST[:PORT]/PATH")
    if "@" in parts.netloc:
        raise TargetError(
            f"{redacted_url(url)}: a password in a URL would be stored with the run; use token_env=NAME, the name "
            "of an environment variable with the token, or header_env=HEADER:NAME"
        )
    return host
