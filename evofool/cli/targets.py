"""The commands about targets: `evofool targets list|show|check|kinship|serve`."""

from pathlib import Path
from typing import Annotated

import typer

from evofool.cli.options import AsJson
from evofool.printer import print_json, print_lines

targets = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="List, show, check, compare and serve the classifiers that evofool can attack.",
)

SPEC = typer.Argument(
    metavar="SPEC", help="A target: lenet, efficientnet-lite0, onnx:FILE, http://... (see `evofool targets list`)."
)

LAYERS = typer.Option("--layers", help="Show the layers instead, in the order in which they run.")


@targets.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the kinds of targets, how to write each, and whether its packages are installed."""
    from evofool.cli.console_targets import kinds, print_kinds

    if as_json:
        print_json(kinds())
    else:
        print_kinds(kinds())


@targets.command()
def show(spec: Annotated[str, SPEC], layers: Annotated[bool, LAYERS] = False, as_json: AsJson = False) -> None:
    """Load a target and show its preprocessing, weights and their SHA-256, device and number formats; or its layers."""
    from evofool.cli.console_targets import print_layers, print_target
    from evofool.explain.layers import layer_rows
    from evofool.targets import target
    from evofool.targets.validation import describe

    found = target(spec)
    if layers:
        rows = layer_rows(found)
        if as_json:
            print_json([{"layer": name, "type": kind, "shape": list(shape)} for name, kind, shape in rows])
        else:
            print_layers(rows)
    elif as_json:
        print_json(describe(found))
    else:
        print_target(describe(found))


@targets.command()
def check(
    spec: Annotated[str, SPEC],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Labelled photographs: one folder per class, or files named CLASS_anything.jpg."),
    ] = None,
    published: Annotated[
        float | None,
        typer.Option(help="The top-1 accuracy to expect, 0.751 for 75.1%; known for published weights."),
    ] = None,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Measure images/s in every number format.")] = True,
    as_json: AsJson = False,
) -> None:
    """Check that a target behaves as a classifier, and measure its accuracy on photographs and its speed.

    Exits with 1 and names what to check if a check fails. Every run makes the quick checks when it starts.
    """
    from dataclasses import asdict

    from evofool.cli.console_targets import print_report
    from evofool.errors import VerifyError
    from evofool.targets import target
    from evofool.targets.validation import check as check_target

    report = check_target(target(spec), images, published, speed, lambda line: print_lines(line, error=True))
    if as_json:
        print_json(asdict(report))
    else:
        print_report(report)
    if report.faults:
        raise VerifyError(f"{report.target['spec']} does not pass:", *(f"  {fault}" for fault in report.faults))


@targets.command()
def kinship(
    spec: Annotated[str, SPEC],
    surrogates: Annotated[list[str], typer.Argument(metavar="SURROGATE...", help="The surrogates: targets with gradients.")],
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder of pictures; without one, 256 random CPPN images.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how often surrogates agree with a target on the class of an image.

    A surrogate that seldom agrees on photographs gives a search little or nothing ([search.surrogate]).
    """
    from dataclasses import asdict

    from evofool.ascend.kinship import kinship as measured
    from evofool.cli.console_targets import print_kinship
    from evofool.targets import target

    found = measured(target(spec), [target(each) for each in surrogates], images)
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        print_kinship(found)


@targets.command("serve")
def serve_(
    spec: Annotated[str, SPEC],
    host: Annotated[
        str, typer.Option(help="The address to listen on; 127.0.0.1 can be reached from this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: any free one.")] = 8000,
    answers: Annotated[str, typer.Option(help="The form of its answers: logits, probabilities or top.")] = "logits",
    decimals: Annotated[int | None, typer.Option(min=1, max=15, help="Round probabilities, as many services do.")] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="With --answers top: the number of classes in an answer; 5 by default.")
    ] = None,
) -> None:
    """Serve a target over HTTP by the contract of docs/black-box.md, so that it can be attacked as a black box.

    It speaks the Open Inference Protocol too, under /v2, unless --answers is top.

    Ctrl-C stops it. There is no authentication: anyone who can reach the address can send queries.
    """
    from evofool.targets import target
    from evofool.targets.remote.serve import ResponseOptions, serve

    served = target(spec)
    recipe = "mnist-cppn" if served.shape[0] == 1 else "imagenet-cppn-10k"

    def report(line: str) -> None:
        print_lines(line)
        if " answers at " in line:
            url = line.rsplit(" ", 1)[1]
            print_lines(f"Attack it:  evofool run {recipe} --set target={url}")
        if line.startswith("By the ") or (answers == "top" and " answers at " in line):
            print_lines("Ctrl-C stops it.")

    serve(served, host, port, ResponseOptions(answers, decimals, top), report)
