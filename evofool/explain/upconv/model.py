"""Decoders as files: learned from a folder once and kept, and files for another layer, another network or of other kinds."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from evofool.ascend.hooks import layer_names, no_gradients, unknown_layer
from evofool.ascend.objectives import LOGITS
from evofool.errors import ImageError, ScoreError, StoreError, TargetError
from evofool.explain.model_file import cache_folder, read_model
from evofool.explain.part_result import Report, counting
from evofool.explain.upconv.errors import by_mean, by_ridge, distances, pair_distance
from evofool.explain.upconv.samples import (
    SMALL,
    Picture,
    Samples,
    check_count,
    code_shape,
    fitting,
    held_out,
    image_shape,
    samples,
)
from evofool.explain.upconv.training import Trained, TrainingSettings, layout_for, train
from evofool.targets import Target
from evofool.whole_file import write_whole
from genomes import GenomeError
from genomes.upconv import Decoder, decoder_bytes, decoder_of_bytes

_KIND = "up-convolutional inverse 1"
_SHORT = 12  # characters of a picture's digest that a file keeps
_BATCH = 32
_INTERRUPTED = re.compile(r"-\d+-of-\d+\.safetensors$")


@dataclass(frozen=True)
class LayerInverse:
    """A decoder of a layer's codes, and how it was learned.

    network: the fingerprint of the target, and name: its name. pictures, crops: learned from so many pictures, each cropped
    so often. epochs, of: trained and wanted; fewer after Ctrl-C. error, of_mean, of_ridge: the mean distance of the
    inverse, of the mean picture and of a ridge regression from held_out pictures that were not learned from, over
    image_unit, the mean distance between two of these. code_unit: the mean distance between two of their codes. settings:
    of the training, as JSON. learned: the beginnings of the digests of the files that were learned from.
    """

    decoder: Decoder
    network: str
    name: str
    layer: str
    pictures: int
    crops: int
    held_out: int
    epochs: int
    of: int
    error: float
    of_mean: float
    of_ridge: float
    image_unit: float
    code_unit: float
    settings: str
    learned: frozenset[str]

    def learned_from(self, digest: str) -> bool:
        """Whether a file with this SHA-256 is among those that the decoder was learned from."""
        return digest[:_SHORT] in self.learned

    def draw(self, codes: np.ndarray | torch.Tensor) -> np.ndarray:
        """float32 (n, C, h, w) on [0, 1] from codes (n, *code)."""
        return _drawn(self.decoder, torch.as_tensor(codes))


_NUMBERS = ("pictures", "crops", "held_out", "epochs", "of")
_FIGURES = ("error", "of_mean", "of_ridge", "image_unit", "code_unit")
_TEXTS = ("network", "name", "layer", "settings")


def learned_inverse(
    target: Target,
    layer: str,
    pictures: Mapping[str, Picture],
    settings: TrainingSettings | None = None,
    *,
    where: str = "the folder",
    report: Report = lambda _event: None,
) -> tuple[LayerInverse, Path]:
    """The decoder of a layer, learned from pictures by digest, and its file in the user's cache.

    The file's name has the SHA-256 of the pictures' digests, the settings, the target's fingerprint and the layer, so that
    it is learned once. A tenth of the pictures is held out. After Ctrl-C in a later epoch than the first the best decoder
    so far is kept under another name, which is not looked up. Where the codes of all pictures do not fit in 1 GiB, those
    with the lowest digests are taken. TargetError for a black box, an unknown layer and one with too many values, ImageError
    for fewer than 16 readable pictures, ScoreError for a training that diverges.
    """
    settings = settings or TrainingSettings()
    check_layer(target, layer)
    if settings.feature_layer:
        check_layer(target, settings.feature_layer)
    key = json.dumps([_KIND, asdict(settings), target.fingerprint(), layer, sorted(pictures)], sort_keys=True)
    source = hashlib.sha256(key.encode()).hexdigest()
    path = cache_folder() / f"{_beginning(target, layer)}{source[:16]}.safetensors"
    with suppress(StoreError):  # missing or damaged: learned again
        return load_inverse(path, target, layer), path
    shape = image_shape(target, settings.size)
    code = code_shape(target, layer, shape)
    try:
        layout_for(code, shape)
    except GenomeError as error:
        raise TargetError(f"{target.name}: no decoder can be learned of {layer}: {error}") from None
    check_count(len(pictures), where)
    most, crops = fitting(len(pictures), code, settings.crops if min(target.shape[1:]) > SMALL else 1)
    if most < len(pictures):
        report(f"{layer}: {most:,} of {len(pictures):,} pictures are used, whose outputs fit in 1 GiB")
        pictures = {digest: pictures[digest] for digest in sorted(pictures)[:most]}
    apart = held_out([*pictures])
    learning = {digest: picture for digest, picture in pictures.items() if digest not in apart}
    read = counting(report, "pictures", f"{layer}: outputs")
    tested = samples(target, [layer], {digest: pictures[digest] for digest in apart}, shape)[layer]
    found = samples(target, [layer], learning, shape, crops, seed=settings.seed, count=read)[layer]
    # Files may be damaged further inside.
    check_count(len(found.codes) // crops + len(tested.codes), where)
    if len(tested.codes) < 2:
        raise ImageError(f"{where}: all but one of the {len(apart)} held-out pictures are damaged; remove them")
    trained = train(found, settings, target, layer, count=counting(report, "pictures", f"{layer}: training"))
    report(f"{layer}: measuring on {len(tested.codes)} pictures that were held out")
    made = measured(trained, target, layer, found, tested, crops, settings, [*learning])
    if trained.epochs < trained.of:
        path = path.with_name(path.name.replace(".safetensors", f"-{trained.epochs}-of-{trained.of}.safetensors"))
        report(f"Interrupted: the best decoder of {trained.epochs} of {trained.of} epochs is used")
    save_inverse(made, path)
    return load_inverse(path, target, layer), path


def measured(
    trained: Trained,
    target: Target,
    layer: str,
    found: Samples,
    tested: Samples,
    crops: int,
    settings: TrainingSettings,
    learned: list[str],
) -> LayerInverse:
    """The decoder with its error on held-out samples, beside those of the mean picture and of a ridge regression."""
    unit = pair_distance(tested.images)
    drawn = _drawn(trained.decoder, torch.from_numpy(tested.codes))
    error, mean, ridge = (
        float(distances(images, tested.images).mean()) / unit
        for images in (drawn, by_mean(found, len(tested.images)), by_ridge(found, tested.codes, settings.seed))
    )
    return LayerInverse(
        trained.decoder,
        target.fingerprint(),
        target.name,
        layer,
        len(found.codes) // crops,
        crops,
        len(tested.codes),
        trained.epochs,
        trained.of,
        error,
        mean,
        ridge,
        unit,
        pair_distance(tested.codes),
        json.dumps(asdict(settings), sort_keys=True),
        frozenset(digest[:_SHORT] for digest in learned),
    )


def save_inverse(made: LayerInverse, path: Path) -> None:
    """Write it as safetensors; the same bytes for the same decoder. ScoreError for weights that are beyond float16."""
    texts = {name: str(getattr(made, name)) for name in (*_TEXTS, *_NUMBERS)}
    texts |= {name: repr(getattr(made, name)) for name in _FIGURES}
    texts |= {"kind": _KIND, "learned": " ".join(sorted(made.learned))}
    try:
        data = decoder_bytes(made.decoder, texts)
    except GenomeError as error:
        raise ScoreError(f"{path} is not written: {error}") from None
    write_whole(path, data)


def load_inverse(path: Path, target: Target, layer: str) -> LayerInverse:
    """Read a decoder; StoreError for a file that is missing, damaged, of another kind, layer or network."""
    found = read_model(path, _of_bytes)
    if found.network != target.fingerprint():
        raise StoreError(
            f"{path} inverts {found.name} (fingerprint {found.network[:12]}), and {target.name} is another network or has "
            f"changed since (fingerprint {target.fingerprint()[:12]}); learn a decoder for it by --train DIR"
        )
    if found.layer != layer:
        raise StoreError(
            f"{path} inverts the layer {found.layer}, not {layer}; name that layer, or learn one by --train DIR"
        )
    code = code_shape(target, layer, found.decoder.layout.image)
    if found.decoder.layout.code != code or found.decoder.layout.image[0] != target.shape[0]:
        raise StoreError(f"{path} is damaged: it takes codes of {found.decoder.layout.code}, and {layer} has {code}")
    return found


def kept_inverse(target: Target, layer: str) -> LayerInverse | None:
    """The decoder of this layer that was learned last and is in the user's cache; None if there is none."""
    files = []
    for path in cache_folder().glob(f"{_beginning(target, layer)}*.safetensors"):
        if not _INTERRUPTED.search(path.name):
            with suppress(OSError):  # removed since
                files.append((path.stat().st_mtime, path))
    for _, path in sorted(files, reverse=True):
        with suppress(StoreError):
            return load_inverse(path, target, layer)
    return None


def check_layer(target: Target, layer: str) -> None:
    """TargetError for a target without gradients, and for an unknown layer, with the most similar names."""
    if not target.differentiable:
        raise no_gradients(target)
    if layer != LOGITS and layer not in layer_names(target):
        raise unknown_layer(target, layer)


def _drawn(decoder: Decoder, codes: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([decoder(part) for part in codes.split(_BATCH)]).numpy()


def _beginning(target: Target, layer: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9]+", "-", layer).strip("-")[:40]
    return f"upconv-{target.fingerprint()[:16]}-{slug}-"


def _of_bytes(data: bytes) -> LayerInverse:
    """GenomeError, which begins with a verb, for what is not such a decoder."""
    decoder, texts = decoder_of_bytes(data)
    if texts.get("kind") != _KIND:
        raise GenomeError(f'is not a decoder of a layer: its kind is "{texts.get("kind")}", not "{_KIND}"')
    if decoder.layout.mask:
        raise GenomeError("is damaged: a decoder of a layer draws no mask")
    try:
        numbers = {name: int(texts[name]) for name in _NUMBERS}
        figures = {name: float(texts[name]) for name in _FIGURES}
        found = {name: texts[name] for name in _TEXTS}
        learned = frozenset(texts["learned"].split())
    except (KeyError, ValueError) as error:
        raise GenomeError(f"is damaged: its metadata has no valid {error}") from None
    if (
        not all(0 <= figure < math.inf for figure in figures.values())
        or min(figures["image_unit"], figures["code_unit"]) <= 0
    ):
        raise GenomeError(f"is damaged: its errors and units are {figures}")
    return LayerInverse(decoder, **found, **numbers, **figures, learned=learned)  # type: ignore[arg-type]
