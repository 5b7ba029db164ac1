"""The way to a server: a request is entered before it is sent, and sent again if what went wrong may pass."""

import email.utils
import json
import os
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit, urlunsplit

from evofool.errors import BudgetError, TargetError
from evofool.targets.connection import Line, clients
from evofool.targets.ledger import Ledger
from evofool.targets.responses import Garbled, shown
from evofool.targets.spec import COMMON, Spec

if TYPE_CHECKING:
    import httpx

OPTIONS = ("timeout", "retries", "rate", "max_requests", "batch", "parallel", "token_env", "channels")
MOST_BYTES = 64 << 20  # of an answer
_PASSING = (408, 425, 429)  # the 4xx that may pass; so may every 5xx but 501, "not implemented"
_FIRST_WAIT, _LONGEST_WAIT, _LONGEST_ORDERED = 0.5, 60.0, 300.0  # seconds: our own back-off, and a Retry-After
_GRACE = 1.0  # seconds that a request which is under way, and so paid for, still has when its call is given up
_KEPT = "a run has kept what was answered and goes on with: evofool run RUN"
_GIVEN_UP = f"it was given up before it answered; {_KEPT}"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Clock:
    """Time as a black box sees it; tests bring their own. wait ends early when the event is set."""

    now: Callable[[], float] = time.time
    wait: Callable[[threading.Event, float], object] = threading.Event.wait
    # on [0, 1): decides when, never what
    jitter: Callable[[], float] = field(default_factory=lambda: random.Random().random)


class Refused(TargetError):
    """A status that will not pass."""

    def __init__(self, text: str, status: int = 0) -> None:
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
        self._new_client = clients(self._timeout, token, through_proxies=not local)
        self._idle: list[Line] = []
        self._busy: set[Line] = set()
        self._change = threading.Condition()
        self._call = threading.Event()

    def call(self) -> threading.Event:
        """For a call that begins now, to be handed to each `ask` of it: set once the call is given up."""
        return self._call

    def cancel(self) -> None:
        """Give up the calls under way: no wait goes on, nothing more is sent. Calls that begin later are none of them."""
        with self._change:
            given_up, self._call = self._call, threading.Event()
            given_up.set()
            for line in self._busy:
                line.cut_in(_GRACE)
            self._change.notify_all()

    def ask(self, method: str, body: bytes | None, read: Callable[[bytes], _T], call: threading.Event | None = None) -> _T:
        """What `read` makes of the server's answer; a Garbled from it counts among what may pass.

        TargetError when the tries are used up or the call is given up, and at once for what will not pass; BudgetError when
        the cap is reached.
        """
        call = call or self.call()
        failures: Counter[str] = Counter()
        for attempt in range(self._retries + 1):
            ordered = None
            try:
                with self._line(call) as line:
                    self._enter(call)
                    content = self._once(line, method, body, call)
                return read(content)
            except _MayPass as failure:
                failures[failure.what] += 1
                ordered = failure.after
            except Garbled as garbled:
                failures[f"an answer that is {garbled}"] += 1
            except TargetError as error:
                error.args = (f"{self.url}: {error}",)
                raise
            if attempt < self._retries:
                back_off = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**attempt) * (0.5 + self._clock.jitter() / 2)
                self._clock.wait(call, back_off if ordered is None else ordered)
        if call.is_set():
            raise TargetError(f"{self.url}: {_GIVEN_UP}")
        tried = sum(failures.values())
        raise TargetError(
            f"{self.url}: no answer after {tried} request{'s' if tried > 1 else ''} "
            f"({', '.join(f'{n} x {what}' for what, n in failures.items())}); {_KEPT}"
        )

    @contextmanager
    def _line(self, call: threading.Event) -> Iterator[Line]:
        """One of `parallel` connections, for one request: what limits how many are under way at once."""
        with self._change:
            self._change.wait_for(lambda: call.is_set() or len(self._busy) < self.parallel)
            _refuse_given_up(call)
            if not self._idle:
                client = self._new_client()
                weakref.finalize(self, client.close)
                self._idle.append(Line(client))
            line = self._idle.pop()
            self._busy.add(line)
        try:
            yield line
        finally:
            with self._change:
                self._busy.remove(line)
                self._idle.append(line)
                self._change.notify()

    def _enter(self, call: threading.Event) -> None:
        """Enter a request in the ledger, then wait until the rate allows it."""
        now = self._clock.now()
        at = self._ledger.spend(self._cap, self._gap, now)
        if at is None:
            more = Spec("http", self._spec.name, {**self._spec.options, "max_requests": str(2 * (self._cap or 1))})
            raise BudgetError(
                f"the cap of {self._cap} requests is reached (max_requests={self._cap}), raise it where the target is "
                f'named; {_KEPT} --set "target={public(more.text)}"'
            )
        try:
            if at > now:
                self._clock.wait(call, min(at - now, threading.TIMEOUT_MAX))
            _refuse_given_up(call)
        except BaseException:
            self._ledger.refund()
            raise

    def _once(self, line: Line, method: str, body: bytes | None, call: threading.Event) -> bytes:
        import httpx

        headers = {} if body is None else {"Content-Type": "application/json"}
        late = False
        try:
            with line.within(self._timeout):
                if call.is_set():  # after its last look, and before there was anything to cut off
                    line.cut_in(_GRACE)
                with line.client.stream(
                    method, self._spec.name, content=body, headers=headers, extensions={"trace": line.see}
                ) as response:
                    content = self._content(response)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            late = isinstance(error, httpx.TimeoutException)
            if not (late or line.over):
                raise _failure(error) from None
        if late or line.over:  # what was cut off can look whole
            raise _MayPass(f"no whole answer within {self._timeout:g} s")
        self._refuse(response, content)
        return content

    def _content(self, response: "httpx.Response") -> bytes:
        packed = response.headers.get("Content-Encoding", "identity")
        if packed != "identity":
            raise TargetError(f"packs its answers ({shown(packed, 40)}), although it was asked not to")
        content = bytearray()
        for piece in response.iter_raw():
            content += piece
            if len(content) > MOST_BYTES:
                raise TargetError(f"the answer is longer than {MOST_BYTES >> 20} MB; ask for fewer images at once (batch=)")
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


def _failure(error: Exception) -> Exception:
    """What a request that failed on the way stands for."""
    import httpx

    if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL)):
        return TargetError(f"cannot be asked ({error})")
    if not isinstance(error, httpx.ConnectError):
        return _MayPass("a dropped connection")
    if "CERTIFICATE" in str(error):
        return TargetError(f"its certificate does not hold ({error})")
    return _MayPass(f"no connection ({shown(str(error), 80)})")


def _refuse_given_up(call: threading.Event) -> None:
    if call.is_set():
        raise TargetError(_GIVEN_UP)


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
