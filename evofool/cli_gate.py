"""The command `evofool gate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.errors import EvofoolError, RecipeError

if TYPE_CHECKING:
    from evofool.bench.bench import Progress
    from evofool.bench.gate.verdict import Verdict

TARGET = typer.Argument(metavar="TARGET", help="The classifier, as evofool targets list has it.")
AGAINST = typer.Option(metavar="LAST.json", help="A result of evofool bench: fails if the target has become easier to fool.")
ACCEPT = typer.Option(metavar="RULE", help="The rule that it is deployed with: 'p>=0.9', 'margin>=3' or 'log_odds>=2'.")
SHARE = typer.Option("--max-share", min=0.0, max=1.0, help="With --accept: the share of classes that may be fooled.")
BUDGET = typer.Option(min=1, help="With --accept: queries of all classes together.")
ARMS = typer.Option(metavar="ARM,ARM", help="With --accept: who attacks. White-box arms are left out of a black box.")
SEEDS = typer.Option(min=1, help="With --accept: how many seeds.")
IMAGES = typer.Option(metavar="DIR", help="Labelled real images, or digits; --against needs those of the result.")
OUT = typer.Option(
    metavar="DIR", help="Where cells are kept; runs/gate-TARGET unless given. The same command goes on there."
)
WORKERS = typer.Option(min=0, help="Cells done side by side, by so many processes of Ray's; 0: one after the other, here.")
JUNIT = typer.Option(metavar="FILE", help="Write JUnit XML, as CI systems read it.")
MARKDOWN = typer.Option(metavar="FILE", help="Write a summary in Markdown; a file that is there is added to.")


def gate(
    target: Annotated[str, TARGET],
    against: Annotated[Path | None, AGAINST] = None,
    accept: Annotated[str | None, ACCEPT] = None,
    max_share: Annotated[float, SHARE] = 0.5,
    budget: Annotated[int | None, BUDGET] = None,
    arms: Annotated[str, ARMS] = "cppn,random,apgd",
    seeds: Annotated[int, SEEDS] = 3,
    images: Annotated[str | None, IMAGES] = None,
    out: Annotated[Path | None, OUT] = None,
    workers: Annotated[int, WORKERS] = 0,
    junit: Annotated[Path | None, JUNIT] = None,
    markdown: Annotated[Path | None, MARKDOWN] = None,
) -> None:
    """Fail a build whose classifier is too easily fooled. Exits with 0: holds, 1: fails, 2: the evaluation is invalid.

    --against LAST.json measures the target by the protocol of an earlier result, and fails if it is not shown, paired by
    seed, to take at least 0.75 times the queries until half of the classes are fooled. --accept RULE attacks it with
    --budget queries and fails if more than --max-share of the classes reach the rule.
    """
    from evofool.bench.gate import gate as gates
    from evofool.bench.gate.accept import parse_accept
    from evofool.bench.gate.verdict import Check, Verdict
    from evofool.bench.gate.verdict import junit as as_junit
    from evofool.bench.gate.verdict import markdown as as_markdown
    from evofool.bench.results import read_json
    from evofool.cli_bench import progress_text
    from evofool.console import interrupts, status, write
    from evofool.export import file_name

    if (against is None) == (accept is None):
        raise RecipeError("a gate needs one of --against LAST.json and --accept 'p>=0.9'")
    folder = out or Path("runs") / f"gate-{file_name(target.partition('?')[0]).lower()}"
    try:
        with interrupts("Saving what is under way ...") as interrupted, status() as show:

            def tell(p: "Progress") -> bool:
                show(lambda: progress_text(p))
                return bool(interrupted)

            if against is not None:
                last = read_json(against)
                source = images or ((last["images"] or {}).get("source") if _digits(last) else None)
                if source is None:
                    raise RecipeError(f"{against} was measured on real images of {_source(last)}: name them by --images DIR")
                verdict = gates.against(target, last, source, folder, workers, tell)
            else:
                if budget is None:
                    raise RecipeError("--accept needs a --budget: how many queries an attacker has, of all classes together")
                rule = parse_accept(accept or "")
                names = [arm.strip() for arm in arms.split(",") if arm.strip()]
                verdict = gates.threshold(target, rule, max_share, budget, names, seeds, folder, images, tell, workers)
    except gates.Interrupted:
        print("Interrupted; what is done is saved. The same command goes on.")
        raise typer.Exit(130) from None
    except EvofoolError as error:
        # A build whose gate cannot be asked has a report that says so.
        verdict = Verdict(target, [Check("evaluation", "invalid", str(error))], 0.0)
    _print(verdict)
    if junit is not None:
        write(junit, lambda: junit.write_text(as_junit(verdict), encoding="utf-8"))
    if markdown is not None:
        with markdown.open("a", encoding="utf-8") as file:
            write(markdown, lambda: file.write(as_markdown(verdict)))
    raise typer.Exit(verdict.exit_status)


def _print(verdict: "Verdict") -> None:
    for check in verdict.checks:
        print(f"{check.status:<8} {check.name}: {check.words}")
    print(f"The gate of {verdict.target}: {verdict.status} (exit status {verdict.exit_status})")


def _digits(last: dict[str, object]) -> bool:
    return _source(last) == "digits"


def _source(last: dict[str, object]) -> object:
    images = last.get("images")
    return images.get("source") if isinstance(images, dict) else None
