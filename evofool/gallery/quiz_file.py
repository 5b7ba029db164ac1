"""The quiz as one HTML file, which needs no server and no network: each rater sends their answers back as a CSV file."""

import base64
import hashlib
import json
import secrets
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evofool.gallery.quiz_desk import QuizDesk, QuizError, asked, expected, keys_of
from evofool.gallery.templating import STATIC, environment
from evofool.pages.html_page import opening
from evofool.pages.stylesheet import STYLE
from evofool.quiz.names import Names
from evofool.quiz.schema import CHOICE, Record
from evofool.run.stored import StoredRun
from evofool.whole_file import write_whole

MOST_SESSIONS = 1000
LARGEST_BY_DEFAULT, LARGEST = 20_000_000, 100_000_000  # bytes
SESSIONS_BY_DEFAULT = 10


@dataclass(frozen=True)
class QuizFile:
    """What was written: how many sessions the page has, how many trials each, and its size in bytes."""

    sessions: int
    trials: int
    size: int


def write_quiz(
    folder: Path, path: Path, desk: QuizDesk, sessions: int | None, report: Callable[[int], None] = lambda _: None
) -> QuizFile:
    """Draw sessions of kind "page", store them in the run's quiz, and write the page that asks one of them of each rater.

    sessions: how many; None: SESSIONS_BY_DEFAULT, or as many as keep the page below LARGEST_BY_DEFAULT bytes, at least one.
    report: is called with the number drawn so far. QuizError if so many make the page larger than LARGEST bytes, as
    estimated from the first one.

    The page has no classes and no kinds of images. A session in it is compressed, so that nothing of it is read by chance.
    Whoever takes the trouble to unpack it finds the images in the order in which they are asked, one that is repeated by
    its pixels, and the options of each choice. Of more than ten classes, the options of one elite in several sessions have
    its class in common.
    """
    with StoredRun(folder) as stored:
        names = Names(stored.labels)
    packed, size, trials, elites = list[str](), 0, 0, 0
    while len(packed) < (sessions or SESSIONS_BY_DEFAULT):
        record, images = desk.draw_page(folder)
        text = base64.b64encode(zlib.compress(json.dumps(_packed(record, images, names)).encode(), 9)).decode()
        packed.append(text)
        size += len(text)
        trials = len(record.trials)
        elites = sum(trial.kind == "elite" and trial.block == CHOICE for trial in record.trials)
        report(len(packed))
        if sessions is not None and len(packed) == 1 and (fit := max(1, LARGEST // size)) < sessions:
            raise QuizError(
                f"a page with {sessions} sessions would be larger than {LARGEST / 1e6:.0f} MB, the most that a browser "
                f"should read; at most {fit} fit: --sessions {fit}, or fewer --classes"
            )
        if sessions is None and size + len(text) > LARGEST_BY_DEFAULT:
            break
    keys = keys_of(names)
    content = {
        "id": secrets.token_hex(8),
        "keys": None if keys is None else [names.labels[c] for c in keys],
        "sessions": packed,
    }
    page = _page(content, expected(elites, names))
    write_whole(path, page)
    return QuizFile(len(packed), trials, len(page.encode()))


def _packed(record: Record, images: dict[str, bytes], names: Names) -> dict[str, Any]:
    """A session as the page's script reads it. Images are listed in the order in which they are asked first."""
    order = list(dict.fromkeys(trial.image for trial in record.trials))
    number = {image: k for k, image in enumerate(order)}
    return {
        "images": [base64.b64encode(images[image]).decode() for image in order],
        "trials": [{**asked(record, n, names), "image": number[trial.image]} for n, trial in enumerate(record.trials)],
    }


def _page(content: dict[str, Any], about: dict[str, Any]) -> str:
    script, style = ((STATIC / name).read_text(encoding="utf-8") for name in ("quiz.js", "quiz.css"))
    policy = f"img-src data:; script-src '{_hash(script)}'; style-src '{_hash(STYLE + style)}'"
    body = environment().get_template("quiz_file.html").render(**about)
    # Nothing in JSON ends the element that it is in, if no < is in it.
    data = json.dumps(content).replace("<", "\\u003c")
    return (
        f'{opening("Quiz", policy, style)}\n{body}\n<script type="application/json" id="sessions">{data}</script>\n'
        f'<script type="module">{script}</script>\n</body>\n</html>\n'
    )


def _hash(text: str) -> str:
    """As a policy names the inline script or style that it allows."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
