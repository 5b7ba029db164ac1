"""Drift: a black box may be changed while it is used. Known images are asked again every so many requests, and compared.

Known images are the first ones that every target is asked, and images of the run: those that it was surest about, and those
whose two best classes were closest. Answers are compared as far as they are comparable: probabilities that are rounded, or
of the top k classes only, are no drift where rounding, or a class that only one of two answers contains, explains the
difference.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evofool.errors import DriftError, TargetError
from evofool.images import decode_png, encode_png
from evofool.scores import confidence, log_odds, of_top_k
from evofool.targets.remote.ledger import Check, Ledger, Probe

EVERY = 50  # requests
IMAGES = 8  # in a check, and the most images of a run that are known
VARIES = 1e-3  # a difference of log-odds below this is none
NOISY = 0.1  # a first difference above this is measured once more, to tell a target that varies from one that was changed
SAFETY = 4.0  # the tolerance is this many times the difference that was measured at first: others may be larger
_ROUNDED = 1e-6  # probabilities may be rounded to so many decimals, or be in float32, without being detected


@dataclass(frozen=True)
class AnswerForm:
    """What limits a comparison of answers.

    top_k: the number of classes in an answer. step: a difference of probabilities that rounding explains. labels: whether
    all probabilities are 0 or 1. multilabel: of Target.
    """

    top_k: int
    step: float = 0.0
    labels: bool = False
    multilabel: bool = False


def form_of(kind: str, top_k: int, decimals: int | None) -> AnswerForm:
    """The form of answers of a kind of output ("logits" or other), and of decimals as in responses.ResponseFormat."""
    multilabel = kind.startswith("multilabel-")
    if kind.removeprefix("multilabel-") == "logits":
        return AnswerForm(top_k, multilabel=multilabel)
    return AnswerForm(top_k, max(_ROUNDED, 10.0**-decimals if decimals else 0.0), decimals == 0, multilabel)


def differences(before: np.ndarray, after: np.ndarray, form: AnswerForm) -> np.ndarray:
    """(B, K) float64: by how much log-odds differ, 0 where the form of the answers explains it. Both are logits (B, K).

    A class that only one of two answers contains counts by how far it lies above the most that the other answer allows.
    Where answers are labels only, an image with another label has the differences of all log-odds, or of those labels that
    it gained and lost where labels do not exclude each other.
    """
    out = np.abs(log_odds(before, form.multilabel) - log_odds(after, form.multilabel))
    if form.labels:
        if form.multilabel:
            out[(before > 0) == (after > 0)] = 0.0
        else:
            out[before.argmax(axis=1) == after.argmax(axis=1)] = 0.0
        return out
    close = np.abs(_probabilities(before, form) - _probabilities(after, form)) <= 1.01 * form.step
    if form.top_k < before.shape[1]:
        was, now = _contained(before, form.top_k), _contained(after, form.top_k)
        for mine, other, logits, others in ((was, now, before, after), (now, was, after, before)):
            # A class that an answer does not contain is no more likely than its lowest class, nor than what is left.
            lowest = np.where(other, others, np.inf).min(axis=1, keepdims=True)
            known = np.where(other, np.exp(np.minimum(others.astype(np.float64), 0.0)) - form.step / 2, 0.0)
            left = np.log(np.maximum(1 - known.sum(axis=1, keepdims=True), max(form.step, _ROUNDED)))
            above = np.maximum(logits.astype(np.float64) - np.minimum(lowest, left), 0.0)
            out = np.where(mine & ~other, above, out)
        out[~was & ~now] = 0.0
    out[close] = 0.0
    return out


@dataclass(frozen=True)
class Line:
    """How a monitor reaches a target.

    ask(images): (n, K) logits of uint8 (n, C, H, W), not from a cache. requests(): their number so far. form(): of the
    answers. at_once: the most images in a request.
    """

    name: str
    labels: Sequence[str]
    ask: Callable[[np.ndarray], np.ndarray]
    requests: Callable[[], int]
    form: Callable[[], AnswerForm]
    at_once: int = IMAGES


class DriftMonitor:
    """Asks known images again when it is due, and raises DriftError when answers differ by more than a tolerance.

    The tolerance is SAFETY times the largest difference that was measured when they were asked for the second time, at
    least VARIES; or what `tolerance` says, in log-odds. every: requests between two checks, 0: never. May be used by
    several threads.

    ledger: has the known images and the checks of earlier processes; the first check of a process compares with these,
    before anything else is sent. first: uint8 (n, C, H, W), known from the beginning.
    """

    def __init__(self, ledger: Ledger, line: Line, first: np.ndarray) -> None:
        self.every = EVERY
        self.tolerance: float | None = None
        self.notes: list[str] = []
        self.ledger = ledger
        self._line, self._first = line, first
        self._at_once = min(line.at_once, IMAGES)
        self._lock = threading.Lock()
        self._begun = False  # whether this process has made its first check
        self._offset = 0  # requests of earlier processes that line.requests does not count
        self._last: Check | None = None  # the last one that agreed
        self._own = 0  # requests that it sent itself
        self._jitter = (0.0, 0.0)  # as measured by the first check: size and share
        self._turn = 0
        self._flipped: list[bytes] = []  # labels only: the images whose label changed in the last check
        self._surest: _Candidate | None = None
        self._closest: _Candidate | None = None

    @property
    def agreed(self) -> int:
        """The number of requests before those that showed that the target agreed with its first answers; 0: not yet."""
        return self._last.requests if self._last else 0

    def store_in(self, folder: Path) -> None:
        """Continue the known images and checks in folder, or begin them there."""
        with self._lock:
            if self.ledger.path is not None and self.ledger.path.parent == folder:
                return
            if self.ledger.path is not None:
                self.ledger = Ledger()
                self._last, self._own, self._jitter, self._turn, self._flipped = None, 0, (0.0, 0.0), 0, []
                self._surest = self._closest = None
            self.ledger.store_in(folder)
            self._begun = False

    def restart(self) -> None:
        """Let a check precede the next request, as in a new process: the target may have changed since the last one."""
        with self._lock:
            self._begun = False

    def plan(self) -> str:
        """When known images are asked again, for people."""
        if not self.every:
            return "none: no known image is asked again, so a change of the target is not noticed"
        return f"after every {self.every:,} requests up to {self._at_once} known images are asked again"

    def summary(self) -> str:
        """What asking again has cost so far, and when the target last agreed, for people; "" if nothing was asked."""
        checks = self.ledger.checks()
        if not checks:
            return ""
        times, images = len(checks), sum(check.images for check in checks)
        last = next((check.requests for check in reversed(checks) if check.agreed), 0)
        return (
            f"Known images were asked again {times:,} time{'s' if times > 1 else ''} ({images:,} answers); the target last "
            f"agreed with its first answers at request {last:,}"
        )

    def before_request(self) -> None:
        """Check, if it is due: to be called before anything is sent. DriftError if the target does not agree."""
        with self._lock:
            if self.every and (self._resumed() or self._since() >= self.every):
                self._check()

    def measure(self) -> float | None:
        """Ask the first images again, unless it was done before; the largest difference of log-odds that this found.

        It makes changes noticed that come before the first check, at the cost of a request. None if nothing is checked.
        """
        with self._lock:
            if not self.every:
                return None
            if not self.ledger.checks():
                self._check()
            return self.ledger.checks()[0].size

    def last_check(self) -> None:
        """Check what was sent since the last check, if anything was."""
        with self._lock:
            if self.every and self._begun and self._since() > 0:
                self._check()

    def learn(self, images: np.ndarray, logits: np.ndarray) -> None:
        """Consider images that were answered now as known images of the run; they are taken over once a check agrees."""
        if not self.every or not np.isfinite(logits).all():
            return
        two = np.sort(logits, axis=1)[:, -2:].astype(np.float64)
        sure, gap = log_odds(logits, self._line.form().multilabel).max(axis=1), two[:, 1] - two[:, 0]
        best, near = int(sure.argmax()), int(gap.argmin())
        with self._lock:
            if self._surest is None or sure[best] > self._surest.value:
                self._surest = _Candidate(float(sure[best]), images[best].copy(), logits[best].copy())
            if self._closest is None or gap[near] < self._closest.value:
                self._closest = _Candidate(float(gap[near]), images[near].copy(), logits[near].copy())

    # -- inside

    def _resumed(self) -> bool:
        """Whether an earlier process has made checks, and this one has made none. Takes over what they found."""
        if self._begun:
            return False
        agreed = [check for check in self.ledger.checks() if check.agreed]
        if agreed:
            self._last, self._jitter = agreed[-1], (agreed[0].size, agreed[0].share)
            self._offset = max(self._offset, self.agreed + 1 - self._line.requests())  # 1: the check's own, if not more
        self._begun = not agreed
        return bool(agreed)

    def _check(self) -> None:
        if self._last or self._resumed():
            asked, before = self._in_turn(), self._before()
            after = self._line.ask(_images(asked))
            self._agree(before, len(asked), 1, self._judge(asked, after, before, len(asked)))
        else:
            self._measure()
        self._begun = True

    def _measure(self) -> None:
        """The first check: by how much answers differ from time to time, and beside other images."""
        known = self.ledger.known((image_key(image) for image in self._first), len(self._line.labels))
        probes = [_probe(image, known[image_key(image)], True) for image in self._first if image_key(image) in known]
        if not probes:  # a target without a ledger of answers
            probes = [_probe(image, row, True) for image, row in zip(self._first, self._line.ask(self._first), strict=True)]
        self.ledger.keep_probes(probes, IMAGES)
        asked, before = probes[: self._at_once], self._before()
        first, after = _logits(asked), self._line.ask(_images(asked))
        self._jitter, times = self._measured(first, after), 1
        if self._jitter[0] > NOISY:
            self._jitter, times = self._measured(after, self._line.ask(_images(asked))), 2
            self._judge(asked, after, before, 2 * len(asked))
        if self._jitter[0] > VARIES and not self._line.form().labels:
            self.notes.append(
                f"answers to the same image differ by {self._jitter[0]:.2g} in log-odds: a change of the target by less "
                f"than {SAFETY * self._jitter[0]:.2g} is not noticed"
            )
        self._agree(before, times * len(asked), times, self._jitter)

    def _judge(self, asked: list[Probe], after: np.ndarray, at: "_Before", count: int) -> tuple[float, float]:
        """The largest differences from the first answers; DriftError if they are beyond the tolerance."""
        before, form = _logits(asked), self._line.form()
        if not np.isfinite(after).all():
            raise TargetError(f"{self._line.name}: the answer to a known image is NaN or infinite, and was finite before")
        found = differences(before, after, form)
        largest = found.max(axis=1)
        allowed = np.full(len(asked), VARIES if self.tolerance is None else self.tolerance)
        if self.tolerance is None and not form.labels:
            size = np.abs(before.astype(np.float64)).max(axis=1)
            allowed = np.maximum(VARIES, SAFETY * np.maximum(self._jitter[0], self._jitter[1] * size))
        beyond = largest > allowed
        if form.labels:
            # One image may lie where two classes meet, and then its label means nothing; two are no chance.
            flipped = [asked[k].image for k in np.flatnonzero(beyond)]
            beyond &= len({*self._flipped, *flipped}) > 1
            for image in flipped if not beyond.any() else ():
                self.ledger.drop_probe(image)
            self._flipped = flipped
        size_share = self._measured(before, after)
        if beyond.any():
            self._raise(asked, after, found, beyond, Check(self._requests(), count, *size_share, False, at.newest))
        return size_share

    def _raise(
        self,
        asked: list[Probe],
        after: np.ndarray,
        found: np.ndarray,
        beyond: np.ndarray,
        check: Check,
    ) -> None:
        k = int(np.where(beyond, found.max(axis=1), -1.0).argmax())
        c = int(found[k].argmax())
        then, now = (
            float(confidence(log_odds(z[None], self._line.form().multilabel)[0, c])) for z in (asked[k].logits, after[k])
        )
        requests, largest = check.requests, float(found[k, c])
        self.ledger.add_check(check)
        whose = "one of the first" if asked[k].first else "one of this run"
        raise DriftError(
            f"{self._line.name}: known images get other answers than before. Image {asked[k].image.hex()[:16]} ({whose}) "
            f"has p = {now:.6g} in class {c} ({self._line.labels[c]}) and had {then:.6g}, a difference of {largest:.3g} in "
            f"log-odds; {int(beyond.sum())} of {len(asked)} images that were asked again differ by more than is allowed. "
            f"The target last agreed at request {self.agreed:,}; this is request {requests:,}",
            self.agreed,
            requests,
            largest,
        )

    def _agree(self, before: "_Before", images: int, own: int, jitter: tuple[float, float]) -> None:
        """Record a check that agreed: of `images` images, in `own` requests."""
        self._last, self._own = Check(before.requests, images, *jitter, True, before.newest), own
        self.ledger.add_check(self._last)
        new = [c for c in (self._surest, self._closest) if c is not None]
        self.ledger.keep_probes([_probe(c.image, c.logits) for c in new], IMAGES)
        self._surest = self._closest = None

    def _in_turn(self) -> list[Probe]:
        """The known images of the next check: half of them first images, half of them images of the run."""
        probes = self.ledger.probes()
        groups = [[p for p in probes if p.first], [p for p in probes if not p.first]]
        if self._at_once == 1 and all(groups):
            groups = [groups[self._turn % 2], []]
        chosen: list[Probe] = []
        for left, group in ((2, groups[1]), (1, groups[0])):
            count = min(len(group), (self._at_once - len(chosen)) // left)
            begin = self._turn * count
            chosen += [group[(begin + k) % len(group)] for k in range(count)]
        self._turn += 1
        return chosen

    def _before(self) -> "_Before":
        """To be read before a check asks."""
        return _Before(self._requests(), self.ledger.newest())

    def _since(self) -> int:
        """The number of requests since the last check that agreed."""
        return self._requests() - self.agreed - self._own

    def _requests(self) -> int:
        return self._offset + self._line.requests()

    def _measured(self, before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
        """The largest difference of log-odds, and the same as a share of the image's largest logit."""
        largest = differences(before, after, self._line.form()).max(axis=1)
        size = np.maximum(np.abs(before.astype(np.float64)).max(axis=1), 1e-9)
        return float(largest.max()), float((largest / size).max())


class _Before(NamedTuple):
    """What was known when a check asked: other requests in flight go on meanwhile, and the target may be changed then."""

    requests: int
    newest: int  # of Ledger


class _Candidate(NamedTuple):
    """An image that may become a known one, with its answer, and what it was chosen by."""

    value: float
    image: np.ndarray
    logits: np.ndarray


def image_key(image: np.ndarray) -> bytes:
    """SHA-256 over an image's shape and pixels, independent of its PNG encoding."""
    return hashlib.sha256(np.array(image.shape, "<i4").tobytes() + image.tobytes()).digest()


def _probe(image: np.ndarray, logits: np.ndarray, first: bool = False) -> Probe:
    return Probe(image_key(image), encode_png(image), logits.copy(), first)


def _images(probes: Sequence[Probe]) -> np.ndarray:
    return np.stack([decode_png(probe.png, "a known image") for probe in probes])


def _logits(probes: Sequence[Probe]) -> np.ndarray:
    return np.stack([probe.logits for probe in probes])


def _probabilities(logits: np.ndarray, form: AnswerForm) -> np.ndarray:
    return np.asarray(confidence(log_odds(logits, form.multilabel)))


def _contained(logits: np.ndarray, top_k: int) -> np.ndarray:
    """(B, K) bool: the classes that an answer contains."""
    return of_top_k(np.zeros(logits.shape), logits, top_k) == 0
