"""The command `evofool measure`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evofool.cli.options import AsJson, Trust
from evofool.printer import Table, print_lines, status

if TYPE_CHECKING:
    import numpy as np

    from evofool.image_metrics.metrics import ImageMetrics

RUN = typer.Argument(metavar="RUN", help="A run's folder; its search must not be running.")
IMAGES = typer.Option(metavar="DIR|digits", help="Labelled real images of the target's classes, or digits.")
THROUGH = typer.Option(
    metavar="PIPELINES",
    help="What is done to an image before a deployed classifier sees it: jpeg:75,resize:160+shift:2 (docs/through.md).",
)
NETWORK = typer.Option(
    metavar="SPEC", help="Another classifier, to compare images by its features too (see `evofool targets list`)."
)

_NONE_SHAPED = "None is shaped like its class by this measure, which grain and strong stripes deceive; people may see more."
_FAR = 95.0  # noise below this percentile is near real images in that space


def measure(
    folder: Annotated[Path, RUN],
    images: Annotated[str | None, IMAGES] = None,
    network: Annotated[str | None, NETWORK] = None,
    through: Annotated[str | None, THROUGH] = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Measure how far a run's elites are from real images, or (--through) whether they fool the target behind a pipeline.

    With --images, results are stored in the run.

    Measures the distance to the nearest real image, as a percentile of the same distance for held-out real images: by
    pixels, by HOG and, with --network, by the features of another classifier; and total variation, the mean difference of
    neighbouring pixels. With digits also the HOG distance to the nearest digit of the elite's own class, both cropped and
    centred. Prints medians, with those of noise and of real images for comparison. The run's own classifier is
    not used. Elites that were measured with the same real images are skipped; results with other real images are replaced.
    `evofool show` has each elite's results, with --json or --class.

    With --through, asks the run's classifier about its elites as each pipeline of a list delivers them (a comma separates
    pipelines, a plus the steps of one), and prints how many keep their class, and a confidence of 0.9 and 0.99. Nothing is
    stored but the answers of a black box, whose requests are counted.
    """
    from evofool.errors import EvofoolError

    if images is not None and through is not None:
        raise EvofoolError(f"{folder}: give only one of --images and --through")
    if images is None and through is None:
        raise EvofoolError(f"{folder}: give --images, to compare with real images, or --through, for pipelines")
    if through is not None:
        if network is not None:
            raise EvofoolError("--network compares with real images, and is for --images")
        from evofool.cli.measure_through import measure_through

        measure_through(folder, through, trust, as_json)
    elif images is not None:
        if as_json:
            raise EvofoolError("--json is for --through; with --images, `evofool show --json` has the results of each elite")
        _measure_real(folder, images, network)


def _measure_real(folder: Path, images: str, network: str | None) -> None:
    import numpy as np

    from evofool.bench.image_metrics_stage import measure_controls
    from evofool.bench.network_features import NetworkFeatures
    from evofool.bench.real import DIGITS, real_images
    from evofool.errors import ImageError
    from evofool.image_metrics.metrics import MIN_REAL_IMAGES, ImageMetrics
    from evofool.image_metrics.names import HAS_OWN_SHAPE
    from evofool.image_metrics.own_shape import OwnShape
    from evofool.machine import keep_memory, torch_threads
    from evofool.run.measure import measure_run, metrics_of, stale_references, stored_metrics, unloaded_target
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
            with status() as show_status:
                report: Callable[[str], None] = lambda text: show_status(lambda: text)  # noqa: E731
                metrics = ImageMetrics.of(target, real, features=features, report=report)
                own_shape = None
                if images == DIGITS and real.source == DIGITS:
                    own_shape = OwnShape(real.some(np.arange(len(real))), real.classes, metrics.held_out_rows)
                replaced = stale_references(folder, metrics)
                measured = measure_run(folder, metrics, report, own_shape)
                controls = measure_controls(metrics)
        except KeyboardInterrupt:
            print_lines("Interrupted; the elites that were measured are stored, and the same command continues from there")
            raise typer.Exit(130) from None
    print_lines(f"{measured} elites of {folder} measured, by comparison with {metrics.compared:,} real images of {images}")
    if replaced:
        others = "; ".join(
            f"{reference['images']} ({reference['reference']:,} and {reference['held_out']:,} held out)"
            for reference in _different(replaced)
        )
        print_lines(f"Results with other real images were replaced: {others}")
    with StoredRun(folder) as stored:
        shaped = own_shape and [elite.label for elite in stored.listed() if metrics_of(elite.row).get(HAS_OWN_SHAPE)]
    _print(stored_metrics([folder]), controls, metrics)
    if shaped is not None:
        print_lines("", f"Shaped like their class: {', '.join(shaped)}." if shaped else _NONE_SHAPED)


def _different(replaced: "Sequence[Mapping[str, Any]]") -> "list[Mapping[str, Any]]":
    """Each set of real images once: the features of a network are an entry of their own for the same images."""
    return list({(r["images"], r["reference"], r["held_out"]): r for r in replaced}.values())


def _shown(name: str) -> str:
    """A metric's name in words: "nearest_real_hog_percentile" is "HOG distance to the nearest real image, percentile"."""
    if name == "nearest_own_shape_percentile":
        return "HOG distance to the nearest real image of its class, both cropped and centred, percentile"
    space = name.removeprefix("nearest_real_").removesuffix("_percentile")
    if space == name:
        return name.replace("_", " ")
    kind = {"pixels": "pixel", "hog": "HOG", "features": "feature"}[space]
    return f"{kind} distance to the nearest real image, percentile"


def _print(
    elites: "Mapping[str, np.ndarray]", controls: "Mapping[str, Mapping[str, np.ndarray]]", metrics: "ImageMetrics"
) -> None:
    from evofool.bench.image_metrics_stage import quantiles_of
    from evofool.image_metrics.names import OWN_SHAPE

    table = Table()
    table.column("median of")
    columns = {"elites": elites, **controls}
    for name in columns:
        table.column(name.replace("-", " "), right=True)
    medians = [quantiles_of(figures, at=(50,)) for figures in columns.values()]
    own = [OWN_SHAPE] if OWN_SHAPE in elites else []
    for name in (*metrics.names, *own):
        # The run may have metrics of an earlier measurement too, which are not printed.
        table.row(_shown(name), *(f"{column[name]['50']:.4g}" if name in column else "-" for column in medians))
    table.print()
    blunt = [name for name in metrics.references if min(noise[name]["50"] for noise in medians[1:3]) < _FAR]
    if blunt:
        print_lines(
            "",
            f"Noise is near these real images too by {', '.join(map(_shown, blunt))}, so the "
            "values of elites mean little there.",
        )
    features = "" if metrics.network else " The features of another classifier were not compared: --network SPEC."
    print_lines(
        "",
        f"Percentile 100: at least as far from its nearest real image as all {metrics.held_out:,} held-out real images "
        f"are from theirs.{features} None of these values shows whether people recognise an image: `evofool quiz` asks "
        "them.",
    )
