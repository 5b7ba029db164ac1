"""Whether Hugging Face's hub can be reached: its client would try for a minute."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlparse

_PATIENCE = 4.0  # seconds that the hub has to answer


def reachable() -> bool:
    """Whether the hub takes a connection within a few seconds; True behind a proxy, which is not tried."""
    from huggingface_hub import constants

    address = urlparse(constants.ENDPOINT)
    proxied = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    return proxied or _answers(str(address.hostname), address.port or (80 if address.scheme == "http" else 443))


@contextmanager
def cache_alone_if_unreachable() -> Iterator[None]:
    """In this context weights come from the hub's cache alone if the hub cannot be reached."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    if not reachable():
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(host: str, port: int) -> bool:
    """Looking up the host's name may hang for longer than connecting to it."""
    ended, answered = threading.Event(), threading.Event()

    def connect() -> None:
        with suppress(OSError), socket.create_connection((host, port), _PATIENCE / 2):  # of each of its addresses
            answered.set()
        ended.set()

    threading.Thread(target=connect, daemon=True).start()
    ended.wait(_PATIENCE)
    return answered.is_set()
