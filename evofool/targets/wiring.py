"""Common mistakes in how a classifier is used, found on labelled photographs: each is undone, and the answers are compared.

Wrong normalisation, channel order or labels raise no error: the classifier answers, only less often right. What is proposed
is significantly better on the same photographs: McNemar's exact test, with Holm's correction over everything that was tried.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from scipy.stats import binomtest

from evofool.targets.classifier import Target
from evofool.targets.photos import Photograph, fitted, open_image
from evofool.targets.preprocessing import MOST_RESIZE, Preprocessing, to_logits

LEVEL = 0.05
LEAST_GAIN = 0.01
"""Of top-1. Two ways to feed a network may both be right and differ by less."""
MOST_PHOTOGRAPHS = 2_000
_FIRST_LOOK = 64  # photographs after which a change may be given up; then after twice as many, and so on
_CLEARLY_WORSE = 0.01
_ROUNDS = 3  # mistakes that are looked for one after another
_BATCH = 32

_RANGES: Mapping[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "pixels on 0 to 1": (1 / 255, (0.0,), (1.0,)),
    "pixels on -1 to 1": (1 / 255, (0.5,), (0.5,)),
    "pixels on 0 to 255": (1.0, (0.0,), (1.0,)),
    "pixels on -127 to 128, divided by 128": (1.0, (127.0,), (128.0,)),
    "ImageNet's mean and standard deviation": (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "ImageNet's mean, pixels on 0 to 255": (1.0, (123.0, 117.0, 104.0), (1.0,)),
    "CIFAR-10's mean and standard deviation": (1 / 255, (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "MNIST's mean and standard deviation": (1 / 255, (0.1307,), (0.3081,)),
}
"""(scale, mean, std) with which classifiers are trained; means and standard deviations for R, G, B."""


@dataclass(frozen=True)
class Change:
    """Another way to use a target.

    words: what is changed. shift: class c is its output c + shift. photographs_only: evolved images stay as they are.
    options: those of a spec that say so; none for a shift of the classes.
    """

    words: str
    preprocessing: Preprocessing
    shift: int = 0
    photographs_only: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Better:
    """A change that gets more photographs right. p: after Holm's correction over `tried` changes."""

    change: Change
    images: int
    top1_before: float
    top1: float
    p: float
    tried: int


def find_better(
    target: Target,
    found: Sequence[Photograph],
    called: np.ndarray,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Better, ...]:
    """The changes that make more photographs right, the largest gain first, each on top of the one before; () if none does.

    called: (N,) int64, what the target calls the photographs as it is used now. Of a target that can be fed otherwise
    (Target.refed) all likely changes are tried, with at most MOST_PHOTOGRAPHS; of any other one only the shift of classes,
    for which nothing is asked. A change is given up early where it is clearly worse, so that a target that is used rightly
    costs little: that makes the test no less exact, since what is left is compared on all photographs.
    """
    order = np.random.default_rng(0).permutation(len(found))[:MOST_PHOTOGRAPHS]
    some = [found[k] for k in order]
    current = Change("", Preprocessing(**target.details.get("preprocessing", {})))
    known = _key(current.preprocessing), called[order]
    better: list[Better] = []
    for _ in range(_ROUNDS):
        tried = [change for change in _changes(target, current) if _can(target, current, change)]
        best = _best(_Answers(target, some, known), current, tried, progress)
        if best is None:
            break
        better.append(best)
        current = best.change
    return tuple(better)


def proposal(better: Sequence[Better]) -> tuple[dict[str, str], int]:
    """The options of all changes together, and the shift of classes."""
    options: dict[str, str] = {}
    for each in better:
        options |= each.change.options
    return options, better[-1].change.shift if better else 0


# --- what is tried


def _changes(target: Target, current: Change) -> Iterator[Change]:
    """One change each. Photographs come last: how they are cut affects no evolved image."""
    now, (channels, height, width) = current.preprocessing, target.shape
    if channels == 3:
        yield _of(current, "channel order", replace(now, order="BGR" if now.order == "RGB" else "RGB"), ("order",))
    yield _of(current, "negatives", replace(now, invert=not now.invert), ("invert",))
    if height == width:
        yield _of(current, "rows and columns swapped", replace(now, transpose=not now.transpose), ("transpose",))
    yield from range_changes(target, current)
    for step in (1, -1):
        if abs(current.shift + step) < len(target.labels):
            yield replace(current, words="classes off by one", shift=current.shift + step, photographs_only=False)
    short = min(height, width)
    for resize in (None, short, round(short * 8 / 7)):
        if resize != now.resize and now.crops == 1 and (resize is None or resize <= MOST_RESIZE):
            words = "photographs squeezed" if resize is None else f"photographs' short side {resize} pixels"
            yield _of(current, words, replace(now, resize=resize), ("resize",), True)
    for interpolation in ("bilinear", "bicubic"):
        if interpolation != now.interpolation:
            words = f"photographs resized by {interpolation} interpolation"
            yield _of(current, words, replace(now, interpolation=interpolation), ("interpolation",), True)


def range_changes(target: Target, current: Change) -> Iterator[Change]:
    """Every usual scaling, in either order of the channels; of grey images also of their negatives."""
    now, channels = current.preprocessing, target.shape[0]
    orders = ("RGB", "BGR") if channels == 3 else ("RGB",)
    for invert in (False, True) if channels == 1 else (False,):
        for order in orders:
            for words, (scale, mean, std) in _RANGES.items():
                if max(len(mean), len(std)) in (1, channels):
                    turned = [values[::-1] if order == "BGR" else values for values in (mean, std)]
                    made = replace(now, scale=scale, mean=turned[0], std=turned[1], order=order, invert=invert)
                    yield _of(current, words, made, ("scale", "mean", "std", "order", "invert"))


def _of(current: Change, words: str, made: Preprocessing, names: Sequence[str], photographs_only: bool = False) -> Change:
    """The change to another preprocessing, with those of these options that differ."""
    values = {name: (getattr(current.preprocessing, name), getattr(made, name)) for name in names}
    options = {name: option_text(new) for name, (old, new) in values.items() if old != new}
    more = [made.order] if "order" in options and len(names) > 1 else []
    more += ["negatives"] if options.get("invert") == "yes" and len(names) > 1 else []
    return Change(", ".join([words, *more]), made, current.shift, photographs_only, options)


def option_text(value: object) -> str:
    """A value as an option of a spec has it."""
    if value is None:
        return "squeeze"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(f"{number:g}" for number in value)
    if isinstance(value, float):
        return "1/255" if value == 1 / 255 else f"{value:g}"
    return str(value)


def _can(target: Target, current: Change, change: Change) -> bool:
    """Whether it is one at all, and the target can be fed so."""
    if change.preprocessing == current.preprocessing:
        return change.shift != current.shift
    return target.refed is not None and target.refed(change.preprocessing) is not None


def _key(made: Preprocessing) -> str:
    return repr(asdict(made))


# --- which is best


@dataclass
class _Race:
    """What a change has got right so far. gained, lost: photographs that only it gets right, or wrong."""

    change: Change
    right: int = 0
    gained: int = 0
    lost: int = 0

    def is_hopeless(self, images: int, most: int) -> bool:
        """Clearly worse than the present way or than the best one, which gets `most` right, or too near to gain enough."""
        number, gain = self.gained + self.lost, self.gained - self.lost
        if most - self.right > 3 * (most + self.right) ** 0.5:
            return True
        if number and binomtest(self.lost, number, alternative="greater").pvalue < _CLEARLY_WORSE:
            return True
        return images >= 4 * _FIRST_LOOK and gain + 3 * number**0.5 < LEAST_GAIN * images

    @property
    def p(self) -> float:
        """McNemar's exact test, one-sided: that it is no better."""
        number = self.gained + self.lost
        return float(binomtest(self.gained, number, alternative="greater").pvalue) if number else 1.0


def _best(answers: "_Answers", current: Change, changes: Sequence[Change], progress: Callable[[str], None]) -> Better | None:
    race, base, done, look = [_Race(change) for change in changes], 0, 0, _FIRST_LOOK
    while done < len(answers.found) and race:
        rows = slice(done, done + _BATCH)
        classes = np.array([photo.class_id for photo in answers.found[rows]])
        now = answers.called(current, rows)
        if now is None:
            return None
        right = now == classes
        base, done = base + int(right.sum()), done + len(classes)
        for each in list(race):
            named = answers.called(each.change, rows)
            if named is None:
                race.remove(each)
                continue
            hit = named == classes
            each.right += int(hit.sum())
            each.gained += int((hit & ~right).sum())
            each.lost += int((right & ~hit).sum())
        if done >= look and race:
            most = max(each.right for each in race)
            race, look = [each for each in race if not each.is_hopeless(done, most)], 2 * look
            left = f"{len(race)} of {len(changes)} changes left"
            progress(f"looking for mistakes: {done:,} of {len(answers.found):,} photographs, {left}")
    # What was given up counts with p = 1.
    corrected = holm([each.p for each in race], len(changes))
    able = [
        (each, p) for each, p in zip(race, corrected, strict=True) if p < LEVEL and each.right - base >= LEAST_GAIN * done
    ]
    if not able:
        return None
    # Several ways to say nearly the same may all be better: of those the one that is right most often, with fewest options.
    best, p = max(able, key=lambda item: (item[0].right, -len(item[0].change.options)))
    return Better(best.change, done, base / done, best.right / done, p, len(changes))


def holm(p: Sequence[float], tests: int) -> list[float]:
    """The p-values corrected for so many tests, of which these are the smallest (Holm 1979)."""
    found, most = [0.0] * len(p), 0.0
    for place, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        most = max(most, min(1.0, (tests - place) * p[k]))
        found[k] = most
    return found


class _Answers:
    """What a target calls photographs, fed in different ways, each of which is asked once for some rows.

    known: a way of feeding it (_key), and what it calls all of them then.
    """

    def __init__(self, target: Target, found: Sequence[Photograph], known: tuple[str, np.ndarray]) -> None:
        self.found = found
        self._target, self._known = target, known
        self._rows = slice(0, 0)
        self._images: dict[tuple[object, ...], np.ndarray] = {}
        self._called: dict[str, np.ndarray | None] = {}

    def called(self, change: Change, rows: slice) -> np.ndarray | None:
        """(B,) int64: classes, out of range where the output is of none; None if it cannot be fed so."""
        if rows != self._rows:
            self._rows, self._images, self._called = rows, {}, {}
        key = _key(change.preprocessing)
        if key == self._known[0]:
            return self._known[1][rows] - change.shift
        if key not in self._called:
            self._called[key] = self._ask(change.preprocessing)
        named = self._called[key]
        return None if named is None else named - change.shift

    def _ask(self, made: Preprocessing) -> np.ndarray | None:
        target = self._target
        forward = target.refed(made) if target.refed is not None else None
        if forward is None:
            return None
        try:
            images = self._pictures(made)
            target.count(len(images))
            with torch.inference_mode():
                return to_logits(torch.from_numpy(forward(images)), target.outputs, target.crops).numpy().argmax(axis=1)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # a user's code that takes its images in one way only, or a picture that cannot be cut so
            return None

    def _pictures(self, made: Preprocessing) -> np.ndarray:
        key = made.resize, made.interpolation
        if key not in self._images:
            images = []
            for file, _ in self.found[self._rows]:
                with open_image(file) as picture:
                    images.append(fitted(picture, self._target.shape, made.resize, made.interpolation))
            self._images[key] = np.stack(images)
        return self._images[key]
