"""The command `evofool bench retrain`."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from evofool.cli.options import Seed
from evofool.printer import Table, print_lines, status

ITERATIONS = typer.Option(
    min=1, max=1000, help="The number of networks: each is attacked, and the next is trained with its fooling images."
)
REPEATS = typer.Option(min=1, max=1000, help="Independent repetitions of the experiment, with different seeds.")
DEFENCE = typer.Option(
    metavar="reject-class|outlier-exposure",
    help="How a network is trained with fooling images: as one more class after the digits, as in the paper, or as images "
    "on which it is trained to give uniform probabilities.",
)
FOOLING_SHARE = typer.Option(help="The share of fooling images in a network's training set; they are repeated to reach it.")
SEARCHES = typer.Option(min=1, max=1000, help="Searches against each network.")
EVALUATIONS = typer.Option(min=1, help="Evaluations of each search.")
ENCODING = typer.Option(
    metavar="cppn|direct", help="The encoding of the searches: the shipped recipe mnist-cppn or mnist-direct."
)
CHANGES = typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe of the searches: --set search.batch=200.")
EPOCHS = typer.Option(min=1, max=10_000, help="Training epochs of each network.")
OUT = typer.Option(
    metavar="DIR",
    help="Folder of the networks and runs; runs/retrain-DEFENCE by default. Work that was begun there is continued.",
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
    seed: Seed = 0,
    epochs: Annotated[int, EPOCHS] = 36,
    out: Annotated[Path | None, OUT] = None,
) -> None:
    """Train a digit network, fool it, train the next one with the fooling images, and so on (Nguyen 2015, section 3.5).

    Trains on 2,500 digits and measures accuracy on 2,500 others. Each network starts from new weights. Takes minutes on one
    core. Every network is kept, and every search as an ordinary run; retrain.json and retrain.png have the results. Ctrl-C
    or a kill loses at most the network in training: the same command continues, also with more --iterations and --repeats.
    """
    from evofool.bench.retraining.analysis import analyse
    from evofool.bench.retraining.retrain_loop import RetrainingPlan, Stopped
    from evofool.bench.retraining.retrain_loop import retrain as run_experiment
    from evofool.cli.console import interrupts
    from evofool.pages.retrain_curve import retrain_curve
    from evofool.whole_file import write_whole

    plan = RetrainingPlan(
        iterations, repeats, defence, fooling_share, searches, evaluations, encoding, seed, epochs, tuple(changes or ())
    )
    folder = out or Path("runs") / f"retrain-{defence}"
    stopped = False
    with interrupts("Stopping; finished networks and searches are kept ...") as interrupted, status() as show_status:
        try:
            run_experiment(plan, folder, lambda text: show_status(lambda: text) or bool(interrupted))
        except Stopped:
            stopped = True
    data = analyse(plan, folder)
    if data["iterations"]:
        show(data)
        plot = folder / "retrain.png"
        write_whole(plot, retrain_curve(data["iterations"], title(plan)))
        print_lines("", f"Figures: {folder / 'retrain.json'}", f"Curve:   {plot}")
    if stopped:
        print_lines("Stopped. The same command continues.")
        raise typer.Exit(130)


def title(plan: Any) -> str:
    times = "" if plan.repeats == 1 else f", {plan.repeats} repeats"
    return f"Retraining against fooling images: {plan.defence}, {plan.encoding}, {plan.evaluations:,} evaluations{times}"


def show(data: dict[str, Any]) -> None:
    table(data["iterations"]).print()
    least = min(min(row["accuracy"]) for row in data["iterations"])
    networks = sum(len(row["accuracy"]) for row in data["iterations"])
    print_lines("", f"Accuracy on held-out real digits: at least {least:.4f} in all {networks} networks.")
    print_lines(
        "Confidence: median of each digit's best image, with the interval of that median; p: Mann-Whitney U, two-sided."
    )
    if any(len(row["runs"]) > 1 for row in data["iterations"]):
        print_lines(
            "p: of images, as in the paper, although those of one network are not independent; and of runs' medians."
        )
    print_lines(f"Paper: {data['paper']}.")


def table(rows: list[dict[str, Any]]) -> Table:
    """A row for each network; with several runs also columns for the medians of runs."""
    several = any(len(row["runs"]) > 1 for row in rows)
    made = Table()
    heads = [
        ["network"],
        ["accuracy"],
        ["real digits", "rejected"],
        ["fooling images", "shown"],
        ["confidence"],
        ["interval"],
    ]
    heads += [["p of images", "to the first"], ["to the one", "before"]]
    heads += [["runs' median"], ["interval"], ["p of runs", "to the first"]] if several else []
    for head in [*heads, ["paper", "(recalled)"]]:
        made.column(*head, right=True)
    for row in rows:
        images, of_runs = row["of_images"], row["of_runs"]
        cells = [
            str(row["iteration"]),
            spread(row["accuracy"], ".4f"),
            f"{sum(row['rejected']) / (len(row['runs']) * row['real_digits']):.2%}",
            spread(row["fooling_images"], ",d"),
            confidence_text(row["median"]),
            interval(images),
            p_text(row["against_first"], "images"),
            p_text(row["against_before"], "images"),
        ]
        if several:
            cells += [confidence_text(of_runs["median"]), interval(of_runs), p_text(row["against_first"], "runs")]
        recalled = row["paper_recalled"]
        made.row(*cells, "" if recalled is None else f"{recalled:.4f}")
    return made


def spread(values: list[Any], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} - {high}"


def confidence_text(p: float) -> str:
    """A confidence with four decimals, or up to seven where fewer would round it to 1."""
    digits = 4 if p <= 0 or p >= 1 else min(7, max(4, math.ceil(-math.log10(1 - p) - 1e-9) + 1))
    return f"{p:.{digits}f}"


def interval(limits: dict[str, Any]) -> str:
    """An interval, with its confidence where that is under 95%."""
    if limits["low"] is None:
        return ""
    short = "" if limits["confidence"] >= 0.95 else f" ({limits['confidence']:.0%})"
    return f"{confidence_text(limits['low'])} - {confidence_text(limits['high'])}{short}"


def p_text(tests: dict[str, Any] | None, of: str) -> str:
    p = tests[of]["p"] if tests else None
    return "" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}"
