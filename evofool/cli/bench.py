"""The group `evofool bench`: run (the default command), show, compare; the others are in their own files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evofool.bench.interval import Interval, format_queries, format_ratio
from evofool.cli.board import board
from evofool.cli.options import RAY, AsJson, WithDefault
from evofool.cli.reject_class import reject_class
from evofool.cli.retrain import retrain
from evofool.errors import RecipeError
from evofool.printer import Table, print_json, print_lines
from evofool.text import whole_number

if TYPE_CHECKING:
    from evofool.bench.plan import BenchRecipe


_FEW = 3  # targets of which all arms are printed


bench = typer.Typer(
    cls=WithDefault,
    no_args_is_help=True,
    help="""Measure how well classifiers resist fooling: scores, controls and a report.

    evofool bench bench-digits                  a shipped benchmark
    evofool bench --target SPEC --images DIR    your classifier and your real images
    evofool bench show DIR                      how far each cell is
    evofool bench compare A.json B.json         two results, paired by seed
    evofool bench board RESULT...               a leaderboard, as a page
    evofool bench retrain                       training with fooling images
    evofool bench reject-class SPEC RUN         a class for fooling images, in an existing network
""",
)

BENCH = typer.Argument(
    metavar="BENCH.toml", help="The file of a bench recipe, or the name of a shipped one: bench-digits, bench-imagenet."
)
TARGETS = typer.Option("--target", metavar="SPEC", help="A classifier to measure (`evofool targets list`); may be repeated.")
IMAGES = typer.Option(metavar="DIR", help="Labelled real images that set the thresholds, or digits.")
ARMS = typer.Option(
    metavar="ARM,ARM",
    help="Attacks and controls: direct, cppn, canvas, latent, per-class, random, square, nes, surrogate, apgd, fourier, "
    "noise.",
)
SURROGATES = typer.Option(
    "--surrogate",
    metavar="SPEC",
    help="With the arm surrogate: another network than the target, whose gradients it climbs; may be repeated.",
)
BUDGET = typer.Option("--budget", metavar="N,N", help="Budgets in queries of all classes together, ascending: 1000,10000.")
SEEDS = typer.Option(min=1, help="The number of seeds: 5 for a first look, 10 or more for a claim.")
CLASSES = typer.Option(
    metavar="N", help="Attack and score so many classes, evenly spaced in the order of the labels, instead of all."
)
MINUTES = typer.Option(
    metavar="M",
    help="Instead of --budget: choose the budget that takes about this many minutes here. If the time is "
    "short, fewer classes, seeds and arms are measured, and it says so.",
)
CHANGES = typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be repeated.")
DETAILS = typer.Option("--details", help="Print all conditions of the headline, and known networks to compare it with.")
OUT = typer.Option(metavar="DIR", help="Folder of the benchmark; runs/NAME by default. One begun there is continued.")
WORKERS = typer.Option(
    min=0,
    help="Run cells in parallel in this number of Ray processes; 0: one after the other, in this process. By default the "
    "recipe's number, or without a recipe one per core. Cells of a black box always run one after the other.",
)


@bench.command("run")
def run(
    bench_recipe: Annotated[str | None, BENCH] = None,
    target: Annotated[list[str] | None, TARGETS] = None,
    images: Annotated[str | None, IMAGES] = None,
    arms: Annotated[str | None, ARMS] = None,
    surrogate: Annotated[list[str] | None, SURROGATES] = None,
    budget: Annotated[str | None, BUDGET] = None,
    seeds: Annotated[int | None, SEEDS] = None,
    classes: Annotated[int | None, CLASSES] = None,
    minutes: Annotated[float | None, MINUTES] = None,
    changes: Annotated[list[str] | None, CHANGES] = None,
    out: Annotated[Path | None, OUT] = None,
    workers: Annotated[int | None, WORKERS] = None,
    ray: Annotated[str | None, RAY] = None,
    details: Annotated[bool, DETAILS] = False,
) -> None:
    """Measure how easily classifiers are fooled (default command).

    An arm is an attack or a control, such as noise. A cell is a target, an arm and a seed, and is an ordinary run in
    DIR/cells. The results are DIR/report.html with more pages and pictures in DIR/report, a JSON file
    for each target in DIR/results, DIR/summary.json and DIR/elites.parquet. Ctrl-C saves, and the same command continues.
    Exits with 2 if a target could not be measured. docs/protocol.md explains the scores.
    """
    from evofool.bench.bench import run_bench
    from evofool.cli.console_jobs import work_display

    options = given_options(images, arms, budget, seeds, workers, ray)
    if classes is not None:
        options["classes"] = classes
    recipe = recipe_of(bench_recipe, target or [], options, changes or [], surrogate or [])
    folder = out or Path("runs") / recipe.name
    if minutes is not None:
        from evofool.bench.time_budget import with_budget

        if budget is not None:
            raise RecipeError("--minutes chooses the budget; give one of --minutes and --budget")
        recipe, note = with_budget(recipe, minutes, folder)
        if note:
            print_lines(note)
    print_lines(*_opening_lines(recipe, folder))
    with work_display("cell") as on_progress:
        outcome = run_bench(recipe, folder, on_progress)
    if outcome.interrupted:
        print_lines("Interrupted; finished cells are saved. The same command continues.")
        raise typer.Exit(130)
    print_outcome(outcome.results, outcome.summary, details)
    for note in outcome.notes:
        print_lines(f"Note: {note}")
    print_lines(f"Report:  {folder / 'report.html'}")
    print_lines(f"Results: {folder / 'results'}")
    if not outcome.valid:
        bad = [name for name, result in outcome.results.items() if not result["valid"]]
        print_lines(f"evofool: these targets are invalid and left out of all scores: {', '.join(bad)}", error=True)
        raise typer.Exit(2)


bench.command("board")(board)
bench.command("retrain")(retrain)
bench.command("reject-class")(reject_class)


@bench.command("show")
def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a benchmark.")], as_json: AsJson = False
) -> None:
    """Show how far each cell of a benchmark is, also while it goes on in another process, and after that was killed.

    For each cell: whether it waits, runs (on which machine, queries per second, time left), is done, or failed and why.
    """
    from evofool.cli.console_jobs import show_jobs

    show_jobs(folder, as_json)


@bench.command("compare")
def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="A result of evofool bench.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Another result, by the same protocol.")],
    as_json: AsJson = False,
) -> None:
    """Compare two results, by the arms that both have, paired by seed: which target is harder to fool?

    Prints the ratio of Q50, the queries until half of the classes are fooled, and the difference of R95, the share of
    classes fooled at 95% acceptance (the threshold that 95% of real images pass).
    """
    from evofool.bench.compare import compare as compare_results
    from evofool.bench.result_file import load_result

    comparison = compare_results(load_result(a), load_result(b))
    if as_json:
        print_json(comparison)
        return
    print_lines(" against ".join(_names((comparison["a"], comparison["b"]), (a, b))))
    print_lines("Q50 ratio: first over second; above 1 the first is harder to fool.")
    print_lines(
        "Difference of the share fooled at 95% acceptance (R95): first minus second; below 0 the first is harder to fool."
    )
    for arm, row in comparison["arms"].items():
        ratio, difference = _ratio_or_reason(row["q50_ratio"]), _difference_text(row["r95"])
        print_lines(f"  {arm:<9}Q50 ratio {ratio}; difference of R95 at {row['queries']:,} queries {difference}")
    for note in comparison["notes"]:
        print_lines(f"Note: {note}")


def _names(names: tuple[str, str], files: tuple[Path, Path]) -> tuple[str, str]:
    """The names of two results; with the names of their files if the results have the same name."""
    if names[0] != names[1]:
        return names
    a, b = (file.name if files[0].name != files[1].name else str(file) for file in files)
    return f"{names[0]} ({a})", f"{names[1]} ({b})"


def _ratio_or_reason(row: dict[str, Any]) -> str:
    """The ratio of a row of the comparison, or the reason that there is none."""
    if row["value"] is not None:
        return ratio_text(row)
    if row["number"] == 0:
        return "unknown (neither reaches half of the classes in any seed)"
    return "unbounded (one of them does not reach half of the classes in some seeds)"


def _difference_text(row: dict[str, Any]) -> str:
    limits = "" if row["low"] is None else f" [{row['low']:+.3f}, {row['high']:+.3f}]"
    return f"{row['value']:+.3f}{limits}"


def given_options(
    images: str | None, arms: str | None, budget: str | None, seeds: int | None, workers: int | None, ray: str | None
) -> dict[str, Any]:
    """The keys of a bench recipe that the options of the command set."""
    options: dict[str, Any] = {"images": images, "seeds": seeds, "workers": workers}
    if arms is not None:
        options["arms"] = [arm.strip() for arm in arms.split(",") if arm.strip()]
    if budget is not None:
        options["budgets"] = numbers(budget)
    if ray is not None:
        options["ray"] = {"address": ray}
    return {key: value for key, value in options.items() if value is not None}


def recipe_of(
    bench_recipe: str | None,
    targets: Sequence[str],
    options: Mapping[str, Any],
    changes: Sequence[str],
    surrogates: Sequence[str] = (),
) -> "BenchRecipe":
    """The recipe of a file or a shipped name, with options, targets and surrogates added; without one, of these alone."""
    from evofool.bench.plan import load, parse
    from evofool.export.image_file import file_name
    from evofool.recipe import override

    named = [{"target": spec} for spec in targets]
    if bench_recipe is None:
        if not named:
            raise RecipeError("nothing to measure: name a bench recipe (bench-digits), or --target SPEC --images DIR")
        if "images" not in options:
            raise RecipeError(
                "the thresholds need labelled real images of the target's classes: --images DIR (one folder per class, or "
                "files named CLASS_anything.jpg); for digits: --images digits"
            )
        name = "bench-" + file_name(targets[0].partition("?")[0]).lower()
        data = {"name": name, "targets": named, "surrogates": surrogates, "workers": _default_workers(targets), **options}
        return parse(override(data, changes), "the command line")
    recipe = load(bench_recipe, changes)
    data = recipe.model_dump(mode="json", exclude_unset=True) | dict(options)
    if "ray" in options:
        data["ray"] = recipe.ray.model_dump(mode="json", exclude_unset=True) | options["ray"]
    data["targets"] = [*data["targets"], *named]
    data["surrogates"] = [*data.get("surrogates", ()), *surrogates]
    return parse(data, bench_recipe)


def _default_workers(specs: Sequence[str]) -> int:
    """The default number of workers: one per processor, and none if a target is a black box."""
    from evofool.machine import cpus
    from evofool.targets import is_black_box

    return 0 if any(map(is_black_box, specs)) or cpus() < 2 else cpus()


def numbers(text: str) -> list[int]:
    """The whole numbers in "1000,10_000"."""
    found = [whole_number(part.strip().replace("_", "")) for part in text.split(",")]
    if None in found:
        raise RecipeError(f'--budget "{text}" has to be whole numbers of queries, as in 1000,10000')
    return [number for number in found if number is not None]


def _headlines(results: Mapping[str, Mapping[str, Any]], details: bool) -> list[str]:
    """The headline of each target, and what it means by fooled."""
    from evofool.bench.headline import FOOLED, headline_details, headline_lines
    from evofool.bench.reference import reference_sentence

    if details:
        known = dict.fromkeys(text for result in results.values() if (text := reference_sentence(result)))
        return [*(f"{name}: {headline_details(result)}" for name, result in results.items()), *known]
    lines = []
    for name, result in results.items():
        first, *more = headline_lines(result)
        lines += [f"{name}: {first}", *(f"  {line}" for line in more)]
    measured = any(result["valid"] and result["scores"].get("headline") for result in results.values())
    return [*lines, *([f"  {FOOLED} More: --details, or the report."] if measured else [])]


def print_outcome(results: dict[str, Any], summary: dict[str, Any], details: bool = False) -> None:
    """Print the headline of each target, then the main scores; of many targets only those of the strongest arms."""
    from evofool.bench.arms import arm_title
    from evofool.bench.report.formatting import MET, format_share
    from evofool.bench.report.overview import brackets_note, budget_of, strongest, valid_arms

    print_lines(*_headlines(results, details))
    many = len(results) > _FEW
    table = Table()
    for head in ("target", "strongest arms" if many else "arm"):
        table.column(head, no_wrap=True)
    ratios = [result["scores"]["sharing"] for result in results.values() if result["valid"]]
    compared = [arm for arm in ("per-class", "nes", "apgd") if any(ratio.get(arm) for ratio in ratios)]
    for lines in (("fooled at 95%", "acceptance"), ("fooled at 50%", "(stricter)"), ("Q50", "(queries)")):
        table.column(*lines, right=True, no_wrap=True)
    for name, result in results.items():
        if not result["valid"]:
            table.row(name, "INVALID")
            continue
        arms, budget = valid_arms(result), budget_of(result)
        # The strongest black-box arm and the strongest arm, which are often the same.
        best = dict.fromkeys(arm for only in (True, False) if (arm := strongest(result, black_box=only)))
        for arm in best if many else arms:
            scores = arms[arm]
            fooled = [_text(scores[level][-1], format_share) for level in ("r95", "r50")]
            table.row(name, arm_title(arm, scores), *fooled, _text(scores["q50"], format_queries, budget))
            name = ""
    table.print()
    budget = next(map(budget_of, results.values()))
    print_lines(
        f"Fooled at 95% acceptance (R95), at 50% (R50): the share of classes with an image above the threshold that 95% "
        f"(tau_5) or 50% (tau_50, stricter) of real images pass, after {budget:,} queries. Q50: queries until half of the "
        "classes are fooled at 95% acceptance."
    )
    if compared:
        print_lines(
            "Ratios of Q50 to that of cppn, whose classes share images; above 1 the arm needs more queries than cppn:"
        )
        for name, result in results.items():
            if result["valid"]:
                sharing = result["scores"]["sharing"]
                print_lines(f"  {name}: " + "; ".join(f"{arm} / cppn {ratio_text(sharing.get(arm))}" for arm in compared))
    print_lines(*_surrogate_lines(results))
    print_lines(brackets_note(list(results.values())))
    invalid = [
        (name, flag["message"]) for name, result in results.items() for flag in result["flags"] if flag["level"] == "invalid"
    ]
    warnings = [
        (name, flag["message"]) for name, result in results.items() for flag in result["flags"] if flag["level"] != "invalid"
    ]
    for name, message in invalid:
        print_lines(f"INVALID {name}: {message}")
    for name, message in warnings if len(warnings) <= 2 * _FEW else ():
        print_lines(f"Warning {name}: {message}")
    if len(warnings) > 2 * _FEW:
        print_lines(f"{len(warnings)} warnings are in the report.")
    for row in summary.get("statements", ()):
        print_lines(f"{MET[row['met']]:<9} {row['statement']}: {row['figures']}")


def _surrogate_lines(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the arm surrogate climbed, and how near these networks are to each target."""
    from evofool.bench.report.formatting import format_share, join_names

    lines = []
    for name, result in results.items():
        listed = [f"{row['name']} ({format_share(row['agreement'])})" for row in result.get("surrogates", ())]
        if listed:
            lines.append(f"  {name}: {join_names(listed)}")
    head = "Surrogates, whose weights the arm surrogate has (share of real images on which each agrees with the target):"
    return [head, *lines] if lines else []


def ratio_text(row: dict[str, Any] | None) -> str:
    """A paired ratio with its interval."""
    return "-" if row is None else _text(row, format_ratio)


def _text(row: Mapping[str, Any], number: Callable[[float], str], budget: float | None = None) -> str:
    return " ".join(Interval.from_row(row).text(number, budget)).rstrip()


def _opening_lines(recipe: "BenchRecipe", folder: Path) -> list[str]:
    from evofool.bench.report.formatting import counted
    from evofool.targets import is_black_box

    targets = sum(part.copies for part in recipe.targets)
    cells = targets * len(recipe.arms) * recipe.seeds
    sizes = counted(targets, "target"), counted(len(recipe.arms), "arm"), counted(recipe.seeds, "seed")
    lines = [
        f"Benchmark in {folder}: {' x '.join(sizes)} = {counted(cells, 'cell')} of {recipe.budget:,} queries",
        f"  arms         {', '.join(recipe.arms)}",
        f"  real images  {recipe.images}",
    ]
    if recipe.classes is not None:
        lines.append(f"  classes      at most {recipe.classes:,}, evenly spaced in the order of the labels")
    if recipe.surrogates:
        lines.append(f"  surrogates   {', '.join(recipe.surrogates)}")
    if recipe.workers:
        black_box = any(is_black_box(part.target or "") for part in recipe.targets)
        limit = ", but none for black boxes, whose cells run one after the other" if black_box else ""
        lines.append(f"  workers      {recipe.workers}{limit}")
    return lines
