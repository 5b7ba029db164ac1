"""The command `evofool dream`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from evofool.cli.options import Seed, Streams
from evofool.printer import print_lines, status

if TYPE_CHECKING:
    import numpy as np

    from evofool.explain.dream import DreamProgress, DreamSettings
    from evofool.explain.dream_folder import DreamFolder
    from evofool.targets import Target

    _Show = Callable[[str, float], bool]

_ALL = "all"
_SHEET_SIZE = 320  # pixels, the longer side of a picture of --layers

PHOTO = typer.Argument(metavar="PHOTO", help="An image file, which is kept whole and at its own size.")
TARGET = typer.Option(metavar="SPEC", help="A classifier with gradients (see `evofool targets list`).")
LAYER = typer.Option(
    metavar="LAYER",
    help="The layer whose response is enhanced; by default a block at 62% of the depth. `evofool targets show SPEC "
    "--layers` lists them.",
)
LAYERS = typer.Option(
    metavar="all|LAYER,LAYER", help="A picture for each of these layers, or for all blocks of the network, on one sheet."
)
GUIDE = typer.Option(metavar="IMAGE", help="Enhance what is most similar to this image's features.")
CHANNEL = typer.Option(min=0, help="Enhance one channel of the layer only.")
OCTAVES = typer.Option(
    min=1, help="Sizes, each 1.4 times the one before; by default as many as begin near a quarter of the target's size."
)
ITERATIONS = typer.Option(min=1, help="Steps at each size.")
SIZE = typer.Option(
    min=1, metavar="PIXELS", help=f"The longer side of the result; with --layers at most {_SHEET_SIZE} by default."
)
ZOOM = typer.Option(min=0, help="Further frames, each made from the centre of the one before, enlarged by 5%.")
ANIMATION = typer.Option(
    "--animation",
    "--gif",
    metavar="FILE",
    help="Write the frames of --zoom there as an animation: .gif, .png (animated) or .mp4, by the file's ending.",
)
OUT = typer.Option(metavar="DIR", help="Folder of the pictures; PHOTO-dream-LAYER or PHOTO-dream-layers by default.")


class _Job(NamedTuple):
    """What all pictures of one command share."""

    target: "Target"
    image: "np.ndarray"
    guide: "np.ndarray | None"
    settings: dict[str, Any]  # of DreamSettings
    channel: int | None
    seed: int

    def identity(self, layer: str | None) -> dict[str, str | int | float | None]:
        """All that determines the pictures; layer: None for pictures that are named by their layers."""
        s = self._settings(0, 0)
        return {
            "photograph": _digest(self.image),
            "target": self.target.fingerprint(),
            "guide": None if self.guide is None else _digest(self.guide),
            **({} if layer is None else {"layer": layer}),
            "channel": self.channel,
            "seed": self.seed,
            "octaves": s.octaves,
            "iterations": s.iterations,
            "scale": s.scale,
            "rate": s.rate,
            "jitter": s.jitter,
            "tile": s.tile,
            "zoom_by": s.zoom_by,
        }

    def frames(
        self, layer: str, on_progress: "Callable[[DreamProgress], bool]", earlier: "np.ndarray | None", begin: int, zoom: int
    ) -> "Iterator[np.ndarray]":
        """The frames from `begin` on; earlier: the one before. Errors of arguments are raised at once."""
        from evofool.explain.dream import dream

        return dream(
            self.target,
            self.image if earlier is None else earlier,
            layer,
            channel=self.channel,
            guide=self.guide,
            settings=self._settings(begin, zoom),
            seed=self.seed,
            on_progress=on_progress,
        )

    def _settings(self, begin: int, zoom: int) -> "DreamSettings":
        from evofool.explain.dream import DreamSettings

        return DreamSettings(**self.settings, begin=begin, zoom=zoom)


def dream(
    photo: Annotated[Path, PHOTO],
    target: Annotated[str, TARGET] = "efficientnet-lite0",
    layer: Annotated[str | None, LAYER] = None,
    layers: Annotated[str | None, LAYERS] = None,
    guide: Annotated[Path | None, GUIDE] = None,
    channel: Annotated[int | None, CHANNEL] = None,
    octaves: Annotated[int | None, OCTAVES] = None,
    iterations: Annotated[int, ITERATIONS] = 20,
    size: Annotated[int | None, SIZE] = None,
    zoom: Annotated[int, ZOOM] = 0,
    animation: Annotated[Path | None, ANIMATION] = None,
    out: Annotated[Path | None, OUT] = None,
    seed: Seed = 0,
    streams: Streams = 0,
) -> None:
    """Enhance in a photograph what a layer of a network responds to (DeepDream, Mordvintsev 2015).

    The whole photograph is changed, at its own size, in tiles where it is large; one of more than 24 million pixels is
    reduced to that. Each frame is written as soon as it is finished. After Ctrl-C the same command continues with the frame
    that was not. The same command gives the same pictures, bit by bit, on one kind of machine.
    """
    from evofool.ascend.hooks import layer_names, unknown_layer
    from evofool.cli.console import refuse_unwritable
    from evofool.errors import ImageError, TargetError
    from evofool.explain.cautions import warnings_of
    from evofool.explain.input_picture import read_photograph, read_picture
    from evofool.explain.layers import blocks, dream_layer
    from evofool.export.image_file import file_name
    from evofool.machine import keep_memory, torch_threads
    from evofool.pages.animation import refuse_animation
    from evofool.targets import target as load

    if layers is not None and (layer, guide, channel, animation, zoom) != (None, None, None, None, 0):
        raise TargetError(
            "--layers makes one picture of each layer; leave out --layer, --guide, --channel, --zoom and --gif"
        )
    if guide is not None and channel is not None:
        raise TargetError("--guide and --channel are two aims; give one of them")
    if animation is not None:
        if not zoom:
            raise ImageError(f"{animation}: an animation needs the frames of a zoom: --zoom 40")
        refuse_animation(animation)
        refuse_unwritable(animation)
    for file in filter(None, (photo, guide)):
        if not file.is_file():
            raise ImageError(f"there is no {file}: name an image file")
    network = load(target)
    image, change = read_photograph(photo, network.shape[0], size)
    if layers is not None and size is None and max(image.shape) > _SHEET_SIZE:
        image, change = read_photograph(photo, network.shape[0], _SHEET_SIZE)
    guiding, guide_change = (None, "") if guide is None else read_picture(guide, network)
    keep_memory()
    streams = streams or network.streams
    job = _Job(network, image, guiding, {"octaves": octaves, "iterations": iterations, "streams": streams}, channel, seed)
    for line in filter(None, (change, guide_change, *(f"Warning: {text}." for text in warnings_of(network)))):
        print_lines(line)
    # One thread a pass: results do not depend on the machine's cores, which pass several tiles at the same time.
    with torch_threads(1):
        if layers is not None:
            names = (
                blocks(network) if layers.strip() == _ALL else [name.strip() for name in layers.split(",") if name.strip()]
            )
            if not names:
                raise TargetError(f'--layers "{layers}" names no layer; --layers {_ALL} takes all blocks')
            for name in names:
                if name not in layer_names(network):
                    raise unknown_layer(network, name)
            _make_layers(job, names, out or photo.with_name(f"{photo.stem}-dream-layers"), photo.name)
            return
        chosen = layer if layer is not None else dream_layer(network)
        height, width = image.shape[1:]
        print_lines(f"Enhancing {chosen} of {network.name} in {photo.name}, {width} x {height} pixels")
        aim = "" if channel is None else f"-channel-{channel}"
        aim += "" if guide is None else f"-guide-{file_name(guide.stem)}"
        folder = out or photo.with_name(f"{photo.stem}-dream-{file_name(chosen)}{aim}")
        _make_frames(job, chosen, zoom, folder, animation)


def _make_frames(job: _Job, layer: str, zoom: int, path: Path, animation: Path | None) -> None:
    from evofool.explain.dream_folder import DreamFolder

    folder = DreamFolder(path, job.identity(layer))
    names = [f"frame-{k:04d}" for k in range(zoom + 1)]
    made = next((k for k, name in enumerate(names) if not folder.has(name)), len(names))
    if made < len(names):
        with _display() as show:
            earlier = folder.get(names[made - 1]) if made else None
            frames = job.frames(layer, lambda p: show(f"frame {p.frame + 1} of {p.frames}", p.share), earlier, made, zoom)
            folder.open()
            for k, frame in enumerate(frames, made):
                folder.add(names[k], frame)
    _end(folder, "frame", names, made)
    if animation is not None:
        _write_animation(folder, names, animation)


def _make_layers(job: _Job, layers: list[str], path: Path, photo: str) -> None:
    from evofool.explain.dream_folder import DreamFolder
    from evofool.export.image_file import file_name
    from evofool.images import save_picture
    from evofool.pages.sheet import Tile, contact_sheet

    folder = DreamFolder(path, job.identity(None))
    names = {layer: f"layer-{file_name(layer)}" for layer in layers}
    missing = [layer for layer, name in names.items() if not folder.has(name)]
    with _display() as show:
        folder.open()
        for number, layer in enumerate(missing):
            text, before = f"layer {number + 1} of {len(missing)}, {layer}", number / len(missing)
            for frame in job.frames(layer, partial(_show_part, show, text, before, len(missing)), None, 0, 0):
                folder.add(names[layer], frame)
            if not folder.has(names[layer]):
                break
    _end(folder, "layer", list(names.values()), len(names) - len(missing))
    tiles = [Tile(folder.get(name), layer) for layer, name in names.items()]
    sheet = folder.path / "layers.png"
    title = f"{photo}: what the layers of {job.target.name} respond to"
    save_picture(contact_sheet(tiles, tile=_SHEET_SIZE, title=title), sheet)
    print_lines(f"Sheet: {sheet}")


def _show_part(show: "_Show", text: str, before: float, parts: int, p: "DreamProgress") -> bool:
    return show(text, before + p.share / parts)


@contextmanager
def _display() -> "Iterator[_Show]":
    """A function that shows a text, the share that is done, 0 to 1, and the time left; True once the user wants to stop."""
    from evofool.cli.console import interrupts
    from evofool.printer import duration

    began = time.perf_counter()
    with interrupts("Stopping; the finished pictures are kept ...") as interrupted, status() as show_status:

        def show(text: str, share: float) -> bool:
            left = (time.perf_counter() - began) * (1 / share - 1)
            about = f", about {duration(left)} left" if share > 0.02 else ""
            show_status(lambda: f"{text}: {share:.0%} done{about}")
            return bool(interrupted)

        yield show


def _end(folder: "DreamFolder", noun: str, names: list[str], before: int) -> None:
    """Print how many pictures there are; exits with 130 if some are missing."""
    done = sum(map(folder.has, names))
    if done < len(names):
        print_lines(f"{done} of {len(names)} {noun}s are in {folder.path}; the same command continues")
        raise typer.Exit(130)
    earlier = f", {before} of them from before" if before else ""
    print_lines(f"{folder.file(names[0])}" if len(names) == 1 else f"{len(names)} {noun}s in {folder.path}{earlier}")


def _write_animation(folder: "DreamFolder", names: list[str], path: Path) -> None:
    from evofool.pages.animation import FRAME_SECONDS, write_animation

    width, height = write_animation(path, map(folder.get, names))
    megabytes = path.stat().st_size / 1e6
    print_lines(
        f"Animation: {path}, {len(names)} frames of {width} x {height}, {1 / FRAME_SECONDS:g} a second, {megabytes:.1f} MB"
    )


def _digest(image: "np.ndarray") -> str:
    return sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
