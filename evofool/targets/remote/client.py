"""The client of a black box: each request is recorded before it is sent, and repeated after errors that may be temporary."""

import email.utils
import json
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from evofool.errors import BudgetError, TargetError
from evofool.targets.remote.connection import Connection, client_factory
from evofool.targets.remote.credentials import secret_forms, secret_headers, without_secrets
from evofool.targets.remote.ledger import Ledger
from evofool.targets.remote.responses import InvalidJson, printable
from evofool.targets.remote.url import address_of, host_of, redacted_url
from evofool.targets.spec import Spec

if TYPE_CHECKING:
    import httpx

MAX_BYTES = 64 << 20  # of a response; JSON that is parsed may take 30 times as much memory
_BYTES_BESIDE, _BYTES_EACH = 4 << 20, 256  # of a response, whose number of scores is known: in all, and for each score
_ERROR_BYTES = 1 << 16  # of an error response, that are read
_REASONS = ("error", "message", "detail")  # the key of the reason in an error response
_TEMPORARY = (408, 425, 429)  # the temporary 4xx; every 5xx counts as temporary, except 501, "not implemented"
_FIRST_WAIT, _MAX_WAIT, _MAX_RETRY_AFTER = 0.5, 60.0, 300.0  # seconds: between attempts, and a server's Retry-After
GRACE = 1.0  # seconds that a request in progress, which is paid for, may still take after its call is cancelled
_SECRET_LENGTH = 8  # characters: a shorter value may be in a description by chance
_KEPT = "a run has kept the earlier answers"
_CANCELLED = f"cancelled before the server answered; {_KEPT}"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Clock:
    """The clock of a client; tests replace it. wait ends early when the event is set."""

    now: Callable[[], float] = time.time
    wait: Callable[[threading.Event, float], object] = threading.Event.wait
    # in [0, 1): affects waiting times only
    jitter: Callable[[], float] = field(default_factory=lambda: random.Random().random)


@dataclass(frozen=True)
class Message:
    """A request. body: JSON. path: added to that of the target's URL; url: instead of it. scores: of the answer, or None."""

    method: str
    body: bytes | None = None
    path: str = ""
    url: str | None = None
    scores: int | None = None

    @property
    def max_bytes(self) -> int:
        """Of the answer."""
        return MAX_BYTES if self.scores is None else min(MAX_BYTES, _BYTES_BESIDE + _BYTES_EACH * self.scores)


class HttpError(TargetError):
    """A response whose status is an error that is not temporary."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class NoResponseError(TargetError):
    """All attempts of a request have failed."""


class HttpClient:
    """A client of one server. url: for display, without parts that may be secret. May be used by several threads at once."""

    def __init__(self, spec: Spec, ledger: Ledger, clock: Clock) -> None:
        self._spec, self._ledger, self._clock = spec, ledger, clock
        host, self.url = host_of(spec.name), redacted_url(spec.name)
        self._address = address_of(spec.name)
        self._timeout = _above_0(spec, "timeout", 30.0)
        self._retries = spec.whole("retries", 5, least=0) or 0
        self._gap = 1 / _above_0(spec, "rate", float("inf"))
        self._cap = spec.whole("max_requests")
        self.batch, self.parallel = spec.whole("batch", 32) or 32, spec.whole("parallel", 4) or 4
        local = host == "localhost" or host == "::1" or host.startswith("127.")
        self._secret = secret_headers(spec)
        unsafe = self._secret and not local and self._address.startswith("http:")
        what = "the token is" if [*self._secret] == ["Authorization"] else f"{' and '.join(self._secret)} are"
        self.notes = [f"{what} sent to {self.url} unencrypted; use https to encrypt it"] if unsafe else []
        self._new_client = client_factory(self._timeout, self._secret, through_proxies=not local)
        self._idle: list[Connection] = []
        self._busy: dict[Connection, threading.Event] = {}
        self._change = threading.Condition()
        self._reading = threading.Lock()
        self._calls: weakref.WeakSet[threading.Event] = weakref.WeakSet()

    def call(self) -> threading.Event:
        """The event of a call that begins now, to be passed to its requests; it is set when the call is cancelled."""
        begun = threading.Event()
        with self._change:
            self._calls.add(begun)
        return begun

    def cancel(self, call: threading.Event | None = None) -> None:
        """Cancel a call, or all in progress: they stop waiting and send nothing more. Later calls are not affected."""
        with self._change:
            for each in list(self._calls) if call is None else [call]:
                each.set()
            for connection, its_call in self._busy.items():
                if its_call.is_set():
                    connection.cut_off_after(GRACE)
            self._change.notify_all()

    def request(self, message: Message, read: Callable[[bytes], _T], call: threading.Event | None = None) -> _T:
        """read(content) of the server's response; an InvalidJson that it raises counts as temporary.

        TargetError once all attempts have failed or the call is cancelled, and at once for errors that are not temporary;
        BudgetError when the limit of requests is reached.
        """
        call = call or self.call()
        failures: Counter[str] = Counter()
        for attempt in range(self._retries + 1):
            retry_after = None
            try:
                with self._connection(call) as connection:
                    self._record(call)
                    content = self._send(connection, message, call)
                with self._reading:  # one at a time, for the sake of memory; Python would not be faster with several
                    return read(content)
            except _TemporaryError as failure:
                failures[failure.reason] += 1
                retry_after = failure.retry_after
            except InvalidJson as error:
                failures[f"an answer that is {self.without_secrets(str(error))}"] += 1
            except TargetError as error:
                error.args = (f"{self.url}: {self.without_secrets(str(error))}",)
                raise
            if attempt < self._retries:
                back_off = min(_MAX_WAIT, _FIRST_WAIT * 2.0**attempt) * (0.5 + self._clock.jitter() / 2)
                self._clock.wait(call, back_off if retry_after is None else retry_after)
        if call.is_set():
            raise TargetError(f"{self.url}: {_CANCELLED}")
        tried = sum(failures.values())
        raise NoResponseError(
            f"{self.url}: no answer after {tried} request{'s' if tried > 1 else ''} "
            f"({', '.join(f'{n} x {reason}' for reason, n in failures.items())}); {_KEPT}"
        )

    def without_secrets(self, text: str) -> str:
        """text without the values of the headers that are secret: for all that may quote the server."""
        return without_secrets(text, self._secret)

    @contextmanager
    def hiding_secrets(self) -> Iterator[None]:
        """The text of a TargetError from the block is without_secrets."""
        try:
            yield
        except TargetError as error:
            error.args = (self.without_secrets(str(error)), *error.args[1:])
            raise

    def refuse_secrets(self, described: object) -> None:
        """TargetError for a server's description, which is stored with a run, if it repeats the value of a secret header."""
        text = json.dumps(described, ensure_ascii=False)
        if any(len(form) >= _SECRET_LENGTH and form in text for form in secret_forms(self._secret)):
            raise TargetError(
                f"{self.url}: its description repeats the value of {' or '.join(self._secret)}, which is not to be stored"
            )

    @contextmanager
    def _connection(self, call: threading.Event) -> Iterator[Connection]:
        """One of `parallel` connections, for one request: this limits the number of concurrent requests."""
        with self._change:
            self._change.wait_for(lambda: call.is_set() or len(self._busy) < self.parallel)
            _raise_if_cancelled(call)
            if not self._idle:
                client = self._new_client()
                weakref.finalize(self, client.close)
                self._idle.append(Connection(client))
            connection = self._idle.pop()
            self._busy[connection] = call
        try:
            yield connection
        finally:
            with self._change:
                del self._busy[connection]
                self._idle.append(connection)
                self._change.notify()

    def _record(self, call: threading.Event) -> None:
        """Record a request in the ledger, then wait until the rate allows it."""
        now = self._clock.now()
        at = self._ledger.spend(self._cap, self._gap, now)
        if at is None:
            more = 2 * (self._cap or 1)
            raised = replace(self._spec, options={**self._spec.options, "max_requests": str(more)})
            raise BudgetError(
                f"the limit of {self._cap} requests is reached (max_requests={self._cap}); raise it in the target's spec, "
                f"as in {redacted_url(raised.text)}; {_KEPT}",
                raised.text,
            )
        try:
            if at > now:
                self._clock.wait(call, min(at - now, threading.TIMEOUT_MAX))
            _raise_if_cancelled(call)
        except BaseException:
            self._ledger.refund()
            raise

    def _send(self, connection: Connection, message: Message, call: threading.Event) -> bytes:
        import httpx

        head, mark, query = (self._address if message.url is None else address_of(message.url)).partition("?")
        url = f"{head}{message.path}{mark}{query}"
        headers = {} if message.body is None else {"Content-Type": "application/json"}
        late = False
        try:
            with connection.time_limit(self._timeout):
                if call.is_set():  # cancelled since the last check, before there was a request to cut off
                    connection.cut_off_after(GRACE)
                with connection.client.stream(
                    message.method, url, content=message.body, headers=headers, extensions={"trace": connection.trace}
                ) as response:
                    content = self._content(response, message.max_bytes)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            late = isinstance(error, httpx.TimeoutException)
            if not (late or connection.was_cut_off):
                raise _failure(error) from None
        if late or connection.was_cut_off:  # a response that was cut off may look complete
            raise _TemporaryError(f"no whole answer within {self._timeout:g} s")
        self._check_status(response, content)
        return content

    def _content(self, response: "httpx.Response", most: int) -> bytes:
        packed = response.headers.get("Content-Encoding", "identity")
        if packed != "identity":
            raise TargetError(f"compresses its answers ({printable(packed, 40)}), although the request forbids it")
        content = bytearray()
        for piece in response.iter_raw():
            content += piece
            if len(content) > most:
                raise TargetError(f"the answer is longer than {most >> 20} MB; send fewer images at once (batch=)")
        return bytes(content)

    def _check_status(self, response: "httpx.Response", content: bytes) -> None:
        """Raise the error for a status other than 2xx."""
        status = response.status_code
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            location = printable(redacted_url(self.without_secrets(response.headers.get("Location", "nowhere"))))
            raise HttpError(f"HTTP {status} redirects to {location}; if that is the server, name it as the target", status)
        reason = _error_text(content, self.without_secrets)
        if status in _TEMPORARY or (status >= 500 and status != 501):
            raise _TemporaryError(f"HTTP {status}{reason}", _seconds(response.headers.get("Retry-After"), self._clock.now()))
        raise HttpError(f"HTTP {status}{reason}", status)


class _TemporaryError(Exception):
    """An error that may not occur next time; retry_after: seconds that the server asked the client to wait, if it did."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.retry_after = reason, retry_after


def _failure(error: Exception) -> Exception:
    """The error to raise for a request that failed before there was a response."""
    import httpx

    if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL)):
        return TargetError(f"the request cannot be sent ({error})")
    if not isinstance(error, httpx.ConnectError):
        return _TemporaryError("a dropped connection")
    if "CERTIFICATE" in str(error):
        return TargetError(f"its certificate is not valid ({error})")
    return _TemporaryError(f"no connection ({printable(str(error), 80)})")


def _raise_if_cancelled(call: threading.Event) -> None:
    if call.is_set():
        raise TargetError(_CANCELLED)


def _above_0(spec: Spec, option: str, default: float) -> float:
    value = spec.number(option, default)
    if not value > 0 or (option in spec.options and value == float("inf")):
        raise TargetError(f"{redacted_url(spec.name)}: {option} is {spec.options[option]}; it has to be a number above 0")
    return value


def _seconds(retry_after: str | None, now: float) -> float | None:
    """Retry-After (seconds or a date) as seconds from now, at most five minutes; None if it is neither."""
    if retry_after is None:
        return None
    try:
        if retry_after.isdecimal():
            seconds = float(retry_after)
        else:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER)


def _error_text(content: bytes, without_secrets: Callable[[str], str]) -> str:
    """The text of an error response, {"error": "..."} (or another of _REASONS) or any other, after a colon; "" if empty."""
    text = content[:_ERROR_BYTES].decode("utf-8", "replace")
    try:
        content_json = json.loads(text)
    except (ValueError, RecursionError):
        content_json = None
    if isinstance(content_json, dict):
        text = next((found for key in _REASONS if isinstance(found := content_json.get(key), str)), text)
    # Before it is shortened: the cut may lie within a secret.
    return f": {printable(without_secrets(text))}" if text.strip() else ""
