"""The quiz about a stored run: a session's materials out of the elites, and the verdicts on them out of all sessions."""

import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from evofool.errors import StoreError
from evofool.images import encode_png, pixel_sha256
from evofool.quiz.materials import OPTIONS, RIVALS, Candidate, Materials, choose_elites, materials, session_id
from evofool.quiz.names import Names, normal
from evofool.quiz.raters import named, person, standing
from evofool.quiz.schema import Code, Record, Session
from evofool.quiz.shares import archive_summary
from evofool.quiz.store import QuizStore
from evofool.quiz.tally import PRESETS, Answers, count_answers
from evofool.quiz.verdicts import UNRECOGNISED_BELOW, Verdict, judged
from evofool.run.stored import Elite, StoredRun
from evofool.targets.labels import is_rejection

Logits = Callable[[np.ndarray], np.ndarray]
"""uint8 (B, C, H, W) to (B, K), as Target.logits."""
_AT_ONCE = 8  # images in a pass
_MOST_BYTES = 1 << 26  # of PNGs that are kept
_MOST_KEYS = 1 << 17


def names_of(labels: Sequence[str], codes: Sequence[Code]) -> Names:
    """The labels, with what texts were coded as; of two codes of a text the later one counts."""
    return Names(labels, {normal(code.answer): code.classes for code in codes})


class EliteImages:
    """The images of elites, which several sessions have in common: what is needed of each is decoded and encoded once."""

    def __init__(self) -> None:
        self._keys: dict[bytes, str] = {}
        self._pngs: dict[str, bytes] = {}

    def key(self, elite: Elite) -> str:
        """The pixel_sha256 of an elite."""
        stored = hashlib.sha256(elite.row.png).digest()
        if stored not in self._keys:
            if len(self._keys) > _MOST_KEYS:
                self._keys.clear()
            self._keys[stored] = pixel_sha256(elite.image)
        return self._keys[stored]

    def png(self, elite: Elite) -> bytes:
        """The PNG of an elite, as of a Candidate."""
        key = self.key(elite)
        if key not in self._pngs:
            if sum(map(len, self._pngs.values())) > _MOST_BYTES:
                self._pngs.clear()
            self._pngs[key] = encode_png(elite.image)
        return self._pngs[key]

    def candidate(self, elite: Elite, classes: Collection[int], judged: int) -> Candidate:
        png = partial(self.png, elite)
        return Candidate(self.key(elite), lambda: elite.image, png, tuple(sorted(set(classes))), judged)


def candidates(
    elites: Sequence[Elite],
    records: Sequence[Record],
    names: Names,
    rater: str = "",
    classes: Collection[int] | None = None,
    known_images: EliteImages | None = None,
) -> list[Candidate]:
    """The distinct images of elites, each with all its classes, but for those that this rater has named before.

    known_images: those that were decoded for another session. Rejection classes are left out, and so are images of none of
    `classes`, if these are given. StoreError if nothing is left.
    """
    known_images = known_images or EliteImages()
    images: dict[str, Elite] = {}
    held: dict[str, list[int]] = {}
    for elite in elites:
        if not is_rejection(elite.label):
            key = known_images.key(elite)
            images.setdefault(key, elite)
            held.setdefault(key, []).append(elite.row.class_id)
    judges: Counter[str] = Counter()
    known: set[str] = set()
    for record in records:
        if rater and person(rater) == person(record.session.rater):
            known |= named(record)
        if standing(record, names).counts:
            judges.update(named(record))
    asked = [key for key in images if classes is None or not set(classes).isdisjoint(held[key])]
    left = [key for key in asked if key not in known]
    if asked and not left:
        of = "this run" if classes is None else "these classes"
        raise StoreError(f"{rater} has named all {len(asked)} images of {of}")
    return [known_images.candidate(images[key], held[key], judges[key]) for key in left]


def with_rivals(chosen: Sequence[Candidate], names: Names, logits: Logits) -> list[Candidate]:
    """The same with the classes that the target ranks next, a few images in a pass."""
    # The classes of the image itself and rejection classes are ranked too, and are no rivals.
    count = RIVALS + max(len(c.classes) for c in chosen) + len(names.labels) - len(names.nameable)
    ranked: list[Sequence[int]] = []
    for begin in range(0, len(chosen), _AT_ONCE):
        found = logits(np.stack([c.pixels() for c in chosen[begin : begin + _AT_ONCE]]))
        ranked += np.argsort(-found, axis=1, kind="stable")[:, :count].tolist()
    return [replace(c, rivals=tuple(order)) for c, order in zip(chosen, ranked, strict=True)]


def begin(
    stored: StoredRun,
    store: QuizStore,
    session: Session,
    real: tuple[np.ndarray, Sequence[int]],
    logits: Logits | None = None,
    classes: Collection[int] | None = None,
    known_images: EliteImages | None = None,
) -> Materials:
    """Store a new session with its trials, and return its materials.

    real: uint8 (REAL, C, H, W), those that pick_real picked by the session's seed, and the classes that they show. The
    session is one of `new_session`. Its trials stay as they are, also if the run goes on meanwhile. logits: the target's,
    which are needed where there are more than OPTIONS classes. classes: whose elites are asked about; None: all.
    known_images: those that were decoded for another session.
    """
    names = names_of(stored.labels, store.codes())
    asked = candidates(stored.elites(), store.records(), names, session.rater, classes, known_images)
    found = choose_elites(session.seed, asked)
    if found and len(names.nameable) > OPTIONS:
        if logits is None:
            raise ValueError("more classes than options: the other options of an elite come from the target's logits")
        found = with_rivals(found, names, logits)
    shown = [Candidate.of(image, [int(c)]) for image, c in zip(*real, strict=True)]
    made = materials(session.seed, found, shown, names, stored.shape)
    store.begin(session, made.trials, made.images)
    return made


def new_session(stored: StoredRun, rater: str, seed: int | None = None, kind: str = "person", **about: Any) -> Session:
    """A session that begins now. seed: below 2**63; by default a secret one. about: agent, viewport, dpr, seen."""
    seed = secrets.randbits(63) if seed is None else seed
    return Session.model_validate(
        {"id": session_id(seed), "kind": kind, "rater": rater, "seed": seed, "began": time.time(), "run": stored.meta.id}
        | about
    )


@dataclass(frozen=True)
class RunVerdicts:
    """What people said of a run's elites. by_elite: of each that somebody who counts was shown, by class and niche."""

    by_elite: tuple[tuple[Elite, Verdict], ...]
    answers: Answers
    names: Names

    @property
    def verdicts(self) -> list[Verdict]:
        """Each once: two elites of a class may have one image."""
        return list(dict.fromkeys(verdict for _, verdict in self.by_elite))

    def summary(self) -> dict[str, Any]:
        """As archive_summary."""
        return archive_summary(self.verdicts, self.answers, self.names)


def people_say(stored: StoredRun, known_images: EliteImages | None = None) -> dict[int, Verdict]:
    """By cell, the verdict of people on its elite; empty if nobody was asked: no quiz.db.

    known_images: as of run_verdicts.
    """
    found = asked(stored, known_images)
    return {elite.row.cell: verdict for elite, verdict in found.by_elite} if found else {}


def asked(stored: StoredRun, known_images: EliteImages | None = None) -> RunVerdicts | None:
    """What people said of a run's elites; None if nobody was asked: no quiz.db. known_images: as of run_verdicts."""
    if not QuizStore.exists(stored.folder):
        return None
    with QuizStore.open(stored.folder) as store:
        return run_verdicts(stored, store.records(), store.codes(), known_images)


def told_in_words(found: RunVerdicts | None) -> str:
    """What people said of a run's images, in sentences: how many raters, and how often each verdict was given."""
    if found is None or not found.by_elite:
        return "Nobody was asked what they see in these images."
    summary = found.summary()
    counts, judged, pairs, raters = summary["counts"], summary["judged"], summary["pairs"], summary["raters"]
    who = f"{raters} raters" if raters != 1 else "One rater"
    told = f"{who} who passed the checks were" if raters != 1 else f"{who} who passed the checks was"
    told += f" asked what they see. {judged} of {pairs} pairs of image and class were seen by at least {PRESETS[0]} of them"
    if not judged:
        return f"{told}, so there is no verdict on any."
    return (
        f"{told}: {counts['recognised']} recognised as the class, {counts['taken']} taken for another class, "
        f"{counts['unrecognised']} unrecognised (under {UNRECOGNISED_BELOW:.0%} of people), {counts['open']} open."
    )


def run_verdicts(
    stored: StoredRun, records: Sequence[Record], codes: Sequence[Code], known_images: EliteImages | None = None
) -> RunVerdicts:
    """The verdicts on a run's elites. They belong to pixels: an elite has those of its image, for whatever it was shown.

    known_images: those that were decoded before; of 1,000 elites, decoding takes nearly all of the time.
    """
    known_images = known_images or EliteImages()
    names = names_of(stored.labels, codes)
    answers = count_answers(records, names)
    number = {image: i for i, image in enumerate(answers.images)}
    elites = [(elite, number.get(known_images.key(elite))) for elite in stored.elites()]
    wanted: dict[int, list[int]] = {}
    for elite, i in elites:
        if i is not None:
            wanted.setdefault(i, []).append(elite.row.class_id)
    found = {(v.image, v.class_id): v for v in judged(answers, names, wanted)}
    pairs = ((elite, found[answers.images[i], elite.row.class_id]) for elite, i in elites if i is not None)
    return RunVerdicts(tuple(pairs), answers, names)
