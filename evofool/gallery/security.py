"""Who may ask the gallery for anything: only the browser that was given its start address, at exactly this address.

The server listens on this machine alone, but other users of the machine, and pages of other sites that are open in the same
browser, reach that too. So every request has to name the server's own address (a site whose name was rebound to this machine
does not), has to carry the token of this start, as a cookie, and one that changes anything also has to come from a page of
the gallery (its Origin) and to carry the token of its forms: a cookie with SameSite=Strict is sent along by forms of other
ports of this machine.
"""

import hmac
import secrets
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""Of every page but reports and explanations."""
COPY_POLICY = (
    "default-src 'none'; img-src 'self' file:; style-src 'self' file:; script-src 'self' file:; form-action 'none'; "
    "base-uri 'none'"
)
"""In every page of a static copy. file: is for a copy that is opened from a folder: browsers differ in whether 'self' is a
file, and none lets the page of a server load one.
"""
REPORT_POLICY = "sandbox allow-same-origin; default-src 'none'; img-src data: 'self'; style-src 'unsafe-inline'"
"""Of the pages that evofool wrote into folders: they have their style inside, and no script runs."""
DRAWING_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Of SVG."""
TOKEN = "token"
FORM_TOKEN = "form"
_SAFE = ("GET", "HEAD")
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Tokens:
    """The secrets of one start: one opens the gallery in a browser, the other is in its forms."""

    def __init__(self) -> None:
        self.start, self.form = secrets.token_urlsafe(32), secrets.token_urlsafe(32)


class Guard:
    """An ASGI application around another one that refuses requests as said above, and sets the headers of all responses."""

    def __init__(self, app: ASGIApp, port: int, tokens: Tokens) -> None:
        self._app, self._tokens = app, tokens
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._cookie = f"evofool-gallery-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refused(scope)
        await (refused or self._app)(scope, receive, send_with_headers)

    def _refused(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        host = hosts[0].lower() if len(hosts) == 1 else ""
        if host not in self._hosts:
            return _no(421, "This server answers at 127.0.0.1 and localhost, with its port, only.")
        given = parse_qs(scope["query_string"].decode("latin-1")).get(TOKEN, [])
        if given and scope["method"] in _SAFE and _same(given[0], self._tokens.start):
            return self._welcome(Request(scope))
        if not _same(self._cookie_of(headers), self._tokens.start):
            return _no(403, "Open the address that was printed at this start: it has the token that opens this server.")
        if scope["method"] not in _SAFE:
            if headers.get("origin", "").lower() != f"http://{host}":
                return _no(403, "This request does not come from a page of the gallery.")
            if not _same(headers.get("x-form-token", ""), self._tokens.form):
                return _no(403, "This form is of an earlier start of the gallery: load its page again.")
        return None

    def _welcome(self, request: Request) -> ASGIApp:
        """To the same address without the token, which then is in the cookie alone."""
        rest = request.url.remove_query_params(TOKEN)
        response = RedirectResponse(rest.path + (f"?{rest.query}" if rest.query else ""), 303)
        response.set_cookie(self._cookie, self._tokens.start, httponly=True, samesite="strict", path="/")
        return response

    def _cookie_of(self, headers: Headers) -> str:
        # Cookies are shared by all ports of this machine: those of other programs may be of any form.
        return cookie_parser(headers.get("cookie", "")).get(self._cookie, "")


def _no(status: int, why: str) -> PlainTextResponse:
    return PlainTextResponse(f"{why}\n", status)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
