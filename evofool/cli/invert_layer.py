"""`evofool invert LAYER IMAGE --target SPEC`."""

import hashlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from evofool.cli.reporting import reporting
from evofool.printer import print_json, print_lines

if TYPE_CHECKING:
    from evofool.explain.part_result import Report
    from evofool.explain.upconv.model import LayerInverse
    from evofool.explain.upconv.page import InversePage, Subject
    from evofool.targets import Target


class Wanted(NamedTuple):
    """The decoder that a user wants: of which layer of which target, and by which options."""

    target: str
    layer: str
    train: Path | None
    model: Path | None
    epochs: int | None
    feature_loss: float
    seed: int


def image(
    source: Path, wanted: Wanted, towards: Path | None, perturb: bool, search: bool, out: Path | None, as_json: bool
) -> None:
    """Find or learn the decoder, write the page of the image's inverse, and print how near it comes."""
    from evofool.errors import ImageError
    from evofool.explain.upconv.model import check_layer
    from evofool.explain.upconv.page import InversePageOptions, inverse_page
    from evofool.targets import target as load

    for file in (source, *([] if towards is None else [towards])):
        if not file.is_file():
            raise ImageError(f"there is no {file}: name an image file")
    if wanted.train is None and (wanted.epochs is not None or wanted.feature_loss):
        raise ImageError("--epochs and --feature-loss are of a decoder that is learned: --train DIR")
    target = load(wanted.target)
    check_layer(target, wanted.layer)
    subject, other = _subject(source, target), None if towards is None else _subject(towards, target)
    with reporting(as_json) as report:
        for note in (*subject.notes, *(other.notes if other else ())):
            report(note)
        model = _model(target, wanted, report)
        # MNIST's digits are known by their pixels, photographs by their files.
        contents = (source.read_bytes(), subject.image.tobytes())
        seen = any(model.learned_from(hashlib.sha256(content).hexdigest()) for content in contents)
        notes = [f"{source.name} is one of the pictures that the decoder was learned from."] if seen else []
        options = InversePageOptions(search, perturb, other, wanted.seed, notes)
        slug = re.sub(r"[^A-Za-z0-9]+", "-", wanted.layer).strip("-")
        folder = out or source.with_name(f"{source.stem}-{slug}")
        page = inverse_page(target, subject, model, folder, options=options, report=report)
    if as_json:
        print_json(_as_json(source, target, model, page))
        return
    print_lines(
        f"On {model.held_out} held-out pictures: image error {model.error:.3f}, ridge regression {model.of_ridge:.3f}, mean "
        f"picture {model.of_mean:.3f}",
        *notes,
    )
    for method, one in page.found.items():
        print_lines(
            f"{method}: image error {one.image_errors[0]:.3f}, feature error {one.code_errors[0]:.3f}, "
            f"{target.labels[one.classes[0]]}, {1000 * one.seconds:.1f} ms"
        )
    print_lines(f"Page: {page.output.page}")


def _model(target: "Target", wanted: Wanted, report: "Report") -> "LayerInverse":
    """The named decoder, one learned from the named folder, the one learned last, or of digits one learned from MNIST."""
    from evofool.errors import ImageError
    from evofool.explain.upconv.model import kept_inverse, learned_inverse, load_inverse
    from evofool.explain.upconv.samples import by_pixels, pictures_of
    from evofool.explain.upconv.training import TrainingSettings
    from evofool.targets.digits import digits

    if wanted.model is not None:
        return load_inverse(wanted.model, target, wanted.layer)
    settings = TrainingSettings(epochs=wanted.epochs or 0, feature_weight=wanted.feature_loss, seed=wanted.seed)
    if wanted.train is not None:
        pictures, where = pictures_of(wanted.train), str(wanted.train)
    elif (kept := kept_inverse(target, wanted.layer)) is not None:
        return kept
    elif target.shape == (1, 28, 28):
        pictures, where = by_pixels(digits()[0]), "MNIST"
    else:
        raise ImageError(f"no decoder of {wanted.layer} of {target.name} is kept; learn one from photographs: --train DIR")
    began = time.process_time()
    found, path = learned_inverse(target, wanted.layer, pictures, settings, where=where, report=report)
    report(f"Decoder: {path} ({time.process_time() - began:.0f} s of one core)")
    return found


def _subject(file: Path, target: "Target") -> "Subject":
    from evofool.explain.input_picture import read_picture
    from evofool.explain.upconv.page import Subject

    image, change = read_picture(file, target)
    return Subject(image, file.name, [change] if change else [])


def _as_json(source: Path, target: "Target", model: "LayerInverse", page: "InversePage") -> dict[str, object]:
    return {
        "source": source.name,
        "target": target.name,
        "layer": model.layer,
        "decoder": {
            "pictures": model.pictures,
            "crops": model.crops,
            "epochs": model.epochs,
            "held_out": {
                "pictures": model.held_out,
                "error": model.error,
                "ridge": model.of_ridge,
                "mean": model.of_mean,
            },
        },
        "inverses": {
            method: {
                "image_error": one.image_errors[0],
                "feature_error": one.code_errors[0],
                "label": target.labels[one.classes[0]],
                "seconds": one.seconds,
            }
            for method, one in (page.found | page.changed).items()
        },
        "towards": [target.labels[c] for c in page.steps],
        "page": str(page.output.page),
        "pictures": [str(path) for path in page.output.pictures],
    }
