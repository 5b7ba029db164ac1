"""The command `evofool explain`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from evofool.cli.options import Trust

if TYPE_CHECKING:
    import numpy as np

    from evofool.targets import Target

WHAT = typer.Argument(metavar="RUN|IMAGE", help="A run's folder, or a picture of any size.")
CLASS = typer.Option(
    "--class",
    help="A class number or a label: the elite to explain; for a picture the class the target calls it, unless given.",
)
TARGET = typer.Option(
    "--target", metavar="SPEC", help="For a picture: who sees it (evofool targets list). A run has its own."
)
OUT = typer.Option(metavar="DIR", help="Where to write; RUN/explain-CLASS or IMAGE-explained unless given.")
REAL_IMAGES = typer.Option(metavar="DIR", help="Real images, to find the nearest: folders of classes, or any pictures.")
PARTS = typer.Option(
    metavar="PART,PART", help="Some parts alone: occlusion, elements, saliency, segmentation, inversion, dream, nearest."
)
LAYERS = typer.Option(metavar="LAYER,LAYER", help="What to invert; five from first to last unless given.")
DREAM = typer.Option("--dream", metavar="LAYER", help="Enhance what this layer sees in the image.")
ZOOM = typer.Option(min=0, help="With --dream: so many further frames, each dreamt into a part of the one before.")
SEED = typer.Option(min=0, help="Of noise, colours, mixtures and starts.")


class _Subject(NamedTuple):
    """What is to be explained: where it is from, what was done to it, and where its page goes."""

    target: "Target"
    image: "np.ndarray"
    class_id: int
    source: str
    notes: list[str]
    folder: Path


def explain(
    what: Annotated[Path, WHAT],
    which: Annotated[str | None, CLASS] = None,
    target: Annotated[str | None, TARGET] = None,
    out: Annotated[Path | None, OUT] = None,
    real_images: Annotated[Path | None, REAL_IMAGES] = None,
    parts: Annotated[str | None, PARTS] = None,
    layers: Annotated[str | None, LAYERS] = None,
    dream: Annotated[str | None, DREAM] = None,
    zoom: Annotated[int, ZOOM] = 0,
    seed: Annotated[int, SEED] = 0,
    trust: Trust = False,
) -> None:
    """Why does the classifier see this class here? Writes one page, index.html, and its pictures.

    Of an elite of a run, or of any picture: occlusion, the worth of repeated elements, saliency, segmentation, what layers
    keep of it, with --dream what one sees in it, and with --real-images the nearest real images. A black box has the parts
    that need no gradient. Every part is written as soon as it is done, the first over an earlier page. Exits with 2 if a
    part failed; the page has the others.
    """
    from evofool.errors import TargetError
    from evofool.explain.page import explain as write_page
    from evofool.machine import keep_memory, torch_threads

    if zoom and not dream:
        raise TargetError("--zoom needs a dream to go into: --dream LAYER")
    chosen, inverted = _names(parts, "--parts", "a part"), _names(layers, "--layers", "a layer")
    if dream is not None and not dream.strip():
        raise TargetError("--dream names no layer; leave it out for no dream")
    keep_memory()
    # One thread: the bits do not depend on the machine's cores, and at a few images a pass more threads gain little.
    with torch_threads(1):
        if what.is_dir() or what.name == "run.db":
            if target is not None:
                raise TargetError(f"{what} is a run and has its own target; --target is for a picture")
            subject = _elite(what.parent if what.name == "run.db" else what, which, trust)
        else:
            subject = _picture(what, which, target)
        try:
            told = write_page(
                subject.target,
                subject.image,
                subject.class_id,
                out or subject.folder,
                source=subject.source,
                notes=subject.notes,
                only=chosen,
                real=real_images,
                layers=inverted,
                dream=dream or "",
                zoom=zoom,
                seed=seed,
                say=lambda line: print(line, flush=True),
            )
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    passes = f"{told.forwards:,} forward and {told.backwards:,} backward passes"
    print(f"{len(told.pictures)} pictures; {passes}. Page: {told.page}", flush=True)
    if told.faults:
        failed = "; ".join(f"{part}: {words}" for part, words in told.faults.items())
        typer.echo(f"evofool: not all could be explained, the page has the rest. {failed}", err=True)
        raise typer.Exit(2)


def _elite(folder: Path, which: str | None, trust: bool) -> _Subject:
    from evofool.errors import StoreError
    from evofool.run.stored import StoredRun

    with StoredRun(folder) as stored:
        if which is None:
            raise StoreError(f"{folder} has an elite for every class; say which to explain: --class 3, or a label")
        class_id = stored.class_id(which)
        elite = max(stored.elites(class_id), key=lambda e: e.row.log_odds)
        source = f"elite of class {class_id} of {folder.resolve().name}, birth {elite.row.birth}"
        return _Subject(stored.target(trust), elite.image, class_id, source, [], folder / f"explain-{class_id}")


def _picture(file: Path, which: str | None, spec: str | None) -> _Subject:
    from evofool.errors import ImageError, TargetError
    from evofool.explain.input_picture import read_picture
    from evofool.scores import log_odds
    from evofool.targets import target as load
    from evofool.targets.labels import class_of

    if not file.is_file():
        raise ImageError(f"there is no {file}: name a run's folder or a picture")
    if spec is None:
        raise TargetError(f"{file}: who is to see it? Name the target: --target lenet (evofool targets list has them all)")
    target = load(spec)
    class_id = None if which is None else class_of(which, target.labels, target.name)
    image, change = read_picture(file, target)
    if class_id is None:
        class_id = int(log_odds(target.logits(image[None]))[0].argmax())
    return _Subject(target, image, class_id, file.name, [change] if change else [], file.with_name(f"{file.stem}-explained"))


def _names(text: str | None, option: str, what: str) -> list[str]:
    from evofool.errors import TargetError

    names = [] if text is None else [name.strip() for name in text.split(",") if name.strip()]
    if text is not None and not names:
        raise TargetError(f'{option} "{text}" does not name {what}; leave it out for the usual ones')
    return names
