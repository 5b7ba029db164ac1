"""The command `evofool lineage`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.cli.console import refuse_unwritable
from evofool.cli.options import AsJson, RunFolder
from evofool.printer import print_json, print_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from evofool.run.lineage import Ancestor, DrawnAncestor

IMAGE = typer.Option(metavar="FILE", help="Draw the line of ancestors there, a PNG.")


def lineage(
    folder: RunFolder,
    which: Annotated[str, typer.Option("--class", help="A class number or a label.")],
    image: Annotated[Path | None, IMAGE] = None,
    as_json: AsJson = False,
) -> None:
    """Trace an elite's ancestors, and the classes whose elites they were.

    The line follows first parents: the mother is the parent that was mutated, and a father only contributes to crossover.
    A goal switch is an image that became the elite of a class in which neither of its parents was the elite or a runner-up
    (search.keep). Writes nothing but the file that --image names.
    """
    from evofool.run.lineage import classes_passed
    from evofool.run.lineage import lineage as trace
    from evofool.run.stored import StoredRun

    refuse_unwritable(image)
    with StoredRun(folder) as stored:
        class_id = stored.class_id(which)
        elite = max(stored.listed(class_id), key=lambda e: e.row.log_odds)
        line = trace(stored, elite.row.birth)
        names = lambda held: ", ".join(stored.labels[c] for c in held)  # noqa: E731
        if image is not None:
            _draw(image, line, names)
        if as_json:
            steps = [
                {"birth": a.birth, "batch": a.batch, "mother": a.mother, "father": a.father, "switched": a.switched,
                 "method": a.method,
                 "held": [stored.labels[c] for c in a.held], "runner_up": [stored.labels[c] for c in a.runner_up]}
                for a in line
            ]  # fmt: skip
            print_json({"class": class_id, "label": elite.label, "line": steps})
            return
        for ancestor in line:
            mark = "" if ancestor.method == "evolved" else f"  made by {ancestor.method}"
            mark += "  goal switch" if ancestor.switched else ""
            print_lines(f"birth {ancestor.birth:>8}  batch {ancestor.batch:>7}  {_was(ancestor, names)}{mark}")
        passed = " -> ".join(names(held) for held in classes_passed(line))
        switches = sum(a.switched for a in line)
        print_lines(
            "", f"{elite.label}: {len(line) - 1} ancestors through first parents, {switches} goal switches: {passed}"
        )
        if image is not None:
            print_lines(f"Picture: {image}")


def _was(ancestor: "Ancestor", names: "Callable[[tuple[int, ...]], str]") -> str:
    """What an ancestor was; a merged run does not say of which classes it was a runner-up."""
    if ancestor.held:
        return f"elite of {names(ancestor.held)}"
    return f"runner-up of {names(ancestor.runner_up)}" if ancestor.runner_up else "runner-up"


def _draw(path: Path, line: "list[DrawnAncestor]", names: "Callable[[tuple[int, ...]], str]") -> None:
    from evofool.images import save_picture
    from evofool.pages.descent import DescentStep, descent_strip

    labels = [names(a.held) or f"({names(a.runner_up) or 'runner-up'})" for a in line]
    steps = [
        DescentStep(a.image, a.birth, label, "goal switch" if a.switched else "", a.switched)
        for a, label in zip(line, labels, strict=True)
    ]
    save_picture(descent_strip(steps), path)
