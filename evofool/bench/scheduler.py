"""The jobs of a benchmark, its trainings and cells, for the runner of jobs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evofool.bench.cell import clear_folder, is_done
from evofool.bench.cell_job import CellJob
from evofool.errors import StoreError
from evofool.sweep.runner import Job, JobsOutcome, OnProgress, Workers, run_jobs
from evofool.sweep.status import StatusFile


def run_cells(
    cells: Sequence[CellJob],
    folder: Path,
    workers: Workers,
    on_progress: OnProgress,
    status: StatusFile | None = None,
) -> JobsOutcome:
    """Run those cells that are not done, in parallel if there are workers; failures are those of all cells.

    A damaged cell is not run again. folder: contains all of theirs.
    """
    settled = {number: fault for number, cell in enumerate(cells) if (fault := _fault(cell)) is not None}
    missing = [number for number in range(len(cells)) if number not in settled]
    for number in missing:  # here, since a worker may not see this disk
        clear_folder(cells[number])
    outcome = run_jobs(
        "evofool.bench.cell:run_cell",
        [_job(cells[number]) for number in missing],
        folder,
        workers,
        on_progress,
        settled=[(_job(cells[number]), fault) for number, fault in settled.items()],
        status=status,
    )
    failures = settled | dict(zip(missing, outcome.failures, strict=True))
    return JobsOutcome(tuple(failures[number] for number in range(len(cells))), outcome.interrupted)


def train_networks(
    jobs: Sequence[Mapping[str, Any]], folder: Path, workers: Workers, on_progress: OnProgress, status: StatusFile
) -> JobsOutcome:
    """Train networks (entries.training_jobs), in parallel if there are workers. folder: contains all of theirs."""
    listed = [Job(Path(job["folder"]).name, job, job["epochs"]) for job in jobs]
    return run_jobs(
        "evofool.bench.entries:train", listed, folder, workers, on_progress, message="training networks", status=status
    )


def _job(cell: CellJob) -> Job:
    return Job("/".join(cell.folder.parts[-2:]), cell.to_dict(), cell.queries)


def _fault(cell: CellJob) -> str | None:
    """An empty text for a cell that is done, what is wrong with a damaged one, None for one that is not done."""
    try:
        return "" if is_done(cell) else None
    except StoreError as error:
        return str(error)
