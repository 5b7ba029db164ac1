"""The server of the gallery: on this machine only, until it is interrupted."""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from evofool.errors import StoreError
from evofool.gallery.app import Gallery, create_app
from evofool.gallery.asking import Subject, load
from evofool.gallery.catalogue import Catalogue
from evofool.gallery.quiz_desk import QuizDesk
from evofool.gallery.security import TOKEN, Tokens

HOST = "127.0.0.1"


def serve(
    roots: Sequence[Path],
    desk: QuizDesk,
    port: int = 0,
    begun: Callable[[str], None] = lambda _address: None,
    first: Callable[[Catalogue], str] = lambda _catalogue: "/",
    asking: bool = False,
    asked: str | None = None,
) -> None:
    """Serve what is below roots until Ctrl-C. begun is called with the address that opens it, which has the start's token.

    desk: of the quizzes. port: 0 takes a free one. first: the path of the page that is opened. asking: images can be drawn,
    and the targets of the runs, or the one of the spec `asked`, say what they see. StoreError for a root that is no folder
    and for a port that is in use, TargetError for a target that cannot be asked.
    """
    for root in roots:
        if not root.is_dir():
            raise StoreError(f"there is no folder {root}; name one that has runs in it: evofool gallery FOLDER")
    named = load(Subject(asked)) if asked is not None else None
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except OSError as error:
            raise StoreError(
                f"port {port} cannot be used ({error.strerror or error}); choose another one by --port"
            ) from None
        listening.listen()  # from now on a browser that is quick waits
        found = listening.getsockname()[1]
        tokens = Tokens()
        gallery = Gallery(Catalogue(roots), tokens, desk, asking, named)
        app = create_app(gallery, found)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1, ws="none"
        )
        begun(f"http://{HOST}:{found}{first(gallery.catalogue)}?{TOKEN}={tokens.start}")
        GalleryServer(config, gallery).run(sockets=[listening])


class GalleryServer(uvicorn.Server):
    """Ends the streams of open tabs first when it ends: it waits for its responses."""

    def __init__(self, config: uvicorn.Config, gallery: Gallery) -> None:
        super().__init__(config)
        self._gallery = gallery

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gallery.watchers.close()
        await super().shutdown(sockets)
