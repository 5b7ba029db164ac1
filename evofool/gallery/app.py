"""The pages of the gallery: routes from addresses to what a run, a benchmark or an explanation has."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from evofool.errors import EvofoolError, StoreError
from evofool.export.image_file import file_name
from evofool.export.selection import selection_zip
from evofool.gallery import pages, reports
from evofool.gallery.asking import BusyError
from evofool.gallery.catalogue import Catalogue, Entry
from evofool.gallery.drawing import Drawing
from evofool.gallery.grid import View
from evofool.gallery.jobs import JobError, Jobs
from evofool.gallery.live import Watchers, news
from evofool.gallery.open_runs import OpenRuns
from evofool.gallery.quiz_desk import QuizDesk
from evofool.gallery.quiz_pages import QuizPages
from evofool.gallery.security import COPY_POLICY, DRAWING_POLICY, Guard, Tokens
from evofool.gallery.selection import chosen_cells
from evofool.gallery.templating import STATIC, environment
from evofool.gallery.thumbnails import SIDES
from evofool.pages.stylesheet import STYLE
from evofool.targets import Target
from genomes import GenomeError

_FOREVER = {"cache-control": "private, max-age=31536000, immutable"}
_STATUS = ((JobError, 409), (BusyError, 429), (StoreError, 404))  # of errors; 400 of others
_LARGEST = 1024  # pixels of a picture that is drawn larger


class _Whole(IntegerConvertor):
    """Numbers of an address that are no longer than any birth."""

    regex = "[0-9]{1,15}"


register_url_convertor("whole", _Whole())


class Gallery:
    """The state of a server: what there is, and the runs that are open. Every handler is a method."""

    def __init__(
        self,
        catalogue: Catalogue,
        tokens: Tokens,
        desk: QuizDesk | None,
        asking: bool = False,
        named: Target | None = None,
        static: bool = False,
    ) -> None:
        """desk: of the quizzes, if people are asked. asking: images can be drawn, which the targets of runs answer, and
        `named` if it is given. static: pages are made for a copy, in which nothing can be started, searched for or asked,
        and no folder of this machine is named.
        """
        self.catalogue, self.tokens, self.desk, self.static = catalogue, tokens, desk, static
        self.pairs: list[tuple[Entry, Entry]] = []  # that the first page of a copy compares
        self.runs = OpenRuns()
        self.watchers = Watchers(self.runs)
        self.jobs = Jobs()
        self.drawing = Drawing(self, named) if asking else None
        self._templates = environment(static)
        style = (STATIC / "gallery.css").read_text(encoding="utf-8")
        self._style = STYLE + style

    def routes(self) -> list[Route | Mount]:
        run = "/run/{id}"
        quiz = QuizPages(self.desk, partial(self._entry, "run"), self._show, self.page) if self.desk else None
        return [
            *(quiz.routes() if quiz else ()),
            Route("/", self.home),
            Route(run, self.grid),
            Route(f"{run}/events", self.events),
            Route(f"{run}/now", self.now),
            Route(f"{run}/at", self.at),
            Route(f"{run}/selection.zip", self.selection),
            Route(f"{run}/cell/{{cell:whole}}", self.cell),
            Route(f"{run}/descent/{{birth:whole}}", self.descent),
            Route(f"{run}/elite/{{birth:whole}}-{{sha256}}.png", self.elite_picture),
            Route(f"{run}/drawn/{{birth:whole}}.png", self.drawn_picture),
            Route(f"{run}/genome/{{birth:whole}}.json", self.genome),
            Route(f"{run}/graph/{{birth:whole}}.svg", self.graph),
            Route(f"{run}/cell/{{cell:whole}}/explain", self.explain, methods=["POST"]),
            Route(f"{run}/evolve", self.evolve, methods=["POST"]),
            Route("/job", self.job),
            Route("/job/stop", self.stop_job, methods=["POST"]),
            Route("/compare", self.compare),
            Route("/bench/{id}/{path:path}", self.bench),
            Route("/explanation/{id}/{path:path}", self.explanation),
            Route("/gallery.css", self.style),
            Route("/favicon.ico", self.icon),
            *(self.drawing.routes() if self.drawing else ()),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]

    async def home(self, request: Request) -> Response:
        words = request.query_params.get("text", "")[:100]
        entries = await self.runs.call(self.catalogue.scan)
        listed = []
        for entry in entries:
            if entry.kind == "run" and not entry.fault:
                try:
                    listed.append(await self.runs.read(entry.folder, lambda run, e=entry: pages.listed_run(run, e)))  # type: ignore[misc]
                except EvofoolError as error:
                    listed.append(pages.faulty_run(entry, str(error)))
            elif entry.kind == "run":
                listed.append(pages.faulty_run(entry, entry.fault))
        runs = [run for run in listed if all(word in run.words for word in words.lower().split())]
        others = [entry for entry in entries if entry.kind != "run" and words.lower() in entry.name.lower()]
        await self._show({run.entry.folder for run in runs if run.preview})
        roots = ", ".join(map(str, self.catalogue.roots))
        more = self.catalogue.left_out
        values: dict[str, Any] = {
            "runs": runs,
            "others": others,
            "text": words,
            "roots": roots,
            "more": more,
            "pairs": self.pairs,
        }
        return self.page("home.html", all_runs=len(listed), **values)

    async def grid(self, request: Request) -> Response:
        entry, view = await self._run(request), View.of(request.query_params)
        shown = await self.runs.read(entry.folder, lambda run: pages.grid_page(run, entry, view))
        return self.page("grid.html", **shown)

    async def events(self, request: Request) -> Response:
        entry = await self._run(request)
        await self.runs.read(entry.folder, news)  # its errors before the stream begins

        async def stream() -> AsyncIterator[str]:
            events = self.watchers.events(entry.folder)
            try:
                async for event in events:
                    yield event
            finally:
                await events.aclose()  # type: ignore[attr-defined]

        return StreamingResponse(stream(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def now(self, request: Request) -> Response:
        """The first event alone, for a tab that hears of the others from another tab."""
        return JSONResponse(await self.runs.read((await self._run(request)).folder, news))

    async def at(self, request: Request) -> Response:
        entry, view = await self._run(request), View.of(request.query_params)
        return JSONResponse(await self.runs.read(entry.folder, lambda run: pages.places_at(run, view)))

    async def selection(self, request: Request) -> Response:
        """A ZIP of the images that were chosen, as they are now."""
        entry, cells = await self._run(request), chosen_cells(request.query_params)
        made = await self.runs.read(entry.folder, lambda run: selection_zip(run.stored, cells, run.images))
        headers = {"content-disposition": f'attachment; filename="{file_name(entry.name)}-selection.zip"'}
        return Response(made, media_type="application/zip", headers=headers)

    async def cell(self, request: Request) -> Response:
        entry, cell = await self._run(request), request.path_params["cell"]
        explanations = [e for e in await self.runs.call(self.catalogue.scan) if _explains(e, entry)]
        shown = await self.runs.read(entry.folder, lambda run: pages.cell_page(run, entry, cell, explanations, self.static))
        return self.page("cell.html", **shown)

    async def descent(self, request: Request) -> Response:
        entry, birth = await self._run(request), request.path_params["birth"]
        return self.page(
            "descent.html",
            **await self.runs.read(entry.folder, lambda run: pages.descent_page(run, entry, birth, self.static)),
        )

    async def explain(self, request: Request) -> Response:
        """Start the explanation of an elite, in the run's folder."""
        entry, cell = await self._run(request), request.path_params["cell"]
        elite = await self.runs.read(entry.folder, lambda run: pages.elite_of(run, cell))
        number = str(elite.row.class_id)
        title = f"the explanation of {elite.label} in {entry.name}"
        job = await self.jobs.start(title, ["explain", str(entry.folder), "--class", number])
        return JSONResponse(job.state())

    async def evolve(self, request: Request) -> Response:
        """Start or resume a search, up to so many evaluations."""
        entry, text = await self._run(request), request.query_params.get("evaluations", "")
        now = await self.runs.read(entry.folder, pages.evolvable)
        if not (text.isascii() and text.isdigit() and len(text) < 13) or int(text) <= now:
            raise HTTPException(400, f"Give a whole number of evaluations above {now:,}, where the run is now.")
        arguments = ["run", str(entry.folder), "--set", f"stop.evaluations={int(text)}"]
        job = await self.jobs.start(f"the search in {entry.name}", arguments)
        return JSONResponse(job.state())

    async def job(self, _request: Request) -> Response:
        """What the last command is doing."""
        return JSONResponse(self.jobs.last.state() if self.jobs.last else None)

    async def stop_job(self, request: Request) -> Response:
        self.jobs.stop()
        return await self.job(request)

    async def compare(self, request: Request) -> Response:
        ids = [request.query_params.get(name, "") for name in ("a", "b")]
        if not all(ids):
            ids = request.query_params.getlist("run")[:2]
        if len(ids) < 2:
            raise HTTPException(400, "Choose two runs to compare: tick them on the first page.")
        first, second = (self._entry("run", each) for each in ids)
        await self._show({first.folder, second.folder})
        a = await self.runs.read(first.folder, lambda run: pages.compared_run(run, first))
        b = await self.runs.read(second.folder, lambda run: pages.compared_run(run, second))
        by_difference = request.query_params.get("sort") == "difference"
        return self.page("compare.html", **pages.compare_page(a, b, by_difference))

    async def elite_picture(self, request: Request) -> Response:
        entry, side = await self._run(request), _side(request)
        birth, sha256 = request.path_params["birth"], request.path_params["sha256"]
        return _png(await self.runs.read(entry.folder, lambda run: run.stored_picture(birth, sha256, side)))

    async def drawn_picture(self, request: Request) -> Response:
        entry, birth = await self._run(request), request.path_params["birth"]
        larger = request.query_params.get("large")
        if larger is not None:
            side = int(larger) if larger.isascii() and larger.isdigit() and len(larger) < 5 else 0
            if not 8 <= side <= _LARGEST:
                raise HTTPException(400, f"A picture can be drawn with 8 to {_LARGEST} pixels.")
            return _png(await self.runs.read(entry.folder, lambda run: run.larger(birth, side)))
        side = _side(request)
        return _png(await self.runs.read(entry.folder, lambda run: run.drawn_picture(birth, side)))

    async def genome(self, request: Request) -> Response:
        entry, birth = await self._run(request), request.path_params["birth"]
        return JSONResponse(await self.runs.read(entry.folder, lambda run: run.genome_json(birth)))

    async def graph(self, request: Request) -> Response:
        entry, birth = await self._run(request), request.path_params["birth"]
        svg = await self.runs.read(entry.folder, lambda run: pages.graph(run, birth))
        headers = {"content-security-policy": DRAWING_POLICY, **_FOREVER}
        return Response(svg, media_type="image/svg+xml", headers=headers)

    async def bench(self, request: Request) -> Response:
        return await self._report(request, "bench")

    async def explanation(self, request: Request) -> Response:
        return await self._report(request, "explanation")

    async def _report(self, request: Request, kind: Any) -> Response:
        entry = self._entry(kind, request.path_params["id"])
        await self._show({entry.folder})
        return await self.runs.call(lambda: reports.page(entry, request.path_params["path"]))

    async def style(self, _request: Request) -> Response:
        return Response(self._style, media_type="text/css", headers={"cache-control": "private, max-age=60"})

    async def icon(self, _request: Request) -> Response:
        return Response(status_code=204)

    async def failed(self, request: Request, error: Exception) -> Response:
        """The page of an error, in words."""
        if isinstance(error, HTTPException):
            status, text = error.status_code, error.detail
            if status == 404 and text == "Not Found":
                text = "There is no such page."
        elif isinstance(error, LookupError):
            status, text = 404, "There is no such image, or no longer: another one has replaced it."
        elif isinstance(error, GenomeError):
            status, text = 400, f"{error}."
        else:
            status = next((status for kind, status in _STATUS if isinstance(error, kind)), 400)
            text = f"{str(error)[:1].upper()}{str(error)[1:]}."
        if request.method == "POST" or request.url.path.endswith((".png", ".json", "/events", "/at", "/now")):
            return Response(f"{text}\n", status, media_type="text/plain")
        return self.page("error.html", status=status, text=text, status_code=status)

    def page(self, template: str, status_code: int = 200, **values: Any) -> HTMLResponse:
        common = {"form_token": self.tokens.form, "asking": self.drawing is not None}
        common |= {"static": self.static, "policy": COPY_POLICY}  # a server's policy is in its headers
        return HTMLResponse(self._templates.get_template(template).render(**common, **values), status_code)

    async def _run(self, request: Request) -> Entry:
        entry = self._entry("run", request.path_params["id"])
        await self._show({entry.folder})
        return entry

    async def _show(self, folders: set[Path]) -> None:
        """Tell the quizzes that a page shows images of what is in these folders."""
        if self.desk and not folders <= self.desk.shown:
            runs = {entry.folder for entry in await self.runs.call(self.catalogue.scan) if entry.kind == "run"}
            await self.desk.call(self.desk.show, folders, runs)

    def _entry(self, kind: Any, entry_id: str) -> Entry:
        entry = self.catalogue.find(kind, entry_id)
        if entry is None:
            raise HTTPException(404, "There is no such run, benchmark or explanation: it may have been moved.")
        return entry


def create_app(gallery: Gallery, port: int) -> Guard:
    """The application that a server runs: the gallery behind its guard."""
    return Guard(create_pages(gallery), port, gallery.tokens)


def create_pages(gallery: Gallery) -> Starlette:
    """The application without its guard."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await gallery.jobs.close()
        if gallery.desk:
            gallery.desk.close()
        if gallery.drawing:
            await gallery.drawing.close()
        await gallery.runs.close()

    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = dict.fromkeys(
        (HTTPException, EvofoolError, GenomeError, LookupError), gallery.failed
    )
    return Starlette(routes=gallery.routes(), lifespan=lifespan, exception_handlers=handlers)


def _png(data: bytes) -> Response:
    return Response(data, media_type="image/png", headers=_FOREVER)


def _side(request: Request) -> int:
    """The side that a picture is asked for with; 0: as it is."""
    text = request.query_params.get("side", "0")
    side = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0
    if side and side not in SIDES:
        raise HTTPException(400, f"Pictures have {', '.join(map(str, SIDES))} pixels.")
    return side


def _explains(entry: Entry, run: Entry) -> bool:
    return entry.kind == "explanation" and entry.folder.is_relative_to(run.folder)
