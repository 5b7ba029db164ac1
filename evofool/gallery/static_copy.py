"""A gallery as files, for a web server or a folder: the pages of the server, with links from file to file.

Every page is asked of the gallery's own application, and each address in it is replaced by the file that holds what the
address shows. Pictures are stored once, by their pixels. Pages work without a server, and their script needs none.
"""

import asyncio
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape, unescape
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from evofool.errors import EvofoolError, StoreError
from evofool.explain.folder import PAGE
from evofool.export.image_file import file_name
from evofool.gallery import reports
from evofool.gallery.app import Gallery, create_pages
from evofool.gallery.asgi_get import get
from evofool.gallery.catalogue import COPY, REPORT, Catalogue, Entry
from evofool.gallery.grid import SORTS
from evofool.gallery.open_runs import OpenRun
from evofool.gallery.pages import COPIED_PIXELS, earlier_shown
from evofool.gallery.security import Tokens
from evofool.gallery.templating import STATIC
from evofool.images import decode_png, encode_png, pixel_sha256
from evofool.pages.html_page import files_of, with_policy
from evofool.whole_folder import whole_folder

STEPS = 60
"""Numbers of evaluations that a replay has at the most."""
_MOST_PAIRS = 10  # of runs that are compared
_LARGEST_GENOME = 1 << 18  # bytes
_LINK = re.compile(r' (href|src|data-picture)="([^"]*)"')
_PICTURE = re.compile(r"/run/[0-9a-z-]+/(?:elite|drawn)/[^?]*\.png(?:\?side=\d+)?")
_OF_RUN = re.compile(r"/run/([0-9a-z-]+)/(genome|graph)/(\d+)\.(json|svg)")


@dataclass
class Copied:
    """What was written: runs, pages, pictures, bytes in all; and what was left out, in sentences."""

    runs: int = 0
    pages: int = 0
    pictures: int = 0
    size: int = 0
    left_out: list[str] = field(default_factory=list)


def write_static(roots: Sequence[Path], folder: Path, report: Callable[[str], None] = lambda _line: None) -> Copied:
    """Write what is below roots into folder, which is new, empty, or an earlier copy, which is then replaced.

    report is called with the name of each run. StoreError for a root that is no folder, for no run that can be read, and for
    a folder that has other files or cannot be written.
    """
    for root in roots:
        if not root.is_dir():
            raise StoreError(f"there is no folder {root}; name one that has runs in it: evofool gallery FOLDER --static DIR")
    with whole_folder(folder, COPY) as draft:
        return asyncio.run(_written(Gallery(Catalogue(roots), Tokens(), None, static=True), draft, report))


async def _written(gallery: Gallery, folder: Path, report: Callable[[str], None]) -> Copied:
    try:
        entries = await gallery.runs.call(gallery.catalogue.scan)
        runs = [entry for entry in entries if entry.kind == "run" and not entry.fault]
        left_out = [f"{entry.name}, which cannot be read ({entry.fault})" for entry in entries if entry.fault]
        by_target: dict[str, list[Entry]] = {}
        for entry in list(runs):
            try:
                fingerprint = await gallery.runs.read(entry.folder, lambda run: run.stored.meta.target.fingerprint)
            except EvofoolError as error:  # what is wrong may show only when it is opened
                left_out.append(f"{entry.name}, which cannot be read ({error})")
                runs.remove(entry)
            else:
                by_target.setdefault(fingerprint, []).append(entry)
        if not runs:
            raise StoreError("there is no run here that can be read, so there is nothing to copy")
        pairs = [pair for group in by_target.values() for pair in combinations(group, 2)]
        gallery.pairs = pairs[:_MOST_PAIRS]
        copy = _Copy(gallery, folder, _names(entries))
        copy.done.left_out += left_out
        if len(pairs) > _MOST_PAIRS:
            copy.done.left_out.append(f"{len(pairs) - _MOST_PAIRS:,} of {len(pairs):,} comparisons")
        for entry in entries:
            if entry.kind != "run":
                copy.report(entry)
        for entry in runs:
            report(entry.name)
            await copy.run(entry)
        for a, b in gallery.pairs:
            await copy.comparison(a, b)
        await copy.page("/", "index.html")
        copy.write("gallery.css", (await get(copy.app, "/gallery.css")).body)
        copy.write("gallery.js", (STATIC / "gallery.js").read_bytes())
        copy.done.runs = len(runs)
        return copy.done
    finally:
        await gallery.runs.close()


def _names(entries: Sequence[Entry]) -> dict[Entry, str]:
    """A name for each entry's files: its own, made harmless, with a number if another has it."""
    found: dict[Entry, str] = {}
    taken = set[str]()
    for entry in entries:
        found[entry] = _unique(file_name(entry.name.replace("/", "-")).lower(), taken)
    return found


def _unique(plain: str, taken: set[str]) -> str:
    """The name, with a number if it is taken; from now on it is."""
    unique, number = plain, 1
    while unique in taken:
        number += 1
        unique = f"{plain}-{number}"
    taken.add(unique)
    return unique


class _Copy:
    """The files of a copy. done: what was written so far."""

    def __init__(self, gallery: Gallery, folder: Path, names: dict[Entry, str]) -> None:
        self.app: ASGIApp = create_pages(gallery)
        self.done = Copied()
        self._gallery, self._folder, self._names = gallery, folder, names
        self._by_id = {entry.id: name for entry, name in names.items() if entry.kind == "run"}
        # By address the file: of pages from the beginning, since pages link to one another; of pictures as they are met.
        self._files = {"/": "index.html", "/gallery.css": "gallery.css", "/static/gallery.js": "gallery.js"}
        for entry, name in names.items():
            if entry.kind == "run":
                self._files[f"/run/{entry.id}"] = f"{name}/index.html"
            else:
                self._files[f"/{entry.kind}/{entry.id}/"] = f"{name}/{REPORT if entry.kind == 'bench' else PAGE}"
        taken = set[str]()  # "a" with "b-and-c", and "a-and-b" with "c"
        for a, b in gallery.pairs:
            for tail, end in (("", ""), ("&sort=difference", "-by-difference")):
                self._files[f"/compare?a={a.id}&b={b.id}{tail}"] = (
                    f"{_unique(f'{names[a]}-and-{names[b]}{end}', taken)}.html"
                )

    def write(self, name: str, content: bytes) -> None:
        file = self._folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self.done.size += len(content)

    async def run(self, entry: Entry) -> None:
        """The pages of a run: the grid with its replay, and for each image its page and its line of descent."""
        read, base, name = self._gallery.runs.read, f"/run/{entry.id}", self._names[entry]
        keys = await read(entry.folder, lambda run: dict(run.keys))
        births = sorted({key.birth for key in keys.values()})
        self._files |= {f"{base}/cell/{cell}": f"{name}/cell-{cell}.html" for cell in keys}
        self._files |= {f"{base}/descent/{birth}": f"{name}/descent-{birth}.html" for birth in births}
        for address in [f"{base}/cell/{cell}" for cell in keys] + [f"{base}/descent/{birth}" for birth in births]:
            await self.page(address, self._files[address])
        grid = await self._get(base)
        side = int(re.findall(r'data-side="(\d+)"', grid)[0])
        data = {"orders": await self._orders(base), **await self._replay(entry, side)}
        await self.page(base, self._files[base], data)
        shown = await read(entry.folder, lambda run: earlier_shown(run, static=True))
        if shown < await read(entry.folder, _most_earlier):
            self.done.left_out.append(
                f"{entry.name}: of each image all but {shown:,} of its ancestors, and of the elites before it"
            )

    async def comparison(self, a: Entry, b: Entry) -> None:
        for tail in ("", "&sort=difference"):
            address = f"/compare?a={a.id}&b={b.id}{tail}"
            await self.page(address, self._files[address])

    async def page(self, address: str, name: str, data: Any = None) -> None:
        """Write a page, with data for its script."""
        text = await self._get(address)
        replaced = {link: await self._link(unescape(link), address, name) for _, link in _LINK.findall(text)}
        text = _LINK.sub(lambda m: "" if (to := replaced[m[2]]) is None else f' {m[1]}="{escape(to)}"', text)
        if data is not None:
            inside = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
            text = text.replace("</main>", f'</main>\n<script type="application/json" id="data">{inside}</script>', 1)
        self.write(name, text.encode())
        self.done.pages += 1

    def report(self, entry: Entry) -> None:
        """The page of a benchmark or an explanation, and the pictures and pages that it has beside it.

        They are as they are, but that a page without evofool's policy gets it: no script runs in them.
        """
        first = REPORT if entry.kind == "bench" else PAGE
        try:
            page = reports.file_of(entry, first)
            if entry.kind == "bench":
                beside = entry.folder / Path(REPORT).stem
                names = [file.relative_to(entry.folder).as_posix() for file in sorted(beside.rglob("*"))]
            else:
                names = files_of(page.decode("utf-8", "replace")) or []
        except HTTPException:
            self.done.left_out.append(f"{entry.name}, which cannot be read")
            del self._files[f"/{entry.kind}/{entry.id}/"]
            return
        self.write(f"{self._names[entry]}/{first}", with_policy(page))
        self.done.pages += 1
        for name in names:
            if PurePosixPath(name).suffix in reports.TYPES:
                try:
                    content = reports.file_of(entry, name)
                except HTTPException:
                    continue  # a link out of the folder
                html = PurePosixPath(name).suffix == ".html"
                self.write(f"{self._names[entry]}/{name}", with_policy(content) if html else content)

    async def _get(self, address: str) -> str:
        answer = await get(self.app, address)
        if answer.status != 200:
            raise StoreError(
                f"the page {address} cannot be made ({re.sub('<[^>]*>', ' ', answer.body.decode())[-300:].strip()})"
            )
        return answer.body.decode()

    async def _link(self, address: str, page: str, name: str) -> str | None:
        """What an address on a page becomes, relative to the page's file; None if the copy does not have it."""
        if address.startswith("?"):
            address = page.partition("?")[0] + address
        if not address.startswith("/"):
            return address
        file = self._files.get(address) or await self._stored(address)
        return os.path.relpath(file, PurePosixPath(name).parent).replace(os.sep, "/") if file else None

    async def _stored(self, address: str) -> str | None:
        """The file of a picture or a genome, which is written when it is first met."""
        if _PICTURE.fullmatch(address):
            image = decode_png((await get(self.app, address)).body)
            file = f"pictures/{pixel_sha256(image)[:32]}.png"
            if not (self._folder / file).exists():
                self.write(file, encode_png(image))
                self.done.pictures += 1
        elif found := _OF_RUN.fullmatch(address):
            answer = await get(self.app, address)
            if answer.status != 200 or len(answer.body) > _LARGEST_GENOME:
                return None
            file = f"{self._by_id[found[1]]}/{found[2]}-{found[3]}.{found[4]}"
            self.write(file, answer.body)
        else:
            return None
        self._files[address] = file
        return file

    async def _orders(self, base: str) -> dict[str, list[int]]:
        """By name of a sort the cells in that order."""
        return {
            sort: [int(c) for c in re.findall(r'data-cell="(\d+)"', await self._get(f"{base}?sort={sort}"))]
            for sort in SORTS
        }

    async def _replay(self, entry: Entry, side: int) -> dict[str, Any]:
        """For the script: [evaluations, what has changed: by cell its picture, confidence and level] for some steps."""
        steps, whole = await self._gallery.runs.read(entry.folder, lambda run: replay_steps(run, side))
        name, before, history = self._names[entry], dict[str, Any](), []
        for evaluations in steps:
            answer = await self._get(f"/run/{entry.id}/at?at={evaluations}&size={side}")
            places = json.loads(answer)["places"]
            changed = {cell: place for cell, place in places.items() if before.get(cell) != place}
            for cell, (picture, text, level) in list(changed.items()):
                file = await self._link(f"/run/{entry.id}/{picture}", "/", f"{name}/index.html")
                changed[cell] = [file, text, level]
            history.append([evaluations, changed])
            before = places
        note = ""
        if len(steps) < whole:
            note = f"This copy's replay has {len(steps):,} of the {whole:,} numbers of evaluations at which images changed."
            self.done.left_out.append(f"{entry.name}: {whole - len(steps):,} of {whole:,} steps of the replay")
        return {"history": history, "note": note}


def replay_steps(run: OpenRun, side: int) -> tuple[list[int], int]:
    """The numbers of evaluations that the replay of a copy has, and how many there are at which an image changed.

    At most STEPS, evenly spaced on a logarithmic scale, with the first and the last; fewer if their pictures, of this side,
    would have more than COPIED_PIXELS, or be more than two for each cell if that is more.
    """
    if run.history is None:
        return [], 0
    moments, most = run.history.moments(), STEPS
    pictures = max(COPIED_PIXELS // min(side * side, run.stored.shape[1] * run.stored.shape[2]), 2 * len(run.keys))
    while True:
        steps = spread(moments, most)
        drawn = {place.birth for evaluations in steps for place in run.history.at(evaluations).values()}
        if len(drawn) <= pictures or most <= 2:
            return steps, len(moments)
        most //= 2


def spread(moments: Sequence[int], most: int) -> list[int]:
    """At most so many of ascending positive numbers, evenly spaced on a logarithmic scale, with the first and the last."""
    if len(moments) <= most:
        return list(moments)
    ratio = moments[-1] / moments[0]
    wanted = [moments[0] * ratio ** (k / (most - 1)) for k in range(most)]
    chosen = {moments[0], moments[-1]}
    for each in wanted[1:-1]:
        chosen.add(min(moments, key=lambda moment: abs(moment - each)))
    return sorted(chosen)


def _most_earlier(run: OpenRun) -> int:
    """The most elites before an image, or ancestors of one, that any page of a run could show."""
    of_cells = max((len(run.history.of_cell(cell)) for cell in run.keys), default=0) if run.history is not None else 0
    return max([of_cells, *(len(run.stored.store.descent(key.birth)) for key in run.keys.values())])
