"""An HTTP connection whose current request can be cut off from another thread."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

from evofool.errors import TargetError

if TYPE_CHECKING:
    import httpx


class Connection:
    """A connection to the server, for one request at a time; a request that takes too long is cut off from another thread.

    httpx's time-out applies to each piece that arrives, so a server that sends single bytes would never time out.
    """

    def __init__(self, client: "httpx.Client") -> None:
        self.client = client
        self.was_cut_off = False  # whether the last request was cut off
        self._lock = threading.Lock()
        self._stream: Any = None
        self._request = 0  # odd while a request is in progress

    @contextmanager
    def time_limit(self, seconds: float) -> Iterator[None]:
        """Cut off the request in the block if it takes longer."""
        with self._lock:
            self._request += 1
            self.was_cut_off = False
        timer = self.cut_off_after(seconds)
        try:
            yield
        finally:
            with self._lock:
                self._request += 1
            timer.cancel()

    def cut_off_after(self, seconds: float) -> threading.Timer:
        """Cut off the request that is in progress now, if it still is after so many seconds."""
        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._cut_off, (self._request,))
        timer.daemon = True
        timer.start()
        return timer

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Take the stream of a new connection from the client (httpx's trace extension)."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            with self._lock:
                self._stream = info["return_value"]
                if self.was_cut_off:
                    self._shut_down()

    def _cut_off(self, request: int) -> None:
        with self._lock:
            if request == self._request and request % 2:
                self.was_cut_off = True
                self._shut_down()

    def _shut_down(self) -> None:
        connected = self._stream.get_extra_info("socket") if self._stream else None
        if connected is not None:
            with suppress(OSError):  # it is closed already
                # Not the shutdown of TLS, which only the reading thread may call.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)


def client_factory(timeout: float, secret_headers: Mapping[str, str], through_proxies: bool) -> Callable[[], "httpx.Client"]:
    """A function that makes clients with one connection each, which send these headers too."""
    try:
        import httpx
    except ModuleNotFoundError:
        raise TargetError("a target over HTTP needs httpx: pip install 'evofool[http]'") from None
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "evofool", **secret_headers}
    # Certificates of the environment (SSL_CERT_FILE, SSL_CERT_DIR), also for this machine, which is reached without proxies.
    certificates: ssl.SSLContext = httpx.create_ssl_context(trust_env=True)
    # A server's cookies are not kept: images have to be answered alike, whatever was asked before.
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return lambda: httpx.Client(
        timeout=timeout,
        follow_redirects=False,
        trust_env=through_proxies,
        verify=certificates,
        limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        headers=headers,
        cookies=no_cookies,
    )
