"""The interface of a classifier: labels, input shape, preprocessing, logits, and a count of queries."""

import copy
import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evofool.errors import EvofoolError, TargetError, UnansweredError
from evofool.machine import cpus
from evofool.targets.answer_forms import (
    are_sigmoids,
    inferred_outputs,
    of_steps,
    reform_of,
    sigmoids_note,
    single_note,
    softmax_step,
    steps_note,
    two_labels,
)
from evofool.targets.answer_record import AnswerRecord
from evofool.targets.arguments import float_images, image_shape, label_names, pixel_images, refuse, texts
from evofool.targets.network import FLOAT32, Network
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.remote.drift import DriftMonitor
from evofool.targets.remote.responses import detect_format
from evofool.targets.through import Through, combined, delivered

OUTPUTS = ("auto", "logits", "probabilities", "multilabel-logits", "multilabel-probabilities")
"""What a network answers. multilabel: for labels that do not exclude each other, each with a sigmoid of its own."""
SIGMOIDS = "multilabel-probabilities"
PROBE = 4  # images of noise that a target classifies when it is built
# Details that describe how a target was run, not what it is: left out of its fingerprint.
_NOT_IN_FINGERPRINT = ("backend", "device", "file", "file_sha256", "notes")

Forward = Callable[[np.ndarray], np.ndarray]
"""uint8 images (B, C, H, W) to float32 (B * crops, K), logits or probabilities."""


class Target:
    """A classifier as every search, attack and report uses it.

    name: the spec, or the name it was given. labels: K names. shape: (C, H, W) of its images. details: what was resolved
    (preprocessing, outputs, SHA-256 of the weights, versions, notes on what cannot be claimed) as JSON values; stored with a
    run. queries: answers so far. queries_per_image: how many of these an image takes, if its answer is made of several
    (averaged, delivery, views). requests: requests sent over a network. counts_persist: both counts continue when a
    run is resumed. top_k: the number of classes in an answer; the logits of the others are bounds. streams: the number of
    concurrent calls that raises throughput (logits may be called from several threads if it is over 1). formats: the number
    formats it can rank by, float32 first. network: the torch network, or None: then there are no gradients and no layers.
    monitor: asks a black box known images again; None for other targets. refed: the forward function of the same classifier
    with another preprocessing, None where it cannot be fed so; None for one that is not fed by this process.
    set_in_code: its preprocessing is set in code, and not by options of its spec. through: the pipelines by which images
    reach it, None if they do as they are.
    multilabel: its labels do not exclude each other. Then logits are log(p / (1 - p)) of each label's own probability, and
    scores.log_odds and scores.margin of a label are this number; the class that an image gets is the label with the highest.
    """

    def __init__(
        self,
        name: str,
        labels: Sequence[str],
        shape: tuple[int, int, int],
        forward: Forward,
        details: dict[str, Any],
        *,
        outputs: str = "logits",
        crops: int = 1,
        network: Network | None = None,
    ) -> None:
        self.name = name
        if not isinstance(name, str):
            refuse("Target", "name", name, "a text")
        if not callable(forward):
            refuse(name, "forward", forward, "a function of uint8 images (B, C, H, W)")
        if not isinstance(details, dict):
            refuse(name, "details", details, "a dict of JSON values")
        self.labels = label_names(name, labels)
        self.shape = image_shape(name, shape)
        self.details = details
        self.outputs, self.crops = outputs, crops
        self.network = network
        self.queries, self.queries_per_image = 0, 1
        self.top_k = len(self.labels)
        self.streams = 1
        self.counts_persist = False
        self.answer_record: AnswerRecord | None = None  # while the target is validated
        self.monitor: DriftMonitor | None = None
        self.refed: Callable[[Preprocessing], Forward | None] | None = None
        self.set_in_code = False
        self.through: Through | None = None
        self._reform: Forward | None = None  # of answers that have another form than (B, K)
        self._forward = forward
        self._counting = threading.Lock()

    @classmethod
    def from_module(
        cls,
        module: torch.nn.Module,
        labels: Sequence[str] | None,
        shape: tuple[int, int, int],
        preprocessing: Preprocessing | None = None,
        name: str | None = None,
        device: torch.device | str = "cpu",
        outputs: str = "auto",
        details: dict[str, Any] | None = None,
    ) -> "Target":
        """A torch network that takes float (B, C, H, W) and returns logits, or probabilities, (B, K).

        It is put into eval mode, except for a module of torch.export, which keeps the mode that it was exported in. One of
        another number format (`.half()`) is copied and run in float32. Of a tuple, a mapping or an object with `logits` the
        scores are taken; (B,) and (B, 1) are two classes, of which the output is the second. For the rest see `probed`.
        """
        name = name or type(module).__name__
        if not isinstance(module, torch.nn.Module):
            hint = "; of an ExportedProgram pass its module()" if isinstance(module, torch.export.ExportedProgram) else ""
            refuse(name, "module", module, f"a torch.nn.Module (for any other callable: Target.probed){hint}")
        preprocessing = preprocessing or Preprocessing()
        if not isinstance(preprocessing, Preprocessing):
            refuse(name, "preprocessing", preprocessing, "an evofool.Preprocessing")
        formats = {p.dtype for p in module.parameters() if p.is_floating_point()} - {torch.float32}
        if formats:
            module = copy.deepcopy(module).float()
        try:
            network = Network(module, preprocessing, device)
        except (RuntimeError, TypeError, AssertionError) as error:  # no such device, or one that is not there
            raise TargetError(f"{name}: cannot be put on the device {device!r} ({_error_text(error)})") from None
        weights = hashlib.sha256()
        for key, value in module.state_dict().items():
            weights.update(key.encode())
            weights.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        known = {
            "weights_sha256": weights.hexdigest(),
            "backend": f"torch {torch.__version__}",
            "device": str(network.device),
            **(details or {}),
        }
        notes = [f"its weights are {', '.join(sorted(map(str, formats)))} and are run in float32"] if formats else []
        if single := network.adapt(image_shape(name, shape), outputs):
            labels, outputs = two_labels(name, labels), "logits"
            notes.append(single_note(single, labels[1]))
        if notes:
            known["notes"] = [*known.get("notes", ()), *notes]
        target = cls.probed(
            name, lambda images: network.numpy(images, FLOAT32), labels, shape, preprocessing, outputs, known, network
        )
        target.streams = cpus() if network.device.type == "cpu" else 2
        target.refed = network.fed
        return target

    @classmethod
    def probed(
        cls,
        name: str,
        forward: Forward,
        labels: Sequence[str] | None,
        shape: tuple[int, int, int],
        preprocessing: Preprocessing,
        outputs: str,
        details: dict[str, Any],
        network: Network | None = None,
    ) -> "Target":
        """A target whose forward function classifies four images of noise at once, so that errors are found here.

        labels None: the numbers of the classes. outputs "auto": probabilities if every row of the answer sums to 1,
        multilabel-probabilities if all lie in [0, 1] and they do not (answer_forms.are_sigmoids), else logits. Rows of
        rounded probabilities may sum to a little more or less; those of a black box are divided by their sum (of_steps).
        TargetError if it does not take the images, if the number of labels is wrong, and for answers that contradict
        outputs.
        """
        shape = image_shape(name, shape)
        if labels is not None:
            labels = texts(name, labels)
        for field, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            if len(values) not in (1, shape[0]):
                raise TargetError(f"{name}: {field} has {len(values)} numbers, its images {shape[0]} channel(s)")
        if outputs not in OUTPUTS:
            raise TargetError(f'{name}: outputs "{outputs}" is none of {", ".join(OUTPUTS)}')
        images = np.random.default_rng(0).integers(0, 256, (PROBE, *shape), np.uint8)
        try:
            answer = forward(images)
        except EvofoolError as error:
            error.args = (f"{name}: {str(error).removeprefix(f'{name}: ')}",)
            raise
        except Exception as error:  # a user's code may raise any error
            raise TargetError(f"{name}: it does not take images of shape {shape} ({_error_text(error)})") from None
        rows = PROBE * preprocessing.crops
        reform, single = reform_of(answer, outputs)
        if reform is not None:
            answer, forward = reform(answer), _composed(forward, reform)
        if single:
            labels, outputs = two_labels(name, labels), "logits"
            details = {**details, "notes": [*details.get("notes", ()), single_note(single, labels[1])]}
        if not isinstance(answer, np.ndarray) or answer.ndim != 2 or len(answer) != rows or not answer.shape[1]:
            raise TargetError(
                f"{name}: the answer to {rows} images has shape {getattr(answer, 'shape', type(answer).__name__)}; "
                "it has to be (images, classes)"
            )
        sums = answer.sum(axis=1)
        is_p = bool((answer >= 0).all() and (answer <= 1 + 1e-6).all() and np.allclose(sums, 1.0, atol=2e-3))
        if outputs == "logits" and is_p:
            raise TargetError(
                f"{name}: the network returns probabilities, but outputs is logits; leave its softmax out, "
                "or set outputs=probabilities"
            )
        # Rounded probabilities may sum to another number than 1.
        step = softmax_step(answer) if not is_p and outputs in ("auto", "probabilities") else 0.0
        is_p = is_p or step > 0
        if outputs == "probabilities" and not is_p:
            each = "if each is of a label of its own, outputs=multilabel-probabilities"
            raise TargetError(
                f"{name}: outputs is probabilities, but rows of its answer sum to {sums.min():.4g} to {sums.max():.4g}; "
                f"set {each if are_sigmoids(answer) else 'outputs=logits if they are logits'}"
            )
        stated = outputs != "auto"
        if not stated:
            outputs = inferred_outputs(answer, is_p, forward, shape)
        elif outputs == SIGMOIDS and not ((answer >= 0) & (answer <= 1)).all():
            raise TargetError(
                f"{name}: outputs is {SIGMOIDS}, but its answers lie between {answer.min():.4g} and {answer.max():.4g}; set "
                "outputs=multilabel-logits if they are logits"
            )
        labels = [str(c) for c in range(answer.shape[1])] if labels is None else labels
        if len(labels) != answer.shape[1]:
            one_more = answer.shape[1] == len(labels) + 1
            hint = "; an output more is often a class for the background before the others" if one_more else ""
            raise TargetError(
                f"{name}: {answer.shape[1]} outputs but {len(labels)} labels; pass as many labels as the network has outputs"
                + hint
            )
        details = {"preprocessing": preprocessing.described(), "outputs": outputs, **details}
        if step and outputs == "probabilities":
            notes = [steps_note(step, network is None)]
            if network is None:
                even = partial(of_steps, step=step)
                forward, reform = _composed(forward, even), even if reform is None else _composed(reform, even)
        else:
            notes = detect_format(outputs, answer).notes() if outputs == "probabilities" else []
        if outputs.startswith("multilabel-"):
            notes.append(sigmoids_note(outputs, stated))
        if notes:
            details["notes"] = [*details.get("notes", ()), *notes]
        target = cls(name, labels, shape, forward, details, outputs=outputs, crops=preprocessing.crops, network=network)
        target._reform = reform
        return target

    def logits(self, images: np.ndarray, pad_to: int = 0, number_format: str = FLOAT32, first_row: int = 0) -> np.ndarray:
        """uint8 (B, C, H, W) to float32 (B, K), B >= 1; counts B * queries_per_image queries.

        May be called from several threads at once.

        A batch shorter than pad_to is padded with black images, whose answers are dropped: first_row of them come before
        it, the others after it. The shape of a forward pass can affect last bits, and so can an image's row in it
        (evofool.targets.position). Values are not checked: NaN passes through.
        number_format is one of `formats`; scores are defined by float32.
        """
        images = pixel_images(self.name, images, self.shape)
        n = len(images)
        rows = slice(0, n)
        if n < pad_to:
            rows = slice(first_row, first_row + n)
            padded = np.zeros((pad_to, *self.shape), np.uint8)
            padded[rows] = images
            images = padded
        try:
            if self.answer_record is None:
                raw = self.raw(images, number_format)
            else:
                raw = self.answer_record.answer(
                    images, len(images) * self.rows_per_image, lambda: self.raw(images, number_format)
                )
        except UnansweredError as error:
            if error.row is not None:  # black images that fill up the batch have no row
                error.row = error.row - rows.start if error.row in range(*rows.indices(len(images))) else None
            raise
        except (EvofoolError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a user's code may raise any error
            raise TargetError(f"{self.name}: failed on {len(images)} images ({_error_text(error)})") from error
        if raw.shape != (len(images) * self.rows_per_image, len(self.labels)):
            raise TargetError(
                f"{self.name}: {raw.shape[-1] if raw.ndim else 0} logits but {len(self.labels)} labels "
                f"(answer of shape {raw.shape} to {len(images)} images); pass as many labels as the network has outputs"
            )
        self.count(n)
        if self.outputs == "logits" and self.rows_per_image == 1:
            return raw[rows]
        return self.combined(torch.from_numpy(raw)).numpy()[rows]

    def logits_on_device(
        self, images: torch.Tensor, pad_to: int = 0, number_format: str = FLOAT32, first_row: int = 0
    ) -> torch.Tensor:
        """Like `logits`, with images and answer on the network's device: nothing is copied."""
        network = self._white_box()
        n = len(images)
        rows = slice(n)
        if n < pad_to:
            rows = slice(first_row, first_row + n)
            padded = images.new_zeros((pad_to, *self.shape))
            padded[rows] = images
            images = padded
        self.count(n)
        return self.combined(network(images, number_format))[rows]

    def raw(self, images: np.ndarray, number_format: str = FLOAT32) -> np.ndarray:
        """The network's own output for uint8 (B, C, H, W), float32 (B * rows_per_image, K); checks and counts nothing."""
        if number_format == FLOAT32:
            return self._forward(images)
        if self.network is None or number_format not in self.formats:
            raise TargetError(f'{self.name}: no number format "{number_format}"; it has {", ".join(self.formats)}')
        return self.network.numpy(images, number_format)

    @property
    def rows_per_image(self) -> int:
        """The number of rows of a network's output that belong to an image: its crops, of each pipeline."""
        return self.crops * (len(self.through.pipelines) if self.through else 1)

    def combined(self, raw: torch.Tensor) -> torch.Tensor:
        """A network's output (B * rows_per_image, K) float32 as logits (B, K)."""
        return combined(raw, self.outputs, self.crops, self.through)

    def deliver(self, through: Through) -> None:
        """From now on images reach the network through pipelines (delivery.deliver)."""
        self.through = through
        if self.network is None:
            self._forward = delivered(self._forward, through)
        else:
            self.network.deliver(through.pixels)  # its forward function is the network's
        self.refed = None

    def wrap(self, wrapper: Callable[[Forward], Forward]) -> None:
        """Replace the forward function by wrapper(forward function). It cannot be fed otherwise then (refed)."""
        self._forward = wrapper(self._forward)
        self.refed = None

    def set_refed(self, make: Callable[[Preprocessing], Forward | None]) -> None:
        """State how it is fed otherwise: make(preprocessing) is its forward function then, or None if it cannot be so."""
        reform = self._reform
        if reform is None:
            self.refed = make
        else:
            self.refed = lambda made: None if (forward := make(made)) is None else _composed(forward, reform)

    def count(self, images: int) -> None:
        """Add to queries those of a number of images that were answered."""
        with self._counting:
            self.queries += images * self.queries_per_image

    @property
    def requests(self) -> int:
        """Requests sent over a network so far: 0 for a network that runs locally."""
        return 0

    @property
    def formats(self) -> tuple[str, ...]:
        return (FLOAT32,) if self.network is None else self.network.formats(self.shape)

    def store_in(self, folder: Path) -> None:
        """From now on store a black box's answers and number of requests in this folder. Other targets do nothing."""
        if self.monitor is not None:
            self.monitor.store_in(folder)

    def ignore_cache(self) -> None:
        """From now on query again for images that were answered before. Targets that keep no answers do nothing."""

    def cancel(self) -> None:
        """Cancel requests in progress over a network; later calls work as before. Other targets do nothing."""

    @property
    def multilabel(self) -> bool:
        return self.outputs.startswith("multilabel-")

    @property
    def differentiable(self) -> bool:
        return self.network is not None

    def logits_float(self, images: torch.Tensor) -> torch.Tensor:
        """float (B, C, H, W) on [0, 1] to logits (B, K), with gradients; counts B queries. Pixels are not rounded."""
        network = self._white_box()
        images = float_images(self.name, images, self.shape)
        self.count(len(images))
        return self.combined(network.module(network.prepare(images * 255.0)))

    def activations(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        """The output of a named layer (as in module.named_modules()) for float images on [0, 1]; counts B queries.

        With several crops, those of an image are neighbours along the first axis.
        """
        network = self._white_box()
        images = float_images(self.name, images, self.shape)
        layers = dict(network.module.named_modules())
        if layer not in layers:
            raise TargetError(f"{self.name}: no layer {layer!r}; there are {', '.join(name for name in layers if name)}")
        kept: list[torch.Tensor] = []
        # A copy, since a later layer may change it in place.
        hook = layers[layer].register_forward_hook(lambda _module, _args, output: kept.append(output.clone()))
        try:
            network.module(network.prepare(images * 255.0))
        finally:
            hook.remove()
        self.count(len(images))
        if not kept:
            raise TargetError(f"{self.name}: layer {layer!r} is not used in the network's forward pass")
        return kept[-1]

    def _white_box(self) -> Network:
        if self.network is None:
            raise TargetError(f"{self.name}: a black box, which has neither gradients nor layers")
        return self.network

    def description(self) -> dict[str, Any]:
        """The description of the target in a run's file, as JSON values."""
        return {
            "name": self.name,
            "labels": list(self.labels),
            "shape": list(self.shape),
            "fingerprint": self.fingerprint(),
            "details": self.details,
        }

    def fingerprint(self) -> str:
        """SHA-256 over labels, shape, preprocessing and weights: equal exactly for the same classifier.

        Library versions, devices and paths are left out: they change last bits, not the classifier.
        """
        identity = {k: v for k, v in self.details.items() if k not in _NOT_IN_FINGERPRINT}
        text = json.dumps([self.labels, self.shape, identity], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _error_text(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"


def _composed(forward: Forward, reform: Forward) -> Forward:
    return lambda images: reform(forward(images))
