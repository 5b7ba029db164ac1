"""What people said of a run's elites, beside its other figures."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evofool.run.stored import StoredRun


def people_say(stored: "StoredRun") -> dict[int, str]:
    """By cell, the verdict of people on its elite, in words; empty if nobody was asked (there is no quiz.db)."""
    from evofool.quiz.store import QuizStore

    if not QuizStore.exists(stored.folder):
        return {}
    from evofool.quiz.of_run import run_verdicts

    with QuizStore.open(stored.folder) as store:
        seen = run_verdicts(stored, store.records(), store.codes())
    labels = stored.labels
    return {elite.row.cell: f"{v.text(labels)}: {v.counts()}" for elite, v in seen.by_elite}
