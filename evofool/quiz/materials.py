"""The materials of one session: which images are shown, in which order, and the options of every choice.

All of it follows from the candidates and the session's seed. Each kind of draw has a stream of its own (genomes.random).
"""

import hmac
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from evofool.errors import ImageError
from evofool.images import encode_png, pixel_sha256, resized
from evofool.quiz.names import Names
from evofool.quiz.schema import CHOICE, NAMING, Trial
from genomes.random import Key, integers

ELITES, REAL, NOISE, REPEATS = 40, 10, 10, 5
"""The most elites, real images, images of noise and repeated elites in a session."""
OPTIONS, RIVALS = 10, 4
"""The options of a choice, if there are as many classes, and how many of them are the model's next guesses for an elite."""

_GRID = 5  # of the random levels that smooth noise is interpolated from
_STREAMS = 4  # of the options of one trial
_BY_ELITE, _BY_REAL, _BY_NOISE, _BY_ORDER, _BY_REPEAT, _BY_CHOICE, _BY_OPTION = range(7)
"""The batch of the key of each kind of draw."""


@dataclass(frozen=True)
class Candidate:
    """An image that may be shown. classes: those that it is an elite of, or the one that it shows.

    image: its pixel_sha256. pixels: it, uint8 (C, H, W). png: its PNG by the encoder of all images of a quiz, so that no
    file differs from another by its encoder. Only of the images that are chosen these two are called. judged: how many
    raters that count have named it. rivals: the model's classes for it, the surest first; only needed where there are more
    classes than options.
    """

    image: str
    pixels: Callable[[], np.ndarray]
    png: Callable[[], bytes]
    classes: tuple[int, ...]
    judged: int = 0
    rivals: tuple[int, ...] = ()

    @classmethod
    def of(cls, image: np.ndarray, classes: Iterable[int], judged: int = 0, rivals: Iterable[int] = ()) -> "Candidate":
        """Of uint8 (C, H, W)."""
        png = cache(lambda: encode_png(image))
        return cls(pixel_sha256(image), lambda: image, png, tuple(sorted(set(classes))), judged, tuple(rivals))


@dataclass(frozen=True)
class Materials:
    """The trials of a session, in order, and the PNG of each of their images, by pixel_sha256."""

    trials: tuple[Trial, ...]
    images: dict[str, bytes]


def materials(
    seed: int, elites: Sequence[Candidate], real: Sequence[Candidate], names: Names, shape: tuple[int, int, int]
) -> Materials:
    """The trials of one session. seed is secret until the session ends: whoever knows it knows the trials.

    elites: distinct images; ELITES of them are chosen. real: at least REAL, of which the first are taken (`pick_real`).
    First all images are named, with REPEATS of the elites again in the last quarter. Then each is shown once more, in
    another order, with options to choose from. ImageError if there is no elite, or too few real images.
    """
    if not elites or len(real) < REAL:
        raise ImageError(
            f"a quiz needs an elite and {REAL} real images; there are {len(elites)} elites and {len(real)} real images"
        )
    shown: list[tuple[str, Candidate]] = [("elite", candidate) for candidate in choose_elites(seed, elites)]
    shown += [("real", candidate) for candidate in real[:REAL]]
    shown += [("noise", Candidate.of(image, ())) for image in noise(seed, shape)]
    named = [shown[k] for k in permutation(Key(seed, _BY_ORDER), len(shown))]
    chosen = [shown[k] for k in permutation(Key(seed, _BY_CHOICE), len(shown))]
    blocks = [(NAMING, *item) for item in _with_repeats(seed, named)] + [(CHOICE, *item) for item in chosen]
    trials = tuple(
        Trial(
            n=n,
            block=block,
            kind=kind,
            image=candidate.image,
            classes=candidate.classes,
            options=options(Key(seed, _BY_OPTION, _STREAMS * n), kind, candidate, names) if block == CHOICE else (),
        )
        for n, (block, kind, candidate) in enumerate(blocks)
    )
    return Materials(trials, {candidate.image: candidate.png() for _, candidate in shown})


def trial_id(seed: int, n: int) -> str:
    """What stands in the place of an image's name in a URL, 24 hexadecimal digits: it tells nothing about the image.

    Each trial has its own, so that a repeated image cannot be found by it.
    """
    return hmac.new(seed.to_bytes(8, "big"), f"evofool quiz trial {n}".encode(), "sha256").hexdigest()[:24]


def session_id(seed: int, rater: str = "") -> str:
    """The id of a session, 32 hexadecimal digits; rater: of a page that many answer, which of them."""
    return hmac.new(seed.to_bytes(8, "big"), f"evofool quiz session {rater}".encode(), "sha256").hexdigest()[:32]


def permutation(key: Key, n: int) -> list[int]:
    """The numbers 0 to n - 1 in a random order."""
    order: list[int] = np.argsort(integers(key, 1 << 53, n), kind="stable").tolist()
    return order


def choose_elites(seed: int, candidates: Sequence[Candidate]) -> list[Candidate]:
    """At most ELITES: the least judged first, of equally judged ones the classes in turn, else at random.

    An image that is the elite of several classes takes the turn of the lowest one.
    """
    turns: Counter[tuple[int, int]] = Counter()
    ranked = []
    for k in permutation(Key(seed, _BY_ELITE), len(candidates)):
        candidate = candidates[k]
        group = candidate.judged, min(candidate.classes)
        ranked.append((candidate.judged, turns[group], candidate))
        turns[group] += 1
    ranked.sort(key=lambda item: item[:2])
    return [candidate for _, _, candidate in ranked[:ELITES]]


def pick_real(seed: int, classes: Sequence[int]) -> list[int]:
    """The numbers of REAL images out of those with these classes, ascending: of different classes as far as possible."""
    turns: Counter[int] = Counter()
    ranked = []
    for k in permutation(Key(seed, _BY_REAL), len(classes)):
        ranked.append((turns[classes[k]], k))
        turns[classes[k]] += 1
    ranked.sort(key=lambda item: item[0])
    return sorted(k for _, k in ranked[:REAL])


def noise(seed: int, shape: tuple[int, int, int]) -> list[np.ndarray]:
    """NOISE images, uint8 (C, H, W): half of them independent levels, half smooth ones, from black to white."""
    channels = shape[0]
    images = []
    for row in range(NOISE):
        uniform = row < NOISE // 2
        size = shape if uniform else (channels, _GRID, _GRID)
        count = size[0] * size[1] * size[2]
        levels = integers(Key(seed, _BY_NOISE, row), 256, count).astype(np.uint8).reshape(size)
        if not uniform:
            low, high = int(levels.min()), int(levels.max())
            stretched = (levels.astype(np.int64) - low) * 255 // max(1, high - low)
            levels = resized(stretched.astype(np.uint8), shape)
        images.append(levels)
    return images


def options(key: Key, kind: str, candidate: Candidate, names: Names) -> tuple[int, ...]:
    """The classes to choose from, in random order: all, or OPTIONS of them.

    Of an elite one of its classes, the model's RIVALS next guesses and random others, so that the class cannot be told from
    the kind of the options. Of a real image its class among random others, since only experts would know it from its
    rivals. Of noise random ones.
    """
    if len(names.nameable) <= OPTIONS:
        found = list(names.nameable)
    else:
        found = list(candidate.classes)
        if kind == "elite":
            # One of its classes: with several among the options no answer would be the right one.
            own = found[int(integers(key.at(1), len(found), 1)[0])]
            rivals = [c for c in candidate.rivals if c not in found and c in names.nameable]
            found = [own, *rivals[:RIVALS]]
        allowed = set(names.nameable) - set(candidate.classes) - set(found)
        others = sorted(allowed)
        drawn = [others[k] for k in permutation(key.at(2), len(others))]
        found = [*found, *drawn][:OPTIONS]
    return tuple(found[k] for k in permutation(key.at(3), len(found)))


def _with_repeats(seed: int, named: list[tuple[str, Candidate]]) -> list[tuple[str, Candidate]]:
    """The same with REPEATS elites of the first half, or as many as it has, again within the last quarter."""
    half, quarter = len(named) // 2, len(named) - len(named) // 4
    first = [candidate for kind, candidate in named[:half] if kind == "elite"]
    again = [first[k] for k in permutation(Key(seed, _BY_REPEAT), len(first))][:REPEATS]
    places = integers(Key(seed, _BY_REPEAT, 1), len(named) - quarter + 1, len(again))
    result = list(named)
    for candidate, place in sorted(zip(again, places.tolist(), strict=True), key=lambda item: -item[1]):
        result.insert(quarter + place, ("repeat", candidate))
    return result
