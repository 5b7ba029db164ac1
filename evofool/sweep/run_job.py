"""One run of a sweep as a job: an ordinary run, started or continued."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evofool.cluster.folder_transfer import restore_folder
from evofool.recipe import parse
from evofool.run.lock import wait_for_lock
from evofool.run.reader import FILE
from evofool.run.run import Run


def run_job(job: Mapping[str, Any], on_progress: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any] | None:
    """Start the run of job["recipe"] in job["folder"], or continue it there; None if on_progress ended it.

    The result has "done", the evaluations, and "reason", why the run ended.
    """
    folder = Path(job["folder"])
    recipe = parse(job["recipe"], str(folder))
    restore_folder(folder)
    wait_for_lock(folder)
    begun = (folder / FILE).exists()
    with Run.resume(folder, recipe, trust=True) if begun else Run.start(recipe, folder) as run:
        on_progress({"done": run.strategy.evaluations})
        reason = run.advance(lambda run: on_progress({"done": run.strategy.evaluations}))
        return {"done": run.strategy.evaluations, "reason": reason} if reason else None
