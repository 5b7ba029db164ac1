"""The command `evofool lineage`."""

from typing import Annotated

import typer

from evofool.cli.console import write
from evofool.cli.options import AsJson, RunFolder


def lineage(
    folder: RunFolder,
    which: Annotated[str, typer.Option("--class", help="A class number or a label.")],
    as_json: AsJson = False,
) -> None:
    """The line of descent of a class's elite, along its mothers, and the classes that it passed through.

    A line that wins a class which neither parent held has switched its goal. Writes lineage-CLASS.png into the run's folder.
    """
    from evofool.pages.descent import DescentStep, descent_strip
    from evofool.run.lineage import classes_passed
    from evofool.run.lineage import lineage as trace
    from evofool.run.stored import StoredRun, to_json

    with StoredRun(folder) as stored:
        class_id = stored.class_id(which)
        elite = max(stored.elites(class_id), key=lambda e: e.row.log_odds)
        line = trace(stored, elite.row.birth)
        names = lambda held: " ".join(stored.labels[c] for c in held)  # noqa: E731
        if as_json:
            steps = [
                {"birth": a.birth, "batch": a.batch, "mother": a.mother, "father": a.father, "switched": a.switched,
                 "held": [stored.labels[c] for c in a.held]}
                for a in line
            ]  # fmt: skip
            print(to_json({"class": class_id, "label": elite.label, "line": steps}))
            return
        strip = descent_strip(
            [DescentStep(a.image, a.birth, names(a.held), "goal switch" if a.switched else "", a.switched) for a in line]
        )
        path = folder / f"lineage-{class_id}.png"
        write(path, lambda: strip.save(path))
        for ancestor in line:
            mark = "  goal switch" if ancestor.switched else ""
            print(f"birth {ancestor.birth:>8}  batch {ancestor.batch:>7}  held {names(ancestor.held)}{mark}")
        passed = " -> ".join(names(held) for held in classes_passed(line))
        switches = sum(a.switched for a in line)
        print(f"\n{elite.label} descends from {len(line) - 1} ancestors with {switches} goal switches: {passed}")
        print(f"Picture: {path}")
