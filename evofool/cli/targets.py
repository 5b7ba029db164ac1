"""The commands about targets: `evofool targets list|show|check|serve`."""

from pathlib import Path
from typing import Annotated

import typer

targets = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Which classifiers can be named, what one is, and whether it can be trusted.",
)

SPEC = typer.Argument(
    metavar="SPEC", help="A target: lenet, efficientnet-lite0, onnx:FILE, http://... (evofool targets list has them all)."
)
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable, exact numbers.")]


@targets.command("list")
def list_(as_json: AsJson = False) -> None:
    """The kinds of targets, how each is written, and whether what it needs is installed."""
    from evofool.cli.console_targets import kinds, print_kinds
    from evofool.run.stored import to_json

    if as_json:
        print(to_json(kinds()))
    else:
        print_kinds(kinds())


@targets.command()
def show(spec: Annotated[str, SPEC], as_json: AsJson = False) -> None:
    """Load a target and say what was resolved: preprocessing, weights and their SHA-256, device, number formats."""
    from evofool.cli.console_targets import print_target
    from evofool.run.stored import to_json
    from evofool.targets import target
    from evofool.targets.validation import describe

    told = describe(target(spec))
    if as_json:
        print(to_json(told))
    else:
        print_target(told)


@targets.command()
def check(
    spec: Annotated[str, SPEC],
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Labelled photographs: a sub-folder for every class, or files named CLASS_anything.jpg."
        ),
    ] = None,
    published: Annotated[
        float | None,
        typer.Option(help="The top-1 accuracy that it should have, 0.751 for 75.1%; known by itself for published weights."),
    ] = None,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Measure images/s in every number format.")] = True,
    as_json: AsJson = False,
) -> None:
    """Ask a target whether it answers as a classifier does, how well it does on photographs, and how fast.

    Exits with 1 and says what to check if anything is off. A run makes the cheap part of it by itself.
    """
    import sys
    from dataclasses import asdict

    from evofool.cli.console_targets import print_report
    from evofool.errors import VerifyError
    from evofool.run.stored import to_json
    from evofool.targets import target
    from evofool.targets.validation import check as ask

    report = ask(target(spec), images, published, speed, lambda line: print(line, file=sys.stderr, flush=True))
    if as_json:
        print(to_json(asdict(report)), flush=True)
    else:
        print_report(report)
    if report.faults:
        raise VerifyError(f"{report.target['spec']} does not pass:\n  " + "\n  ".join(report.faults))


@targets.command("serve")
def serve_(
    spec: Annotated[str, SPEC],
    host: Annotated[
        str, typer.Option(help="The address to listen on; 127.0.0.1 is reached from this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    answers: Annotated[str, typer.Option(help="What it tells: logits, probabilities or top.")] = "logits",
    decimals: Annotated[int | None, typer.Option(min=1, max=15, help="Round probabilities, as many services do.")] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="With --answers top: of how many classes it tells; 5 unless given.")
    ] = None,
) -> None:
    """Serve a target over HTTP by the contract of docs/black-box.md, so that it can be attacked as a black box.

    Until Ctrl-C. There is no password: whoever reaches the address can ask.
    """
    from evofool.targets import target
    from evofool.targets.serve import serve

    served = target(spec)
    recipe = "mnist-cppn" if served.shape[0] == 1 else "imagenet-cppn-10k"

    def say(line: str) -> None:
        print(line, flush=True)
        if " answers at " in line:
            url = line.rsplit(" ", 1)[1]
            print(f"Attack it:  evofool run {recipe} --set target={url}\nCtrl-C ends it.", flush=True)

    serve(served, host, port, answers, decimals, top, say=say)
