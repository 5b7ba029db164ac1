"""The group `evofool bench`: run (the default command) and compare; retrain is in a file of its own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from evofool.bench.interval import Interval, format_queries, format_ratio
from evofool.cli.retrain import retrain
from evofool.errors import RecipeError

if TYPE_CHECKING:
    from evofool.bench.bench import Progress
    from evofool.bench.plan import BenchRecipe


_FEW = 3  # targets of which all arms are printed


class _WithDefault(TyperGroup):
    """A group with a default command: `evofool bench bench-digits` is `evofool bench run bench-digits`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


bench = typer.Typer(
    cls=_WithDefault,
    no_args_is_help=True,
    help="""How well do classifiers resist fooling? Scores, controls and a report.

    evofool bench bench-digits                              a shipped benchmark
    evofool bench --target SPEC --images DIR                your classifier, your real images
    evofool bench compare A.json B.json                     two results, paired by seed
    evofool bench retrain                                   does training with fooling images help?
""",
)

WHAT = typer.Argument(
    metavar="[BENCH.toml]", help="A bench recipe's file, or a shipped one's name: bench-digits, bench-imagenet."
)
TARGETS = typer.Option("--target", metavar="SPEC", help="A classifier to measure (evofool targets list); may be repeated.")
IMAGES = typer.Option(metavar="DIR", help="Labelled real images, which thresholds are taken from; or: digits.")
ARMS = typer.Option(metavar="ARM,ARM", help="direct, cppn, per-class, random, square, nes, apgd, fourier, noise.")
BUDGET = typer.Option("--budget", metavar="N,N", help="Queries of all classes together, ascending: 1000,10000.")
SEEDS = typer.Option(min=1, help="How many seeds: 5 for a look, 10 or more for a claim.")
MINUTES = typer.Option(metavar="M", help="Instead of --budget: as many queries as are done in about so many minutes here.")
CHANGES = typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be repeated.")
OUT = typer.Option(metavar="DIR", help="Folder of the benchmark; runs/NAME unless given. One begun there goes on.")
WORKERS = typer.Option(
    min=0,
    help="Processes of Ray's that do cells side by side; 0: one cell after the other, here. Unless given: the recipe's "
    "number, or without a recipe one for each core (0 for an address). A black box's cells are always done one by one.",
)
RAY = typer.Option(metavar="local|auto|HOST:PORT", help="The Ray cluster to join; local starts one.")


@bench.command("run")
def run(
    what: Annotated[str | None, WHAT] = None,
    target: Annotated[list[str] | None, TARGETS] = None,
    images: Annotated[str | None, IMAGES] = None,
    arms: Annotated[str | None, ARMS] = None,
    budget: Annotated[str | None, BUDGET] = None,
    seeds: Annotated[int | None, SEEDS] = None,
    minutes: Annotated[float | None, MINUTES] = None,
    changes: Annotated[list[str] | None, CHANGES] = None,
    out: Annotated[Path | None, OUT] = None,
    workers: Annotated[int | None, WORKERS] = None,
    ray: Annotated[str | None, RAY] = None,
) -> None:
    """Measure how easily classifiers are fooled (default command).

    Every cell, a target, an arm and a seed, is an ordinary run below DIR/cells. At the end: DIR/report.html, a JSON for each
    target in DIR/results, DIR/summary.json and DIR/elites.parquet. Ctrl-C saves, and the same command goes on. Exits with 2
    if a target could not be measured. docs/protocol.md says what the figures mean.
    """
    from evofool.bench.bench import run_bench
    from evofool.cli.console import interrupts, status

    recipe = recipe_of(what, target, images, arms, budget, seeds, changes, workers, ray)
    folder = out or Path("runs") / recipe.name
    if minutes is not None:
        from evofool.bench.quick import with_budget

        if budget is not None:
            raise RecipeError("--minutes chooses the budget; give one of --minutes and --budget")
        recipe, words = with_budget(recipe, minutes, folder)
        if words:
            print(words)
    print(_said(recipe, folder), flush=True)
    ended = ""
    with interrupts("Saving what is under way ...") as interrupted, status() as show:

        def tell(p: "Progress") -> bool:
            nonlocal ended
            text = progress_text(p)
            if not p.cells or p.done < p.cells:
                show(lambda: text)
            elif text != ended:  # the end of a stage stays, however short that was
                print(ended := text, flush=True)
            return bool(interrupted)

        outcome = run_bench(recipe, folder, tell)
    if outcome.interrupted:
        print("Interrupted; what is done is saved. The same command goes on.")
        raise typer.Exit(130)
    print_outcome(outcome.results, outcome.summary)
    for note in outcome.notes:
        print(f"Note: {note}")
    print(f"Report:  {folder / 'report.html'}")
    print(f"Results: {folder / 'results'}")
    if not outcome.valid:
        bad = [name for name, one in outcome.results.items() if not one["valid"]]
        typer.echo(f"evofool: not valid, and left out of every figure: {', '.join(bad)}", err=True)
        raise typer.Exit(2)


bench.command("retrain")(retrain)


@bench.command("compare")
def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="A result of evofool bench.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Another one, of the same protocol.")],
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, exact numbers.")] = False,
) -> None:
    """Which of two is harder to fool? Q50 and R95 of each arm that both have, paired by seed."""
    from evofool.bench.compare import compare as compared
    from evofool.bench.json_file import read_json
    from evofool.run.stored import to_json

    told = compared(read_json(a), read_json(b))
    if as_json:
        print(to_json(told))
        return
    print(" against ".join(_names((told["a"], told["b"]), (a, b))))
    print("Q50 ratio: the first's over the second's; over 1 the first is harder to fool.")
    print("Difference of R95: the first's minus the second's; below 0 the first is harder to fool.")
    for arm, row in told["arms"].items():
        ratio, apart = _compared_text(row["q50_ratio"]), _apart_text(row["r95"])
        print(f"  {arm:<9}Q50 ratio {ratio}; difference of R95 at {row['queries']:,} {apart}")
    for note in told["notes"]:
        print(f"Note: {note}")


def _names(names: tuple[str, str], files: tuple[Path, Path]) -> tuple[str, str]:
    """The names of two results, with those of their files where they are the same."""
    if names[0] != names[1]:
        return names
    a, b = (file.name if files[0].name != files[1].name else str(file) for file in files)
    return f"{names[0]} ({a})", f"{names[1]} ({b})"


def _compared_text(told: dict[str, Any]) -> str:
    """The ratio of a row of compare, or why there is none."""
    if told["value"] is not None:
        return ratio_text(told)
    if told["number"] == 0:
        return "unknown (neither comes to half of the classes in any seed)"
    return "unbounded (either does not come to half of the classes in some seeds)"


def _apart_text(told: dict[str, Any]) -> str:
    limits = "" if told["low"] is None else f" [{told['low']:+.3f}, {told['high']:+.3f}]"
    return f"{told['value']:+.3f}{limits}"


def recipe_of(
    what: str | None,
    target: list[str] | None,
    images: str | None,
    arms: str | None,
    budget: str | None,
    seeds: int | None,
    changes: list[str] | None,
    workers: int | None,
    ray: str | None,
) -> "BenchRecipe":
    """The recipe that a command line asks for: a file's, with options laid over it, or one of options alone."""
    from evofool.bench.plan import load, parse
    from evofool.export.export import file_name
    from evofool.recipe import override

    given: dict[str, Any] = {}
    if images is not None:
        given["images"] = images
    if arms is not None:
        given["arms"] = [arm.strip() for arm in arms.split(",") if arm.strip()]
    if budget is not None:
        given["budgets"] = numbers(budget)
    for key, value in (("seeds", seeds), ("workers", workers), ("ray", ray)):
        if value is not None:
            given[key] = value
    more = [{"target": spec} for spec in target or ()]
    if what is None:
        if not more:
            raise RecipeError("what is to be measured? Name a bench recipe (bench-digits), or --target SPEC --images DIR")
        if images is None:
            raise RecipeError(
                "thresholds are taken from labelled real images of the target's classes: --images DIR (a folder for every "
                "class, or pictures named CLASS_anything.jpg); for digits: --images digits"
            )
        name = "bench-" + file_name((target or [""])[0].partition("?")[0]).lower()
        data = {"name": name, "targets": more, "workers": _beside(target or []), **given}
        return parse(override(data, changes or []), "the command line")
    recipe = load(what, changes or [])
    data = recipe.model_dump(mode="json", exclude_unset=True) | given
    data["targets"] = [*data["targets"], *more]
    return parse(data, what)


def _beside(specs: list[str]) -> int:
    """Workers where none are asked for: one for each processor, and none for what is asked over a network."""
    from evofool.machine import cpus

    return 0 if any(spec.startswith(("http://", "https://")) for spec in specs) or cpus() < 2 else cpus()


def numbers(text: str) -> list[int]:
    """Whole numbers out of "1000,10_000"."""
    parts = [part.strip().replace("_", "") for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise RecipeError(f'--budget "{text}" has to be whole numbers of queries, as in 1000,10000')
    return [int(part) for part in parts]


def progress_text(p: "Progress") -> str:
    """Where a benchmark is: cells done, their rate, and the time left."""
    from evofool.bench.report.formatting import counted
    from evofool.cli.console import duration

    if p.words and not p.cells:
        return p.words
    share, more = p.done_here + p.queries, p.cells - p.done - p.queries
    left = f", about {duration(more * p.seconds / share)} left" if share > 0.05 and more > 0 else ""
    under_way = f", {p.under_way} under way" if p.under_way and not p.words else ""
    of = f"{p.cells:,}" if p.words else counted(p.cells, "cell")
    return f"{f'{p.words}: ' if p.words else ''}{p.done:,} of {of} done{under_way}{left}"


def print_outcome(results: dict[str, Any], summary: dict[str, Any]) -> None:
    """The figures that a person wants first; of many targets the strongest arms alone, the report has the others."""
    from rich.table import Table

    from evofool.bench.report.formatting import format_share
    from evofool.bench.report.overview import brackets_note, budget_of, strongest, valid_arms
    from evofool.cli.console import table_console

    many = len(results) > _FEW
    table = Table(box=None, pad_edge=False)
    for head in ("target", "strongest arms" if many else "arm"):
        table.add_column(head, no_wrap=True)
    valid = [one for one in results.values() if one["valid"]]
    rivals = [rival for rival in ("per-class", "nes", "apgd") if any(one["scores"]["sharing"].get(rival) for one in valid)]
    for head in ("R95", "R50", "Q50 (queries)", *(f"Q50 / cppn's: {rival}" for rival in rivals)):
        table.add_column(head, justify="right", no_wrap=True)
    for name, one in results.items():
        if not one["valid"]:
            table.add_row(name, "INVALID")
            continue
        arms, budget = valid_arms(one), budget_of(one)
        sharing = [ratio_text(one["scores"]["sharing"].get(rival)) for rival in rivals]
        # The strongest of those that ask only, and of all: often the same.
        best = dict.fromkeys(arm for only in (True, False) if (arm := strongest(one, black_box=only)))
        for arm in best if many else arms:
            told = arms[arm]
            shares = [_text(told[level][-1], format_share) for level in ("r95", "r50")]
            table.add_row(name, arm, *shares, _text(told["q50"], format_queries, budget), *sharing)
            name, sharing = "", []
    table_console().print(table)
    budget = next(map(budget_of, results.values()))
    print(f"R95, R50: the share of classes accepted at tau_5, tau_50 after {budget:,} queries; Q50: queries until half are.")
    if rivals:
        print("Q50 / cppn's: of a rival, over that of cppn, whose classes share their images; over 1 the rival needs more.")
    print(brackets_note(list(results.values())))
    invalid = [
        (name, flag["message"]) for name, one in results.items() for flag in one["flags"] if flag["level"] == "invalid"
    ]
    warnings = [
        (name, flag["message"]) for name, one in results.items() for flag in one["flags"] if flag["level"] != "invalid"
    ]
    for name, what in invalid:
        print(f"INVALID {name}: {what}")
    for name, what in warnings if len(warnings) <= 2 * _FEW else ():
        print(f"Warning {name}: {what}")
    if len(warnings) > 2 * _FEW:
        print(f"{len(warnings)} warnings are in the report.")
    for said in summary.get("statements", ()):
        verdict = {True: "held", False: "MISSED", None: "open"}[said["held"]]
        print(f"{verdict:<7} {said['statement']}: {said['figures']}")


def ratio_text(told: dict[str, Any] | None) -> str:
    """A paired ratio with its interval."""
    return "-" if told is None else _text(told, format_ratio)


def _text(row: Mapping[str, Any], number: Callable[[float], str], budget: float | None = None) -> str:
    return " ".join(Interval.from_row(row).text(number, budget)).rstrip()


def _said(recipe: "BenchRecipe", folder: Path) -> str:
    from evofool.bench.report.formatting import counted
    from evofool.targets import billed

    targets = sum(part.copies for part in recipe.targets)
    cells = targets * len(recipe.arms) * recipe.seeds
    sizes = counted(targets, "target"), counted(len(recipe.arms), "arm"), counted(recipe.seeds, "seed")
    team = f"\n  workers      {recipe.workers}" if recipe.workers else ""
    if team and any(billed(part.target or "") for part in recipe.targets):
        team += ", and none for black boxes, whose cells are done one by one"
    return (
        f"Benchmark in {folder}: {' x '.join(sizes)} = {counted(cells, 'cell')} of "
        f"{recipe.budget:,} queries\n  arms         {', '.join(recipe.arms)}\n  real images  {recipe.images}{team}"
    )
