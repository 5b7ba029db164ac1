"""A connection to a black box on which a request can be cut off."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from evofool.errors import TargetError

if TYPE_CHECKING:
    import httpx


class Line:
    """A connection to the server, one request at a time, which is cut from another thread when that takes too long.

    The client's own limit is on each piece that comes: a server could send a byte now and then for ever.
    """

    def __init__(self, client: "httpx.Client") -> None:
        self.client = client
        self.over = False  # whether the last request was cut off
        self._lock = threading.Lock()
        self._stream: Any = None
        self._request = 0  # even: none under way

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Cut off the request in the block when it takes longer."""
        with self._lock:
            self._request += 1
            self.over = False
        timer = self.cut_in(seconds)
        try:
            yield
        finally:
            with self._lock:
                self._request += 1
            timer.cancel()

    def cut_in(self, seconds: float) -> threading.Timer:
        """Cut off, so many seconds from now, the request that is under way now, if it still is."""
        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._cut, (self._request,))
        timer.daemon = True
        timer.start()
        return timer

    def see(self, event: str, info: dict[str, Any]) -> None:
        """Be told what the client does: here, which connection it has made (httpx: trace)."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            with self._lock:
                self._stream = info["return_value"]
                if self.over:
                    self._shut()

    def _cut(self, request: int) -> None:
        with self._lock:
            if request == self._request and request % 2:
                self.over = True
                self._shut()

    def _shut(self) -> None:
        ours = self._stream.get_extra_info("socket") if self._stream else None
        if ours is not None:
            with suppress(OSError):  # it is closed already
                socket.socket.shutdown(ours, socket.SHUT_RDWR)  # not TLS's own, which is for the thread that reads


def clients(timeout: float, token: str | None, through_proxies: bool) -> Callable[[], "httpx.Client"]:
    """What makes a client with one connection."""
    try:
        import httpx
    except ModuleNotFoundError:
        raise TargetError("a target over HTTP needs httpx: pip install 'evofool[http]'") from None
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "evofool"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    certificates: ssl.SSLContext = httpx.create_ssl_context(trust_env=through_proxies)
    return lambda: httpx.Client(
        timeout=timeout,
        follow_redirects=False,
        trust_env=through_proxies,
        verify=certificates,
        limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        headers=headers,
    )
