"""A made-up run of three classes: every table of its file has rows, and no search or target is needed."""

from typing import Any

import numpy as np

from evofool.images import encode_png
from evofool.run.meta import PositionRecord, RunMeta, TargetRecord
from evofool.run.schema import Checkpoint, ImprovementRow, MetricsRow, NewElite, Pending, QuarantineRow
from evofool.run.store import Store
from evofool.search.records import CellChange, Commit, Offspring, RunnerUp

TARGET = TargetRecord(name="zwölf ½", labels=["a", "b", "c"], shape=(1, 8, 8), fingerprint="f", details={})
POSITION = PositionRecord(chunk=8, dependent=False, tolerance=0.0)
KEEP = {"a": 1, "search": {"keep": 2}}  # two genomes in the list of a cell
META = RunMeta(id="one", recipe=KEEP, target=TARGET, machine={"cpu": "any"}, position=POSITION)


def png(birth: int) -> bytes:
    return encode_png(np.random.default_rng(birth).integers(0, 256, (1, 8, 8), dtype=np.uint8))


def checkpoint(number: int, size: int = 3) -> Checkpoint:
    """The number-th of a made-up run of one niche: `size` cells get new elites."""
    births = list(range(number * size, (number + 1) * size))
    rng = np.random.default_rng(number)
    scores = [(float(a), float(b)) for a, b in rng.normal(0, 10, (size, 2))]
    parent = births[0] - 1
    return Checkpoint(
        state={"committed": number + 1, "recipe": KEEP | {"number": number}},
        genomes=[Offspring(b, number, parent, parent, b"genome %d" % b, 0) for b in births],
        cell_history=[CellChange(c, b, number, *scores[c], c % 2 == 1) for c, b in enumerate(births)],
        runners_up=[RunnerUp((c + 1) % size, b, number, scores[c][0] - 30, scores[c][1] - 30) for c, b in enumerate(births)],
        elites=[NewElite(c, 0, c, b, (*scores[c], *scores[c][::-1]), png(b), 64) for c, b in enumerate(births)],
        metrics=[MetricsRow(number, number * 0.5, {"gen": number, "median": 0.1 * number, "name": "x"})],
        pending=[
            Pending(
                k,
                np.arange(4) + k,
                np.arange(4) - 1,
                np.arange(6).reshape(3, 2) + number,
                np.array([-np.inf, 0.1 * k, 1e300]),
                number,
            )
            for k in (number + 1, number + 2)
        ],
        quarantine=[QuarantineRow(10_000 + number, number, parent, -1, b"poison %d" % number, "it kills")],
        commits=[Commit(number, number, max(0, number - 1))],
        methods={births[-1]: "apgd"},
        improvements=[ImprovementRow(c, number + c, number, *scores[c]) for c in range(size)],
    )


def everything(store: Store) -> dict[str, Any]:
    """All that can be read, as plain values."""
    return {
        "meta": store.meta(),
        "elites": store.elites(),
        "cell_history": store.cell_history(),
        "runners_up": store.runners_up(),
        "metrics": store.metrics(),
        "pending": [(p.batch, *(a.tolist() for a in p[1:5]), p.drawn_after) for p in store.pending()],
        "quarantine": store.quarantine(),
        "commits": store.commits(),
        "methods": store.methods(),
        "improvements": store.improvements(),
        "origins": store.origins(),
        "decoder": store.decoder(),
        "counts": store.counts(),
        "genomes": store.genomes({r.birth for r in store.cell_history()}),
    }
