"""The command `evofool explain`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from evofool.cli.options import AsJson, Seed, Trust
from evofool.cli.reporting import reporting
from evofool.printer import print_json, print_lines

if TYPE_CHECKING:
    import numpy as np

    from evofool.targets import Target

RUN_OR_IMAGE = typer.Argument(metavar="RUN|IMAGE", help="A run's folder, or an image file of any size.")
CLASS = typer.Option(
    "--class",
    help="A class number or a label. With a run: the class whose elite is explained. With an image file: the class to "
    "explain, by default the predicted one.",
)
TARGET = typer.Option(
    "--target",
    metavar="SPEC",
    help="The classifier of an image file (see `evofool targets list`). With a run, the run's target is used.",
)
OUT = typer.Option(metavar="DIR", help="Where to write; RUN/explain-CLASS or IMAGE-explained by default.")
REAL_IMAGES = typer.Option(
    metavar="DIR",
    help="Real images, one folder per class or any image files: for the nearest ones, the images that excite a channel "
    "most, and the errors of inversions.",
)
AGAINST = typer.Option(
    metavar="CLASS",
    help='A class number or a label: the other class in "why this class and not that one"; by default the class with '
    "the next highest score.",
)
PARTS = typer.Option(
    metavar="PART,PART",
    help="Only these parts: occlusion, elements, saliency, segmentation, grad-cam, rise, margin, evidence, "
    "integrated, sufficient, curves, inversion, dream, hog, nearest.",
)
LAYERS = typer.Option(metavar="LAYER,LAYER", help="The layers to invert; by default five from the first to the last.")
DREAM = typer.Option("--dream", metavar="LAYER", help="Enhance the features of this layer in the image (DeepDream).")
ZOOM = typer.Option(
    min=0, help="With --dream: the number of further frames, each enlarged from the centre of the one before."
)


class _Subject(NamedTuple):
    """The image to explain, its class, where it comes from, how it was changed, its run's warnings, its page's folder."""

    target: "Target"
    image: "np.ndarray"
    class_id: int
    source: str
    notes: list[str]
    warnings: list[str]
    folder: Path


def explain(
    run_or_image: Annotated[Path, RUN_OR_IMAGE],
    which: Annotated[str | None, CLASS] = None,
    target: Annotated[str | None, TARGET] = None,
    against: Annotated[str | None, AGAINST] = None,
    out: Annotated[Path | None, OUT] = None,
    real_images: Annotated[Path | None, REAL_IMAGES] = None,
    parts: Annotated[str | None, PARTS] = None,
    layers: Annotated[str | None, LAYERS] = None,
    dream: Annotated[str | None, DREAM] = None,
    zoom: Annotated[int, ZOOM] = 0,
    seed: Seed = 0,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Show which parts of an image the classifier's score depends on: writes a page, index.html, and its pictures.

    The image is an elite of a run or any image file. The page begins with where the classifier sees the class, or that this
    is not shown. Then the class is compared with the next one, or with the class that --against names: by gradients,
    evidence in the last layer and integrated gradients. Further parts are sufficient subsets of pixels, occlusion, the
    effect of repeated elements, saliency, segmentation, Grad-CAM, deletion and insertion curves, inversions of layers and
    of HOG, with --dream a DeepDream, and with --real-images the nearest real images. For a black box it has the parts that
    need no gradient, and RISE. Each part is written as soon as it is finished; an earlier page that is complete is
    replaced when all are.
    Warnings of the target and of a close decision are printed and head the page. Exits with 2 if a part failed; the page
    then has the others.
    """
    from evofool.errors import TargetError
    from evofool.explain.figures import figures
    from evofool.explain.options import ExplanationOptions
    from evofool.explain.page import explain as write_page
    from evofool.machine import keep_memory, torch_threads
    from evofool.targets.labels import class_of

    if zoom and not dream:
        raise TargetError("--zoom continues a dream and needs --dream LAYER")
    chosen, inverted = _names(parts, "--parts", "a part"), _names(layers, "--layers", "a layer")
    if dream is not None and not dream.strip():
        raise TargetError("--dream names no layer; name one, or leave --dream out")
    keep_memory()
    # One thread: results do not depend on the machine's cores, and with few images a pass more threads gain little.
    with torch_threads(1):
        if run_or_image.is_dir() or run_or_image.name == "run.db":
            if target is not None:
                raise TargetError(f"{run_or_image} is a run, whose own target is used; --target is for an image file")
            subject = _elite(run_or_image.parent if run_or_image.name == "run.db" else run_or_image, which, trust)
        else:
            subject = _image_file(run_or_image, which, target)
        labels, name = subject.target.labels, subject.target.name
        other = None if against is None else class_of(against, labels, name)
        options = ExplanationOptions(chosen, other, real_images, inverted, dream or "", zoom, seed, subject.warnings)
        try:
            with reporting(as_json) as report:
                explanation = write_page(
                    subject.target,
                    subject.image,
                    subject.class_id,
                    out or subject.folder,
                    source=subject.source,
                    notes=subject.notes,
                    options=options,
                    report=report,
                )
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    if as_json:
        print_json(
            {
                "source": subject.source,
                "target": subject.target.name,
                "class": subject.class_id,
                "label": subject.target.labels[subject.class_id],
                "warnings": explanation.warnings,
                **figures(explanation, subject.target),
                "page": str(explanation.page),
                "pictures": [str(file) for file in explanation.pictures],
                "failed": explanation.faults,
                "forwards": explanation.forwards,
                "backwards": explanation.backwards,
            }
        )
    else:
        passes = f"{explanation.forwards:,} forward and {explanation.backwards:,} backward passes"
        if explanation.answer:
            print_lines(explanation.answer)
        print_lines(f"{len(explanation.pictures)} pictures; {passes}. Page: {explanation.page}")
    if explanation.faults:
        failed = "; ".join(f"{part}: {fault}" for part, fault in explanation.faults.items())
        print_lines(f"evofool: some parts failed; the page has the others. {failed}", error=True)
        raise typer.Exit(2)


def _elite(folder: Path, which: str | None, trust: bool) -> _Subject:
    from evofool.errors import StoreError
    from evofool.run.stored import StoredRun

    with StoredRun(folder) as stored:
        if which is None:
            raise StoreError(f"{folder} has an elite for every class; name the one to explain: --class 3, or a label")
        class_id = stored.class_id(which)
        elite = max(stored.elites(class_id), key=lambda e: e.row.log_odds)
        source = f"elite of class {class_id} of {folder.resolve().name}, birth {elite.row.birth}"
        return _Subject(
            stored.target(trust), elite.image, class_id, source, [], stored.meta.warnings, folder / f"explain-{class_id}"
        )


def _image_file(file: Path, which: str | None, spec: str | None) -> _Subject:
    from evofool.errors import ImageError, TargetError
    from evofool.explain.input_picture import read_picture
    from evofool.targets import target as load
    from evofool.targets.labels import class_of

    if not file.is_file():
        raise ImageError(f"there is no {file}: name a run's folder or an image file")
    if spec is None:
        raise TargetError(f"{file} is an image file and needs a target: --target lenet (see `evofool targets list`)")
    target = load(spec)
    class_id = None if which is None else class_of(which, target.labels, target.name)
    image, change = read_picture(file, target)
    if class_id is None:
        class_id = int(target.logits(image[None])[0].argmax())
    folder = file.with_name(f"{file.stem}-explained")
    return _Subject(target, image, class_id, file.name, [change] if change else [], [], folder)


def _names(text: str | None, option: str, kind: str) -> list[str]:
    from evofool.errors import TargetError

    names = [] if text is None else [name.strip() for name in text.split(",") if name.strip()]
    if text is not None and not names:
        raise TargetError(f'{option} "{text}" does not name {kind}; leave it out for the default')
    return names
