"""What a run has stored, to compare it with what another one has."""

from pathlib import Path
from typing import Any

from evofool.run.store import Store

_OWN = {"id", "seconds", "answers", "workers"}
"""What two runs of one recipe may differ in; a kill costs some answers."""


def content(folder: Path) -> dict[str, Any]:
    """Everything that a run has stored, its timings left out."""
    with Store.open(folder) as store:
        births = store.births()
        return {
            "elites": store.elites(),
            "cell_history": store.cell_history(),
            "runners_up": store.runners_up(),
            "methods": store.methods(),
            "metrics": [(m.batch, m.row) for m in store.metrics()],
            "pending": [(p.batch, *(a.tolist() for a in p[1:5]), p.drawn_after) for p in store.pending()],
            "quarantine": store.quarantine(),
            "counts": store.counts(),
            "faults": store.faults(),
            "genomes": store.genomes(births),
            "descent": store.ancestry(births),
            "meta": store.meta().model_dump(exclude=_OWN),
        }


def course(folder: Path) -> dict[str, Any]:
    """The same without what depends on where images were evaluated: most of meta, and the reasons of the quarantine."""
    whole = content(folder)
    del whole["meta"]
    with Store.open(folder) as store:
        meta = store.meta()
    kept = {
        name: getattr(meta, name) for name in ("committed", "finished", "last_progress", "seeds", "surrogates", "unlike")
    }
    return whole | kept | {"quarantine": [row[:5] for row in whole["quarantine"]]}
