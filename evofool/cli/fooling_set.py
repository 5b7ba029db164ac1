"""The group `evofool set`: build a set of fooling images, compare two versions, take a sample."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evofool.cli.options import RAY, AsJson
from evofool.printer import Table, print_json, print_lines

if TYPE_CHECKING:
    from evofool.fooling_set.diff import SetDiff

_SHOWN = 5  # ids of images that are printed

fooling_set = typer.Typer(
    no_args_is_help=True,
    help="""Build sets of fooling images: several classifiers, encodings, attacks and seeds in one data set.

    evofool set build set-1 --out DIR    the shipped recipe; the set is DIR/set
    evofool set diff A B                 what differs between two versions
    evofool set sample SET --out DIR     a small part of a set
""",
)

RECIPE = typer.Argument(metavar="SET.toml", help="The file of a set's recipe, or the name of a shipped one: set-1.")
OUT = typer.Option(metavar="DIR", help="Where to build; runs/NAME by default. A build begun there is continued.")
TARGETS = typer.Option("--target", metavar="GROUP=SPEC", help="One more classifier in a group; may be repeated.")
REAL = typer.Option(
    "--images",
    metavar="GROUP=DIR",
    help="Labelled real images that a group's images are compared with, or digits; may be repeated.",
)
CHANGES = typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be repeated.")
MADE_FOR = typer.Option("--classifier", metavar="NAME", help="Only images made for this classifier; may be repeated.")
WORKERS = typer.Option(
    min=0, help="Run cells in parallel in this number of Ray processes; 0: one after the other. The recipe's by default."
)


@fooling_set.command("build")
def build(
    recipe: Annotated[str, RECIPE],
    out: Annotated[Path | None, OUT] = None,
    target: Annotated[list[str] | None, TARGETS] = None,
    images: Annotated[list[str] | None, REAL] = None,
    changes: Annotated[list[str] | None, CHANGES] = None,
    workers: Annotated[int | None, WORKERS] = None,
    ray: Annotated[str | None, RAY] = None,
) -> None:
    """Build a set of fooling images: every classifier, encoding or attack, and seed, with the answers of all classifiers.

    DIR/set is the set: Parquet, ImageFolder and WebDataset, metadata in the format Croissant, and a data card. What lies
    beside it, networks, runs and answers, is only needed to go on. Ctrl-C saves, and the same command continues.
    docs/fooling-set.md explains columns and recipe.
    """
    from evofool.bench.report.formatting import counted
    from evofool.cli.console_jobs import work_display
    from evofool.fooling_set.build import build_set
    from evofool.fooling_set.recipe import load, parse, with_more

    loaded = with_more(load(recipe, changes or []), target or [], images or [])
    options: dict[str, Any] = {key: value for key, value in {"workers": workers}.items() if value is not None}
    if ray is not None:
        options["ray"] = loaded.ray.model_dump(mode="json", exclude_unset=True) | {"address": ray}
    if options:
        own = loaded.model_dump(mode="json", exclude_unset=True) | {"name": loaded.name}
        loaded = parse(own | options, "the command line")
    folder = out or Path("runs") / loaded.name
    with work_display("cell") as on_progress:
        outcome = build_set(loaded, folder, on_progress)
    if outcome.index is None:
        print_lines("Interrupted; what is done is saved. The same command continues.")
        raise typer.Exit(130)
    index = outcome.index
    made, of = counted(index.images, "image"), counted(len(index.classifiers), "classifier")
    print_lines(
        f"{index.name} {index.version}: {made} of {of}, "
        f"{(index.png_bytes + index.genome_bytes) / 1e6:.1f} MB of images and genomes",
        f"Set:       {outcome.folder}",
        f"Data card: {outcome.folder / 'README.md'}",
    )


@fooling_set.command("sample")
def sample(
    folder: Annotated[Path, typer.Argument(metavar="SET", help="The folder of a set.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the sample, a set too.")],
    images: Annotated[int, typer.Option(min=1, help="The most images of each classifier and arm.")] = 1,
    classifier: Annotated[list[str] | None, MADE_FOR] = None,
) -> None:
    """Write a small part of a set as a set: some images of each classifier and arm, with the answers of all classifiers."""
    from evofool.fooling_set.sample import sample as write_sample

    index = write_sample(folder, out, images, classifier or ())
    total = sum(of["bytes"] for of in index.files.values())
    print_lines(f"{index.images:,} images written to {out}; the table, shards and decoders have {total / 1e6:.1f} MB")


@fooling_set.command("diff")
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="The folder of a set.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The folder of another version.")],
    as_json: AsJson = False,
) -> None:
    """Compare two versions of a set: images added, removed and changed, classifiers, and answers that differ.

    Images are compared by their ids and their bytes, answers of the images that are the same in both. Exits with 1 if
    anything differs.
    """
    from evofool.fooling_set.diff import diff as compare

    found = compare(a, b)
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)
    if not found.same:
        raise typer.Exit(1)


def _print(found: "SetDiff") -> None:
    print_lines(f"{found.versions[0]} to {found.versions[1]}: {found.unchanged:,} images unchanged")
    for what, names in (
        ("classifiers added", found.added_classifiers),
        ("classifiers removed", found.removed_classifiers),
        ("classifiers changed (other weights, labels or preprocessing)", found.changed_classifiers),
        ("images added", found.added),
        ("images removed", found.removed),
        ("images changed", found.changed),
    ):
        if names:
            more = ", ..." if len(names) > _SHOWN else ""
            print_lines(f"{len(names):,} {what}: {', '.join(names[:_SHOWN])}{more}")
    table = Table()
    table.column("answers of")
    for head in ("images", "other prediction", "other log-odds", "by at most"):
        table.column(head, right=True)
    for name, of in found.answers.items():
        if of.predicted or of.log_odds:
            largest = "-" if of.largest is None else f"{of.largest:.3g}"
            table.row(name, f"{of.images:,}", f"{of.predicted:,}", f"{of.log_odds:,}", largest)
    if any(of.predicted or of.log_odds for of in found.answers.values()):
        table.print()
    else:
        print_lines("All answers to unchanged images are the same.")
