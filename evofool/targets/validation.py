"""The validation of a target before a run: whether it behaves as a classifier, and its accuracy on photographs."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evofool import scores
from evofool.errors import TargetError
from evofool.machine import keep_memory, machine
from evofool.targets.abruptness import measure_changes
from evofool.targets.answer_record import AnswerRecord
from evofool.targets.averaged import random_fault, random_note
from evofool.targets.classifier import SIGMOIDS, Target
from evofool.targets.first_norm import scaling_note
from evofool.targets.gradients import check_gradients
from evofool.targets.photos import Photograph, drawings, find_photographs, patterns, photographs
from evofool.targets.position import Position, measure
from evofool.targets.spec import Spec, parse
from evofool.targets.speed import FormatChoice, SpeedMeasurement, choose_format, measure_speeds
from evofool.targets.wiring import Better, Change, find_better, option_text, proposal

VARIES, DEPENDS = 1e-3, 0.1  # differences of log-odds: above the first a note, above the second the target is refused
_ROUNDING = 1e-3  # of the largest log-odds: an image's neighbours in a batch change less by rounding, whatever the scale
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_PUBLISHED = {"efficientnet-lite0": 0.751, "efficientnet-lite1": 0.767, "efficientnet-lite2": 0.776}
_ANSWERS = "validation.answers"
_DRAWN = 8  # drawings for a target whose answers to all patterns are equal

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Validation:
    """The results of scoring some patterns. Differences are the largest ones of log-odds, None where they were not measured.

    faults: why the target cannot be used, and what to check. notes: for its user.
    """

    images: int
    finite: bool
    twice: float | None  # between two passes of the same images
    alone: float | None  # between an image alone and in a batch
    position: Position | None  # None if there are faults
    faults: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Accuracy:
    """A target's accuracy on labelled photographs, in float32."""

    folder: str
    images: int
    images_sha256: str  # over the images as the target sees them, and their classes
    correct: int
    top1: float
    standard_error: float
    interval: tuple[float, float]  # Wilson, 95%
    published: float | None
    median_confidence: float  # in the predicted class, correct or not
    margins: dict[str, float]  # quantiles over the photographs classified correctly
    confidences: dict[str, float]


@dataclass(frozen=True)
class Report:
    """The results of a full check; faults are those of its parts."""

    target: dict[str, Any]
    machine: dict[str, Any]
    validation: Validation
    gradient: str  # "yes", or why there is none
    accuracy: Accuracy | None
    choice: FormatChoice | None
    rates: tuple[SpeedMeasurement, ...]
    queries: int
    requests: int
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def validate(target: Target, chunk: int = 6, folder: Path | None = None, probe: bool = False) -> Validation:
    """Check that outputs are finite, repeatable, the same alone and in a batch, and not all equal: with at most 23 images.

    Then measure whether they depend on an image's row in a chunk (position.measure), with a few chunks of images. A target
    that is billed by the request gets four images, and then these and its first four once more (drift.DriftMonitor.measure).
    Errors of the target pass through.

    folder: where the answers of a slow target are kept meanwhile (AnswerRecord), so that a validation which is killed or
    interrupted goes on from there. A black box keeps its answers itself. probe: see also whether answers change abruptly
    (abruptness.measure_changes), with 48 images.
    """
    record = None
    if folder is not None and not target.counts_persist:
        key = f"{target.fingerprint()} {machine(torch.get_num_threads())} {chunk}"
        record = target.answer_record = AnswerRecord(folder / _ANSWERS, key)
    try:
        validation = _validate(target, together=min(max(chunk, 4), 6), single=3, chunk=chunk)
    except Exception:
        if record:
            record.remove()
        raise
    finally:
        target.answer_record = None
    if record:
        record.remove()
    return _probed(target, validation) if probe else validation


def check(
    target: Target,
    images: Path | None = None,
    published: float | None = None,
    speed: bool = True,
    progress: Progress = lambda _: None,
) -> Report:
    """Check everything: validation with more images, gradients, accuracy on photographs (photos.find_photographs), speed.

    published: the top-1 accuracy that the target should have, in [0, 1]; by default that of the published weights of
    efficientnet-lite* and torchvision. The speed of a target that is billed by the request is not measured.
    """
    if published is not None and not 0 < published <= 1:
        raise TargetError(f"{target.name}: the published accuracy is a share, 0.751 for 75.1%, not {published:g}")
    found = None if images is None else find_photographs(images, target.labels)
    before = target.queries, target.requests
    progress("scoring patterns, alone and in a batch")
    validation = _validate(target, together=32, single=8, chunk=32)
    if not target.requests:
        validation = _probed(target, validation)
    faults, notes = [*validation.faults], [*validation.notes]
    gradient = "none: a black box" if target.network is None else check_gradients(target).fault or "yes"
    if target.network is not None and gradient != "yes":
        notes.append(f"gradients masked: {gradient}; evofool bench and evofool gate replace them for white-box attacks")
    accuracy = None
    if found is None and validation.finite and (note := scaling_note(target)):
        notes.append(note)
    if found is not None and validation.finite:
        if str(target.details.get("device", "")) == "cpu":
            keep_memory()
        accuracy, called = _accuracy(target, found, str(images), published or published_top1(target), progress)
        progress("looking for mistakes")
        _check_use(target, find_better(target, found, called, progress), faults, notes)
        _check_accuracy(accuracy, faults, notes)
        if target.multilabel:
            notes.append("top-1 is the share of photographs of which the label with the highest log-odds is their folder's")
    choice, rates = None, []
    if speed and validation.finite:
        if target.requests:
            notes.append("speed was not measured: every request counts")
        else:
            progress("comparing number formats")
            on_cpu = target.details.get("device", "cpu") == "cpu"
            choice = choose_format(target, 64 if on_cpu else 256)
            formats = [f for f in target.formats if f not in choice.dropped]
            for rate in measure_speeds(target, formats, sorted({1, min(16, choice.chunk), choice.chunk})):
                progress(f"{rate.number_format}, chunk {rate.chunk}, {rate.workers} at once: {speed_text(rate)}")
                rates.append(rate)
    return Report(
        target=describe(target),
        machine=machine(torch.get_num_threads()),
        validation=validation,
        gradient=gradient,
        accuracy=accuracy,
        choice=choice,
        rates=tuple(rates),
        queries=target.queries - before[0],
        requests=target.requests - before[1],
        faults=tuple(faults),
        # A black box adds notes to its details when it gets responses.
        notes=(*target.details.get("notes", ()), *notes),
    )


def describe(target: Target) -> dict[str, Any]:
    """The description of a target, as JSON values."""
    return {
        "spec": target.name,
        "shape": list(target.shape),
        "classes": len(target.labels),
        "labels": list(target.labels),
        "outputs": target.outputs,
        "top_k": target.top_k,
        "differentiable": target.differentiable,
        "formats": list(target.formats),
        "fingerprint": target.fingerprint(),
        **target.details,
    }


def speed_text(rate: SpeedMeasurement) -> str:
    return "out of memory" if rate.images_per_second is None else f"{rate.images_per_second:,.1f} images/s"


def published_top1(target: Target) -> float | None:
    """The top-1 accuracy on ImageNet that the target's weights were published with, in [0, 1]; None if it is not known."""
    head, _, options = target.name.partition("?")
    if any(option.partition("=")[0] in ("weights", "size", "resize", "crops") for option in options.split("&")):
        return None  # other weights, or other images: another figure
    kind, _, name = head.partition(":")
    if kind != "torchvision":
        return _PUBLISHED.get(kind)
    from torchvision import models

    metrics = models.get_model_weights(name).DEFAULT.meta.get("_metrics", {})
    top1 = metrics.get("ImageNet-1K", {}).get("acc@1")
    return None if top1 is None else top1 / 100


def wilson(correct: int, images: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927); its lower end is exactly 0.0 if none is correct, its upper 1.0 if all."""
    z, p = 1.959964, correct / images
    middle, half = p + z * z / (2 * images), z * math.sqrt(p * (1 - p) / images + z * z / (4 * images * images))
    scale = 1 + z * z / images
    # Rounding would give 1e-17 instead.
    return 0.0 if correct == 0 else (middle - half) / scale, 1.0 if correct == images else (middle + half) / scale


# --- validation


def _validate(target: Target, together: int, single: int, chunk: int) -> Validation:
    billed = target.requests > 0  # loading it sent requests
    images = patterns(target.shape, 4 if billed else together)
    first = target.logits(images)
    measured = target.monitor.measure() if target.monitor is not None else None
    if billed:
        again, alone = first, first[:0]
        notes = []
        if measured is None:
            notes.append("every request counts and answers are kept: whether equal images get equal answers is not known")
    else:
        again, alone = target.logits(images), np.concatenate([target.logits(images[i : i + 1]) for i in range(single)])
        notes = []
    bad = ~np.isfinite(np.concatenate([first, again, alone])).all(axis=1)
    if bad.any():
        what = ", or numbers outside of 0 to 1," if target.outputs == SIGMOIDS else ""
        fault = (
            f"it answers NaN or infinity{what} for {bad.sum()} of {len(bad)} images of patterns; check its weights, and "
            "that mean, std and scale are those it was trained with"
        )
        return Validation(len(images), False, None, None, None, (fault,), ())
    faults = []
    # A few equal answers mean nothing if answers are rounded, or if only the highest classes are reported.
    if (first == first[0]).all() and (target.top_k < len(target.labels) or target.details.get("notes")):
        notes.append(
            f"its answers to {len(images)} different patterns are identical; check it with photographs "
            "(targets check --images)"
        )
    elif (first == first[0]).all() and not (target.logits(drawings(target.shape, _DRAWN)) == first[0]).all():
        # A network trained to be uncertain about out-of-distribution images may give identical outputs for all of them.
        notes.append(f"its answers to {len(images)} patterns of colour and noise are identical, those to drawings differ")
    elif (first == first[0]).all():
        faults.append(
            f"its answers to {len(images) + _DRAWN} different images are identical; check that scale, mean and std do not "
            "make them equal (its input is pixel * scale, pixel 0..255), and that its weights are loaded"
        )
    _check_outputs(target, first, faults, notes)
    if billed:
        position = None if faults else measure(target, chunk)
        return Validation(len(images), True, measured, None, position, tuple(faults), tuple(notes))
    twice, apart = _largest_difference(target, again, first), _largest_difference(target, alone, first[:single])
    random = twice > VARIES
    if random:
        (faults if (fault := random_fault(target, twice)) else notes).append(fault or random_note(target))
    elif apart > max(DEPENDS, _ROUNDING * float(np.abs(scores.log_odds(first, target.multilabel)).max())):
        faults.append(
            f"an image alone and the same one together with {len(images) - 1} others differ by {apart:.3g} in log-odds; "
            "its answers depend on the other images in the batch: a batch norm in training mode?"
        )
    elif apart > VARIES:
        notes.append(f"an image alone and the same one in a batch of {len(images)} differ by {apart:.3g} in log-odds")
    if 0 < twice <= VARIES:
        notes.append(f"last bits vary from call to call (log-odds by {twice:.2g}): a repeated run may end differently")
    position = None if faults else measure(target, chunk, random)
    if position is not None and not random:
        notes += position.notes()
    return Validation(len(images), True, twice, apart, position, tuple(faults), tuple(notes))


def _probed(target: Target, validation: Validation) -> Validation:
    """The validation with a note if answers change abruptly; unsound ones and those that answer at random are not asked."""
    if validation.faults or (validation.twice or 0.0) > VARIES:
        return validation
    note = measure_changes(target).note()
    return replace(validation, notes=(*validation.notes, note)) if note else validation


def _check_outputs(target: Target, logits: np.ndarray, faults: list[str], notes: list[str]) -> None:
    """Whether the answers are logits or probabilities, as the target states."""
    if target.top_k < len(target.labels) or target.crops > 1 or "views" in target.details or target.multilabel:
        return
    if target.outputs == "probabilities":
        sums = np.exp(logits.astype(np.float64)).sum(axis=1)
        if np.abs(sums - 1).max() > 0.01:
            faults.append(
                f"its answers are taken for probabilities, but over the classes they sum to {sums.min():.4g} to "
                f"{sums.max():.4g}; state outputs=logits if that is what they are, or outputs=multilabel-probabilities if "
                "its labels do not exclude each other"
            )
    elif (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1, atol=2e-3):
        faults.append(
            "its answers are taken for logits, but every row is positive and sums to 1; leave its softmax out, or state "
            "outputs=probabilities"
        )
    else:
        sums = logits.sum(axis=1)
        if (logits >= 0).all() and ((logits <= 1).all() or np.ptp(sums) <= 1e-3 * sums.max()):
            notes.append(
                f"its answers are taken for logits, but all lie between {logits.min():.3g} and {logits.max():.3g} and sum "
                f"to about {sums.mean():.3g}: sigmoids, percentages or rounded probabilities would look like this, and the "
                "confidences of those would mean nothing; for sigmoids state outputs=multilabel-probabilities"
            )


def _largest_difference(target: Target, a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of log-odds."""
    return float(np.abs(scores.log_odds(a, target.multilabel) - scores.log_odds(b, target.multilabel)).max())


# --- accuracy


def _accuracy(
    target: Target, found: Sequence[Photograph], folder: str, published: float | None, progress: Progress
) -> tuple[Accuracy, np.ndarray]:
    """And (N,) int64, what the target calls the photographs."""
    seen, right, sure, margins, sure_right, named = hashlib.sha256(), 0, [], [], [], []
    done = 0
    for images, classes, files in photographs(found, target):
        seen.update(images.tobytes())
        seen.update(classes.tobytes())
        logits = target.logits(images)
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if len(bad):
            raise TargetError(f"{target.name}: it answers NaN or infinity for {files[bad[0]]}; check its weights")
        called = logits.argmax(axis=1)
        named.append(called)
        rows = np.arange(len(images))
        confidence = np.asarray(scores.confidence(scores.log_odds(logits, target.multilabel)[rows, called]))
        sure.append(confidence)
        hit = called == classes
        right += int(hit.sum())
        margins.append(scores.margin(logits, target.multilabel)[rows, called][hit])
        sure_right.append(confidence[hit])
        done += len(images)
        if done == len(found) or done % 128 == 0:
            progress(f"{done:,} of {len(found):,} photographs, {right:,} correct")
    p = right / done
    measured = Accuracy(
        folder=folder,
        images=done,
        images_sha256=seen.hexdigest(),
        correct=right,
        top1=p,
        standard_error=math.sqrt(p * (1 - p) / done),
        interval=wilson(right, done),
        published=published,
        median_confidence=float(np.median(np.concatenate(sure))),
        margins=_quantiles(np.concatenate(margins)),
        confidences=_quantiles(np.concatenate(sure_right)),
    )
    return measured, np.concatenate(named)


def _quantiles(values: np.ndarray) -> dict[str, float]:
    """Empty if there are no values."""
    if not len(values):
        return {}
    return {f"{q:.0%}": float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}


def _check_accuracy(accuracy: Accuracy, faults: list[str], notes: list[str]) -> None:
    """Compare the accuracy with the published one."""
    top1, published = accuracy.top1, accuracy.published
    if published is None:
        return
    deviation = math.sqrt(published * (1 - published) / accuracy.images)
    if top1 < published - 3 * deviation:
        faults.append(
            f"top-1 on {accuracy.images:,} photographs is {top1:.3f}, more than 3 standard errors ({deviation:.3f}) "
            f"below the published {published:.3f}; wrong normalisation is the most common cause: check mean, std, scale "
            f"and order, then resize, and that {accuracy.folder} shows the target's classes"
        )
    elif top1 > published + max(0.05, 3 * deviation):
        notes.append(
            f"suspected training images: top-1 on them is {top1:.3f}, published is {published:.3f}; on images that it "
            "has not seen, margins and confidences are lower"
        )


def _check_use(target: Target, better: Sequence[Better], faults: list[str], notes: list[str]) -> None:
    """What is better than the way in which the target is used: a fault, or a note if it is of photographs alone."""
    if not better:
        return
    options, shift = proposal(better)
    first, last = better[0], better[-1]
    things = "one thing is" if len(better) == 1 else f"{len(better)} things are"
    said = (
        f"on {last.images:,} photographs top-1 is {first.top1_before:.3f}, and {last.top1:.3f} if {things} changed: "
        f"{'; '.join(each.change.words for each in better)} (p = {max(each.p for each in better):.1g}, McNemar's exact "
        f"test, Holm's correction over {last.tried} changes)"
    )
    if options:
        said += f". {_remedy(target, options, last.change)}"
    if shift:
        first_line = "begin the labels with one more line, and leave the last one out"
        last_line = "leave the first line of the labels out, and add one at the end"
        said += f". Class {max(0, -shift)} is output {max(0, shift)}: {first_line if shift > 0 else last_line}"
    (notes if all(each.change.photographs_only for each in better) else faults).append(said)


def _remedy(target: Target, options: Mapping[str, str], change: Change) -> str:
    """The target's spec with these options, or the options alone for one whose preprocessing is set in code."""
    try:
        spec = parse(target.name)
    except TargetError:
        spec = None
    if spec is None or target.set_in_code:
        return f"Set {', '.join(f'{name}={value}' for name, value in options.items())} in its Preprocessing"
    if spec.kind == "python" and target.network is None and "scale" not in spec.options:
        # Any of these options makes a callable get floats, by default pixel / 255.
        options = {"scale": option_text(change.preprocessing.scale), **options}
    return f'Use "{Spec(spec.kind, spec.name, {**spec.options, **options}).text}"'
