"""A gallery for tests: served to a client in this process, or to a browser on a port of this machine."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.testclient import TestClient

from evofool.cli.in_browser import quiz_desk
from evofool.gallery.app import Gallery, create_app
from evofool.gallery.catalogue import Catalogue
from evofool.gallery.security import Tokens
from evofool.gallery.server import GalleryServer
from evofool.targets import Target

PORT = 8901


def client(
    root: Path, tokens: Tokens, welcome: bool = True, asking: bool = False, named: Target | None = None
) -> TestClient:
    """A client of the gallery of one folder, as a browser that has opened its start address."""
    gallery = Gallery(Catalogue([root]), tokens, quiz_desk(None), asking, named)
    found = TestClient(create_app(gallery, PORT), base_url=f"http://127.0.0.1:{PORT}")
    if welcome:
        assert found.get("/", params={"token": tokens.start}).status_code == 200
    return found


@contextlib.contextmanager
def served(root: Path, asking: bool = False) -> Iterator[str]:
    """The start address of a gallery that is served on a free port while the context lasts."""
    import socket

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port, tokens = listening.getsockname()[1], Tokens()
    gallery = Gallery(Catalogue([root]), tokens, quiz_desk(None), asking)
    config = uvicorn.Config(create_app(gallery, port), log_level="error", timeout_graceful_shutdown=1)
    server = GalleryServer(config, gallery)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            server.run(sockets=[listening])
        except BaseException as error:  # also the exit of a server that cannot start
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the gallery did not start") from (failed[0] if failed else None)
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}/?token={tokens.start}"
    finally:
        server.should_exit = True
        thread.join(10)
