"""The way to a server: a request is entered before it is sent, and sent again if what went wrong may pass."""

import email.utils
import json
import os
import random
import time
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit, urlunsplit

from evofool.errors import BudgetError, TargetError
from evofool.targets.answers import Garbled, shown
from evofool.targets.ledger import Ledger
from evofool.targets.spec import COMMON, Spec

if TYPE_CHECKING:
    import httpx

OPTIONS = ("timeout", "retries", "rate", "max_requests", "batch", "parallel", "token_env", "channels")
MOST_BYTES = 64 << 20  # of an answer
_PASSING = (408, 425, 429)  # the 4xx that may pass; so may every 5xx but 501, "not implemented"
_LONGEST_WAIT, _LONGEST_ORDERED = 60.0, 300.0  # seconds: our own back-off, and a Retry-After
_T = TypeVar("_T")


@dataclass(frozen=True)
class Clock:
    """Time as a black box sees it; tests bring their own."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    # on [0, 1): decides when, never what
    jitter: Callable[[], float] = field(default_factory=lambda: random.Random().random)


class Refused(TargetError):
    """A status that will not pass."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Server:
    """The other end. url: for people to read, without what may be secret in it. Safe to use from several threads at once."""

    def __init__(self, spec: Spec, ledger: Ledger, clock: Clock) -> None:
        self._spec, self._ledger, self._clock = spec, ledger, clock
        host, self.url = _host(spec.name), public(spec.name)
        self._timeout = _above_0(spec, "timeout", 30.0)
        self._retries = spec.whole("retries", 5, least=0) or 0
        self._gap = 1 / _above_0(spec, "rate", float("inf"))
        self._cap = spec.whole("max_requests")
        self.batch, self.parallel = spec.whole("batch", 32) or 32, spec.whole("parallel", 4) or 4
        local = host == "localhost" or host == "::1" or host.startswith("127.")
        token = _token(spec)
        unsafe = token and not local and spec.name.startswith("http:")
        self.notes = [f"the token goes to {self.url} unencrypted; https would hide it"] if unsafe else []
        self._client = _client(self._timeout, token, through_proxies=not local)
        weakref.finalize(self, self._client.close)

    def ask(self, method: str, body: bytes | None, read: Callable[[bytes], _T]) -> _T:
        """What `read` makes of the server's answer; a Garbled from it counts among what may pass.

        TargetError when the tries are used up, and at once for what will not pass; BudgetError when the cap is reached.
        """
        failures: Counter[str] = Counter()
        for attempt in range(self._retries + 1):
            self._enter()
            ordered = None
            try:
                return read(self._once(method, body))
            except _MayPass as failure:
                failures[failure.what] += 1
                ordered = failure.after
            except Garbled as garbled:
                failures[f"an answer that is {garbled}"] += 1
            except TargetError as error:
                error.args = (f"{self.url}: {error}",)
                raise
            if attempt < self._retries:
                back_off = min(_LONGEST_WAIT, 0.5 * 2.0**attempt) * (0.5 + self._clock.jitter() / 2)
                self._clock.sleep(back_off if ordered is None else ordered)
        tried = sum(failures.values())
        raise TargetError(
            f"{self.url}: no answer after {tried} request{'s' if tried > 1 else ''} "
            f"({', '.join(f'{n} x {what}' for what, n in failures.items())}); nothing that was answered is lost, and a run "
            "goes on with: evofool run RUN"
        )

    def _enter(self) -> None:
        """Enter a request in the ledger, then wait until the rate allows it."""
        now = self._clock.now()
        at = self._ledger.spend(self._cap, self._gap, now)
        if at is None:
            more = Spec("http", self._spec.name, {**self._spec.options, "max_requests": str(2 * (self._cap or 1))})
            raise BudgetError(
                f"{self.url}: the cap of {self._cap} requests is reached (max_requests={self._cap}). Everything that was "
                f'answered is kept; a run goes on with a higher cap: evofool run RUN --set "target={public(more.text)}"'
            )
        if at > now:
            self._clock.sleep(at - now)

    def _once(self, method: str, body: bytes | None) -> bytes:
        import httpx

        # Beside the client's own limit, which is on each piece: a server could send a byte now and then for ever.
        end = time.monotonic() + self._timeout
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            with self._client.stream(method, self._spec.name, content=body, headers=headers) as response:
                content = self._content(response, end)
        except httpx.TimeoutException:
            raise _MayPass(f"no answer within {self._timeout:g} s") from None
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as error:
            raise TargetError(f"cannot be asked ({error})") from None
        except httpx.ConnectError as error:
            if "CERTIFICATE" in str(error):
                raise TargetError(f"its certificate does not hold ({error})") from None
            raise _MayPass(f"no connection ({shown(str(error), 80)})") from None
        except httpx.TransportError:
            raise _MayPass("a dropped connection") from None
        self._refuse(response, content)
        return content

    def _content(self, response: "httpx.Response", end: float) -> bytes:
        packed = response.headers.get("Content-Encoding", "identity")
        if packed != "identity":
            raise TargetError(f"packs its answers ({shown(packed, 40)}), although it was asked not to")
        content = bytearray()
        for piece in response.iter_raw():
            content += piece
            if len(content) > MOST_BYTES:
                raise TargetError(f"the answer is longer than {MOST_BYTES >> 20} MB; ask for fewer images at once (batch=)")
            if time.monotonic() > end:
                raise _MayPass(f"no whole answer within {self._timeout:g} s")
        return bytes(content)

    def _refuse(self, response: "httpx.Response", content: bytes) -> None:
        """Raise what a status other than 2xx stands for."""
        status = response.status_code
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            where = shown(public(response.headers.get("Location", "nowhere")))
            raise Refused(
                f"HTTP {status} sends on to {where}; if that is the server that you mean, name it as the target", status
            )
        words = _words(content)
        if status in _PASSING or (status >= 500 and status != 501):
            raise _MayPass(f"HTTP {status}{words}", _seconds(response.headers.get("Retry-After"), self._clock.now()))
        raise Refused(f"HTTP {status}{words}", status)


class _MayPass(Exception):
    """What may be otherwise next time; after: the seconds that the server asked to wait, if it did."""

    def __init__(self, what: str, after: float | None = None) -> None:
        super().__init__(what)
        self.what, self.after = what, after


def public(url: str) -> str:
    """A URL without user and password, and without the values in its query that are not options of ours."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]
    queries = (query.partition("=") for query in parts.query.split("&") if query)
    query = "&".join(f"{key}={value if key in (*OPTIONS, *COMMON) else '...'}" for key, _, value in queries)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    if not host:
        raise TargetError(f"{public(url)} is no URL of a server; it has to be http(s)://HOST[:PORT]/PATH")
    if "@" in parts.netloc:
        raise TargetError(
            f"{public(url)}: a password in a URL would be stored with the run; name a variable of the environment that "
            "holds a token, token_env=NAME"
        )
    return host


def _token(spec: Spec) -> str | None:
    name = spec.options.get("token_env")
    if name is None:
        return None
    token = os.environ.get(name, "").strip()
    if not token:
        raise TargetError(f"{public(spec.name)}: token_env names {name}, but the environment has no {name}, or an empty one")
    if not (token.isascii() and token.isprintable()):
        raise TargetError(
            f"{public(spec.name)}: what {name} holds cannot be a token: it has characters that no header takes"
        )
    return token


def _client(timeout: float, token: str | None, through_proxies: bool) -> "httpx.Client":
    try:
        import httpx
    except ModuleNotFoundError:
        raise TargetError("a target over HTTP needs httpx: pip install 'evofool[http]'") from None
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "evofool"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return httpx.Client(
        timeout=timeout,
        follow_redirects=False,
        trust_env=through_proxies,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        headers=headers,
    )


def _above_0(spec: Spec, option: str, default: float) -> float:
    value = spec.number(option, default)
    if not value > 0 or (option in spec.options and value == float("inf")):
        raise TargetError(f"{public(spec.name)}: {option} is {spec.options[option]}; it has to be a number above 0")
    return value


def _seconds(retry_after: str | None, now: float) -> float | None:
    """Retry-After, seconds or a date, as seconds from now, five minutes at most; None if it is neither."""
    if retry_after is None:
        return None
    try:
        if retry_after.isdecimal():
            ordered = float(retry_after)
        else:
            ordered = email.utils.parsedate_to_datetime(retry_after).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(ordered, 0.0), _LONGEST_ORDERED)


def _words(content: bytes) -> str:
    """What a server says of an error, {"error": "..."} or whatever it is, behind a colon; "" if nothing."""
    text = content.decode("utf-8", "replace")
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if isinstance(told, dict) and isinstance(told.get("error"), str):
        text = told["error"]
    return f": {shown(text)}" if text.strip() else ""
