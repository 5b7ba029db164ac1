"""The page on which one draws or uploads an image, and the answer of a target to it."""

from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from evofool.errors import EvofoolError
from evofool.gallery.asking import MOST_BYTES, MOST_PIXELS, Asker, Subject
from evofool.gallery.catalogue import Catalogue, Entry
from evofool.gallery.open_runs import OpenRun, OpenRuns
from evofool.targets import Target, is_black_box, needs_trust

_MOST_CHOICES = 30
_PAUSE = 500  # milliseconds without a stroke before a server is asked: each image costs a request


class Site(Protocol):
    """What these pages need of the gallery."""

    catalogue: Catalogue
    runs: OpenRuns

    def page(self, template: str, status_code: int = 200, **values: Any) -> Response: ...


class Drawing:
    """The routes of the page. named: a target that is asked, too; None: only those of runs are."""

    def __init__(self, site: Site, named: Target | None) -> None:
        self._site, self._named, self._asker = site, Subject(named.name) if named else None, Asker(named)

    def routes(self) -> list[Route]:
        return [Route("/draw", self.draw), Route("/ask", self.ask, methods=["POST"])]

    async def close(self) -> None:
        await self._asker.close()

    async def draw(self, request: Request) -> Response:
        """The page. run: whose target is asked; cell: whose image lies on the paper at first."""
        choices = await self._choices()
        entry = self._entry(request) or (None if self._named else next(iter(choices), None))
        if entry is None and self._named is None:
            raise HTTPException(400, "There is no run here whose target could be asked; name one by --target.")
        subject = await self._subject(entry)
        start = ""
        if entry is not None:
            cell = request.query_params.get("cell", "")
            if cell.isascii() and cell.isdigit() and len(cell) < 16:
                start = await self._site.runs.read(entry.folder, lambda run: _picture(run, entry, int(cell)))
        shape, fault = (0, 0, 0), ""
        try:
            shape = await self._asker.shape(subject)
        except EvofoolError as error:  # of a page on which another target can be chosen
            fault = str(error)
        channels, height, width = shape
        return self._site.page(
            "draw.html",
            status_code=400 if fault else 200,
            fault=fault,
            target=subject.spec,
            entry=entry,
            named=self._named.spec if self._named else "",
            choices=choices,
            channels=channels,
            height=height,
            width=width,
            start=start,
            pause=_PAUSE if is_black_box(subject.spec) else 0,
            most_bytes=MOST_BYTES,
            most_pixels=MOST_PIXELS,
        )

    async def ask(self, request: Request) -> Response:
        """The answer to a PNG, the body of the request."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "image/png":
            raise HTTPException(415, "Only a PNG is answered.")
        png = await body_of(request, MOST_BYTES)
        subject = await self._subject(self._entry(request))
        with_pixels = request.query_params.get("pixels") == "yes"
        return JSONResponse(await self._asker.ask(subject, png, with_pixels))

    def _entry(self, request: Request) -> Entry | None:
        """The run that a request names; None if it names none."""
        run = request.query_params.get("run", "")
        if not run:
            return None
        entry = self._site.catalogue.find("run", run)
        if entry is None:
            raise HTTPException(404, "There is no such run: it may have been moved.")
        return entry

    async def _subject(self, entry: Entry | None) -> Subject:
        if entry is not None:
            return await self._site.runs.read(entry.folder, lambda run: _subject_of(run, entry))
        if self._named is None:
            raise HTTPException(400, "Say of which run the target is asked.")
        return self._named

    async def _choices(self) -> list[Entry]:
        """Of each target that can be asked one run that can be read, the first by path."""
        found: dict[str, Entry] = {}
        for entry in await self._site.runs.call(self._site.catalogue.scan):
            if entry.kind != "run" or entry.fault or len(found) == _MOST_CHOICES:
                continue
            try:
                subject = await self._subject(entry)
            except EvofoolError:  # the first page says what is wrong with it
                continue
            if not needs_trust(subject.spec):
                found.setdefault(subject.fingerprint, entry)
        return list(found.values())


async def body_of(request: Request, most: int) -> bytes:
    """The body of a request, read up to so many bytes; HTTPException 413 for a longer one, which is not read on."""
    too_long = HTTPException(413, f"The image has more than {most // 1024} kB; make it smaller.")
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or len(declared) > 15 or int(declared) > most:
        raise too_long
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise too_long
    return bytes(body)


def _subject_of(run: OpenRun, entry: Entry) -> Subject:
    meta = run.stored.meta
    return Subject(run.stored.recipe.target, meta.target.fingerprint, entry.folder, tuple(meta.warnings))


def _picture(run: OpenRun, entry: Entry, cell: int) -> str:
    """The address of a cell's image; "" if it has none."""
    key = run.keys.get(cell)
    return f"/run/{entry.id}/elite/{key.birth}-{key.sha256}.png" if key else ""
