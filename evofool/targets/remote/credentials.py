"""Headers with values of environment variables (token_env=, header_env=), which are neither stored nor shown."""

import html
import json
import os
import re
from collections.abc import Mapping
from urllib.parse import quote

from evofool.errors import TargetError
from evofool.targets.remote.url import redacted_url
from evofool.targets.spec import Spec

# A header's name by RFC 9110, section 5.6.2.
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SCHEME = re.compile(r"(Basic|Bearer|Key|Token|ApiKey) +(?=.)", re.IGNORECASE)
_FEW = 2  # characters of a value's beginning, which may be anything's
_OURS = ("accept", "accept-encoding", "connection", "content-length", "content-type", "host", "te", "transfer-encoding")


def secret_headers(spec: Spec) -> dict[str, str]:
    """The headers that token_env=VARIABLE and header_env=HEADER:VARIABLE,HEADER:VARIABLE name, with their values."""
    headers = {}
    if "token_env" in spec.options:
        headers["Authorization"] = f"Bearer {_value(spec, 'token_env', spec.options['token_env'])}"
    for pair in spec.options["header_env"].split(",") if "header_env" in spec.options else ():
        header, _, variable = pair.partition(":")
        if not _NAME.fullmatch(header) or not variable:
            raise TargetError(
                f'{redacted_url(spec.name)}: header_env is "{spec.options["header_env"]}"; it has to be HEADER:VARIABLE, as '
                "in header_env=x-api-key:MY_KEY, several separated by commas"
            )
        if header.lower() in _OURS:
            raise TargetError(f"{redacted_url(spec.name)}: header_env cannot set {header}, which every request has")
        if header.lower() in map(str.lower, headers):
            raise TargetError(f"{redacted_url(spec.name)}: the header {header} is given twice")
        headers[header] = _value(spec, "header_env", variable)
    return headers


def without_secrets(text: str, headers: Mapping[str, str]) -> str:
    """text, such as a server's message that repeats a header, with ... in place of the headers' values.

    So are their beginnings that "..." follows, since a quotation that was shortened may end within a value.
    """
    for form in secret_forms(headers):
        text = text.replace(form, "...")
        for length in range(len(form) - 1, _FEW, -1):
            text = text.replace(f"{form[:length]}...", "...")
    return text


def secret_forms(headers: Mapping[str, str]) -> list[str]:
    """The headers' values, and what follows their scheme, as plain text, JSON, HTML and URLs have them; longest first."""
    forms = set()
    for value in headers.values():
        for plain in {value, _SCHEME.sub("", value)}:
            escaped = json.dumps(plain)[1:-1]
            forms |= {
                plain,
                " ".join(plain.split()),
                escaped,
                escaped.replace("/", "\\/"),
                html.escape(plain),
                quote(plain, ""),
            }
    return sorted(forms, key=lambda form: (-len(form), form))


def _value(spec: Spec, option: str, variable: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise TargetError(
            f"{redacted_url(spec.name)}: {option} names {variable}, but the environment variable {variable} is not set, or "
            "empty"
        )
    if not (value.isascii() and value.isprintable()):
        raise TargetError(
            f"{redacted_url(spec.name)}: the value of {variable} cannot be sent: a header cannot contain its characters"
        )
    return value
