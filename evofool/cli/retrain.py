"""The command `evofool bench retrain`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

ITERATIONS = typer.Option(min=1, max=1000, help="Networks in turn; each is attacked, and its fooling images train the next.")
REPEATS = typer.Option(min=1, max=1000, help="Independent repetitions of all of it, each from seeds of its own.")
DEFENCE = typer.Option(
    metavar="reject-class|outlier-exposure",
    help="What fooling images are to a network: a class of their own after the digits, as in the paper, or what it is to be "
    "unsure about.",
)
FOOLING_SHARE = typer.Option(help="Of the images that a network is shown, how many fool: they are repeated until it is so.")
SEARCHES = typer.Option(min=1, max=1000, help="Searches against each network.")
EVALUATIONS = typer.Option(min=1, help="Of each search.")
ENCODING = typer.Option(metavar="cppn|direct", help="What evolves: the shipped recipe mnist-cppn or mnist-direct.")
CHANGES = typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe of the searches: --set search.batch=200.")
SEED = typer.Option(min=0, help="Keys every draw.")
EPOCHS = typer.Option(min=1, max=10_000, help="Of training, for each network.")
OUT = typer.Option(
    metavar="DIR", help="Keeps every network and run; runs/retrain-DEFENCE unless given. Work begun there goes on."
)


def retrain(
    iterations: Annotated[int, ITERATIONS] = 5,
    repeats: Annotated[int, REPEATS] = 1,
    defence: Annotated[str, DEFENCE] = "reject-class",
    fooling_share: Annotated[float, FOOLING_SHARE] = 0.1,
    searches: Annotated[int, SEARCHES] = 3,
    evaluations: Annotated[int, EVALUATIONS] = 5_000,
    encoding: Annotated[str, ENCODING] = "cppn",
    changes: Annotated[list[str] | None, CHANGES] = None,
    seed: Annotated[int, SEED] = 0,
    epochs: Annotated[int, EPOCHS] = 36,
    out: Annotated[Path | None, OUT] = None,
) -> None:
    """Does training with fooling images help? Train a digit network, fool it, train again with what fooled it, and so on.

    The experiment of Nguyen 2015, section 3.5, on 2,500 digits; accuracy is that on 2,500 others. Each network begins from
    new weights. Minutes on one core. Every network and every search is kept, the latter as an ordinary run; retrain.json and
    retrain.png have the outcome. Ctrl-C, or a kill, loses at most the network that is being trained: the same command goes
    on, and may ask for more --iterations and --repeats.
    """
    from evofool.bench.retraining.analysis import results
    from evofool.bench.retraining.retrain_loop import RetrainingPlan, Stopped
    from evofool.bench.retraining.retrain_loop import retrain as work
    from evofool.cli.console import interrupts, status, write
    from evofool.pages.retrain_curve import retrain_curve

    plan = RetrainingPlan(
        iterations, repeats, defence, fooling_share, searches, evaluations, encoding, seed, epochs, tuple(changes or ())
    )
    folder = out or Path("runs") / f"retrain-{defence}"
    stopped = False
    with interrupts("Stopping; networks and searches that are done are kept ...") as interrupted, status() as say:
        try:
            work(plan, folder, lambda text: say(lambda: text) or bool(interrupted))
        except Stopped:
            stopped = True
    told = results(plan, folder)
    if told["iterations"]:
        show(told)
        plot = folder / "retrain.png"
        write(plot, lambda: plot.write_bytes(retrain_curve(told["iterations"], title(plan))))
        print(f"\nFigures: {folder / 'retrain.json'}\nCurve:   {plot}")
    if stopped:
        print("Stopped. The same command goes on.")
        raise typer.Exit(130)


def title(plan: Any) -> str:
    times = "" if plan.runs == 1 else f", {plan.runs} runs"
    return f"Retraining against fooling images: {plan.defence}, {plan.encoding}, {plan.evaluations:,} evaluations{times}"


def show(told: dict[str, Any]) -> None:
    from evofool.cli.console import table_console

    table_console().print(table(told["iterations"]))
    least = min(min(row["accuracy"]) for row in told["iterations"])
    networks = sum(len(row["accuracy"]) for row in told["iterations"])
    print(f"\nAccuracy on held-out real digits: at least {least:.4f} in all {networks} networks.")
    print("Confidence: median of each digit's best image, with the interval of that median; p: Mann-Whitney U, two-sided.")
    if any(len(row["runs"]) > 1 for row in told["iterations"]):
        print("Of images as in the paper, though those of one network depend on each other; of runs' medians, which do not.")
    print(f"Paper: {told['paper']}.")


def table(rows: list[dict[str, Any]]) -> "Table":
    """A line for each network in turn; of runs' medians there are columns where there are several."""
    from rich.table import Table

    several = any(len(row["runs"]) > 1 for row in rows)
    made = Table(box=None, pad_edge=False)
    heads = ["network", "accuracy", "real digits\nrejected", "fooling images\nshown", "confidence", "interval"]
    heads += ["p of images\nto the first", "to the one\nbefore"]
    heads += ["runs' median", "interval", "p of runs\nto the first"] if several else []
    for head in [*heads, "paper\n(recalled)"]:
        made.add_column(head, justify="right")
    for row in rows:
        images, of_runs = row["of_images"], row["of_runs"]
        cells = [
            str(row["iteration"]),
            spread(row["accuracy"], ".4f"),
            f"{sum(row['rejected']) / (len(row['runs']) * row['real_digits']):.2%}",
            spread(row["fooling_images"], ",d"),
            sure(row["median"]),
            interval(images),
            p_text(row["against_first"], "images"),
            p_text(row["against_before"], "images"),
        ]
        if several:
            cells += [sure(of_runs["median"]), interval(of_runs), p_text(row["against_first"], "runs")]
        recalled = row["paper_recalled"]
        made.add_row(*cells, "" if recalled is None else f"{recalled:.4f}")
    return made


def spread(values: list[Any], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} - {high}"


def sure(p: float) -> str:
    """A confidence with four digits, or as many more, up to seven, as it takes to tell it from 1."""
    digits = 4 if p <= 0 or p >= 1 else min(7, max(4, math.ceil(-math.log10(1 - p) - 1e-9) + 1))
    return f"{p:.{digits}f}"


def interval(told: dict[str, Any]) -> str:
    """With the confidence that it attains, where that is under 95%."""
    if told["low"] is None:
        return ""
    short = "" if told["confidence"] >= 0.95 else f" ({told['confidence']:.0%})"
    return f"{sure(told['low'])} - {sure(told['high'])}{short}"


def p_text(tests: dict[str, Any] | None, of: str) -> str:
    p = tests[of]["p"] if tests else None
    return "" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}"
