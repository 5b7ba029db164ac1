"""The pages of the quiz: routes that are put beside those of the gallery. Nothing here tells what a trial shows."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from evofool.errors import EvofoolError
from evofool.gallery.catalogue import Entry
from evofool.gallery.quiz_desk import QuizDesk

_LARGEST = 1 << 14  # bytes of what a page sends
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class QuizPages:
    """The handlers.

    entry: from a run's id what the gallery knows of it. show: to be told of folders whose images a page shows.
    page: a template as a response.
    """

    desk: QuizDesk
    entry: Callable[[str], Entry]
    show: Callable[[set[Path]], Awaitable[None]]
    page: Callable[..., Response]

    def routes(self) -> list[Route]:
        session = "/quiz/{id}/{session}"
        return [
            Route("/quiz/{id}", self.start),
            Route("/quiz/{id}/begin", self.begin, methods=["POST"]),
            Route(session, self.session),
            Route(f"{session}/now", self.now),
            Route(f"{session}/answer", self.answer, methods=["POST"]),
            Route(f"{session}/end", self.end, methods=["POST"]),
            Route(f"{session}/results", self.results),
            Route(f"{session}/{{trial}}.png", self.picture),
        ]

    async def start(self, request: Request) -> Response:
        entry = self._entry(request)
        shown: dict[str, Any] = {"fault": ""}
        try:
            shown |= await self.desk.call(self.desk.start, entry.folder)
        except EvofoolError as error:
            shown["fault"] = str(error)
        return self.page("quiz_start.html", id=entry.id, folder=str(entry.folder), **shown)

    async def begin(self, request: Request) -> Response:
        entry, given = self._entry(request), await _sent(request)
        agent = request.headers.get("user-agent", "")
        session = await self.desk.call(self.desk.begin, entry.folder, given, agent)
        return JSONResponse({"session": session})

    async def session(self, request: Request) -> Response:
        """The page that asks, and after the end whether the session counts, without any image or class."""
        entry, session = self._entry(request), _session(request)
        results = await self.desk.call(self.desk.results, entry.folder, session)
        page = "quiz_end.html" if results else "quiz_session.html"
        return self.page(page, id=entry.id, session=session, **results)

    async def results(self, request: Request) -> Response:
        """What a session that has ended showed. Whoever answers in this browser from now on may have seen it."""
        entry, session = self._entry(request), _session(request)
        results = await self.desk.call(self.desk.results, entry.folder, session)
        if not results:
            raise HTTPException(400, "This session has not ended.")
        await self.show({entry.folder})
        return self.page("quiz_results.html", id=entry.id, session=session, **results)

    async def now(self, request: Request) -> Response:
        return JSONResponse(await self.desk.call(self.desk.state, self._entry(request).folder, _session(request)))

    async def answer(self, request: Request) -> Response:
        folder, given = self._entry(request).folder, await _sent(request)
        return JSONResponse(await self.desk.call(self.desk.answer, folder, _session(request), given))

    async def end(self, request: Request) -> Response:
        entry, given = self._entry(request), await _sent(request)
        seen = given.get("seen") is True
        return JSONResponse(await self.desk.call(self.desk.end, entry.folder, _session(request), seen))

    async def picture(self, request: Request) -> Response:
        folder, trial = self._entry(request).folder, request.path_params["trial"]
        png = await self.desk.call(self.desk.picture, folder, _session(request), trial)
        return Response(png, media_type="image/png")

    def _entry(self, request: Request) -> Entry:
        return self.entry(request.path_params["id"])


def _session(request: Request) -> str:
    return str(request.path_params["session"])


async def _sent(request: Request) -> dict[str, Any]:
    """The JSON object that a page has sent; HTTPException for anything else."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST:
            raise HTTPException(413, f"At most {_LARGEST:,} bytes are read.")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise HTTPException(400, "This is no JSON object.")
    return given
