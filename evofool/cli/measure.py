"""The command `evofool measure`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np

    from evofool.image_metrics.metrics import ImageMetrics

RUN = typer.Argument(metavar="RUN", help="A run's folder; its search must not be going on.")
IMAGES = typer.Option(metavar="DIR|digits", help="Labelled real images of the target's classes.")
NETWORK = typer.Option(
    metavar="SPEC", help="Another classifier than the run's, to compare images by its features too (evofool targets list)."
)

_FAR = 95.0  # the percentile that noise has to reach for a space to tell it from real images


def measure(
    folder: Annotated[Path, RUN],
    images: Annotated[str, IMAGES],
    network: Annotated[str | None, NETWORK] = None,
) -> None:
    """How far are a run's elites from real images? Measures each one's picture, and keeps the figures in the run.

    The distance to the nearest real image, as a percentile of the same distance for held-out real images: by pixels, by HOG
    and, with --network, by the features of another classifier. And total variation: how much neighbouring pixels differ.
    Printed are medians, with those of noise and of real images beside them. The run's own classifier is not asked, and
    elites that were measured against the same images are passed over; figures against other real images are replaced.
    `evofool show --json` and --class tell each one's.
    """
    from evofool.bench.image_metrics_stage import measure_controls
    from evofool.bench.network_features import NetworkFeatures
    from evofool.bench.real import real_images
    from evofool.cli.console import status
    from evofool.errors import ImageError
    from evofool.image_metrics.metrics import MIN_REAL_IMAGES, ImageMetrics
    from evofool.machine import keep_memory, torch_threads
    from evofool.run.measure import measure_run, stale_references, stored_metrics, unloaded_target
    from evofool.run.stored import StoredRun
    from evofool.targets import target as load

    with StoredRun(folder) as stored:
        target = unloaded_target(stored)
    keep_memory()
    # One thread: the bits do not depend on the machine's cores.
    with torch_threads(1):
        features = None if network is None else NetworkFeatures(load(network))
        real = real_images(images, target)
        if len(real) < MIN_REAL_IMAGES:
            raise ImageError(
                f"{images}: {len(real)} real images, and percentiles among them need at least {MIN_REAL_IMAGES}"
            )
        try:
            with status() as show:
                say: Callable[[str], None] = lambda words: show(lambda: words)  # noqa: E731
                metrics = ImageMetrics.of(target, real, features=features, report=say)
                replaced = stale_references(folder, metrics)
                measured = measure_run(folder, metrics, say)
                controls = measure_controls(metrics)
        except KeyboardInterrupt:
            print("Interrupted; what was measured is kept, and the same command goes on from there")
            raise typer.Exit(130) from None
    print(f"{measured} elites of {folder} were measured now; {metrics.compared:,} real images of {images} to compare with")
    if replaced:
        others = "; ".join(
            f"{what['images']} ({what['reference']:,} and {what['held_out']:,} held out)" for what in _different(replaced)
        )
        print(f"Replaced were their figures against other real images: {others}")
    _print(stored_metrics([folder]), controls, metrics)


def _different(replaced: "Sequence[Mapping[str, Any]]") -> "list[Mapping[str, Any]]":
    """Each set of real images once: with the features of a network it is there again."""
    return list({(what["images"], what["reference"], what["held_out"]): what for what in replaced}.values())


def _print(
    elites: "Mapping[str, np.ndarray]", controls: "Mapping[str, Mapping[str, np.ndarray]]", metrics: "ImageMetrics"
) -> None:
    from rich.table import Table

    from evofool.bench.image_metrics_stage import quantiles_of
    from evofool.cli.console import table_console

    table = Table(box=None, pad_edge=False)
    table.add_column("median of")
    columns = {"elites": elites, **controls}
    for name in columns:
        table.add_column(name.replace("-", " "), justify="right")
    medians = [quantiles_of(figures, at=(50,)) for figures in columns.values()]
    for name in metrics.names:
        # A figure of another sitting may be there too; printed are those of this one.
        table.add_row(name.replace("_", " "), *(f"{one[name]['50']:.4g}" if name in one else "-" for one in medians))
    table_console().print(table)
    blunt = [name for name in metrics.references if min(one[name]["50"] for one in medians[1:3]) < _FAR]
    if blunt:
        print(
            f"\nNoise comes out near these real images too by {', '.join(name.replace('_', ' ') for name in blunt)}: what "
            "elites come to there says little."
        )
    features = "" if metrics.network else " By the features of another classifier they were not compared: --network SPEC."
    print(
        f"\nPercentile 100: at least as far from its nearest real image as each of {metrics.held_out:,} held-out real "
        f"images from its own.{features} None of these figures says whether people recognise an image; only people can tell "
        "(Zhou and Firestone 2019)."
    )
