"""What the cells of an arm leave for the reader of a verdict: the time that they took, and the worst image."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evofool.bench.cell import read_record
from evofool.bench.gate.gate_verdict import Check
from evofool.run.stored import ListedElite, StoredRun
from evofool.scores import confidence
from evofool.whole_file import write_whole


def with_cells(check: Check, arm: str, cells: Sequence[Path], folder: Path) -> Check:
    """A check of an arm with the seconds of its cells that are done, and the elite with the highest margin of them all.

    Of equal ones the first. Its image is written to FOLDER/worst-ARM.png, with the very pixels that were scored.
    """
    records = [(cell, record) for cell in cells if (record := read_record(cell))]
    seconds = sum(record["seconds"] for _, record in records)
    worst: tuple[ListedElite, Path] | None = None
    for cell, record in records:
        if not record["faults"]:
            with StoredRun(cell) as stored:
                for elite in stored.listed():
                    if worst is None or elite.row.margin > worst[0].row.margin:
                        worst = elite, cell
    if worst is None:
        return replace(check, arm=arm, seconds=seconds)
    elite, cell = worst
    with StoredRun(cell) as stored:
        (png,) = (one.row.png for one in stored.elites(elite.row.class_id) if one.row.cell == elite.row.cell)
    image = folder / f"worst-{arm}.png"
    try:
        write_whole(image, png)
    except OSError:  # a verdict is worth more than its picture
        return replace(check, arm=arm, seconds=seconds)
    text = f"the image with the highest margin: {elite.label}, confidence {float(confidence(elite.row.log_odds)):.4f}"
    return replace(check, arm=arm, seconds=seconds, image=image, image_text=text)
