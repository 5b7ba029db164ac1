"""What the commands print of a list of jobs, the cells of a benchmark or the runs of a sweep: progress and status."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from evofool.bench.cell import RECORD
from evofool.bench.manifest import MANIFEST as BENCH
from evofool.bench.report.formatting import counted
from evofool.cli.console import interrupts
from evofool.errors import EvofoolError, StoreError
from evofool.printer import Table, duration, print_json, print_lines, status
from evofool.run.reader import FILE as RUN
from evofool.sweep.results import RunFigures, run_figures
from evofool.sweep.runner import WorkProgress
from evofool.sweep.status import FILE, JobStatus, ListStatus, read_status
from evofool.sweep.sweep import MANIFEST as SWEEP


@contextlib.contextmanager
def work_display(noun: str) -> Iterator[Callable[[WorkProgress], bool]]:
    """A function that shows the progress of jobs and returns True once the user has asked to end. noun: of a job."""
    ended = ""
    with interrupts(f"Saving the unfinished {noun}s ...") as interrupted, status() as show_status:

        def on_progress(p: WorkProgress) -> bool:
            nonlocal ended
            text = progress_text(p, noun)
            if not p.total or p.done < p.total:
                show_status(lambda: text)
            elif text != ended:  # the end of each stage is printed, however short the stage was
                print_lines(ended := text)
            return bool(interrupted)

        yield on_progress


def progress_text(p: WorkProgress, noun: str) -> str:
    """The progress of jobs in one line: how many are done, and the time left."""
    if p.message and not p.total:
        return p.message
    left = f", about {duration(p.seconds_left)} left" if p.seconds_left and p.done < p.total else ""
    running = f", {p.running} running" if p.running and not p.message else ""
    total = f"{p.total:,}" if p.message else counted(p.total, noun)
    return f"{f'{p.message}: ' if p.message else ''}{p.done:,} of {total} done{running}{left}"


def show_jobs(folder: Path, as_json: bool) -> None:
    """Print how far the jobs in a folder are, also while another process runs them and after it was killed."""
    if not (folder / FILE).is_file():
        raise StoreError(f"{folder} has no benchmark and no sweep that was started (there is no {FILE})")
    noun = "run" if (folder / SWEEP).is_file() else "cell" if (folder / BENCH).is_file() else "job"
    figures = run_figures_of(folder) if noun == "run" else {}

    def is_done(job: JobStatus) -> bool:
        if noun == "run":
            return bool(job.name in figures and figures[job.name].finished)
        return os.path.isfile(folder / job.folder / RECORD)  # Path.is_file raises an error for a name that is too long

    found = read_status(folder, is_done)
    if as_json:
        data = found.as_json()
        if noun == "run":
            for job in data["jobs"]:
                job["figures"] = vars(figures[job["name"]]) if job["name"] in figures else None
        print_json(data)
        return
    print_jobs(found, noun, figures)
    age = max(0.0, time.time() - found.time)
    states = {
        "running": f"{found.message or 'at work'}; as of {duration(age)} ago",
        "interrupted": f"interrupted {duration(age)} ago; the command that started it continues it",
        "failed": f"ended by an error {duration(age)} ago; the command that started it continues it",
        "done": "ended",
    }
    print_lines("", f"{counts_text(found, noun)}; {states[found.state]}")
    for job in found.jobs:
        if job.state == "failed":
            print_lines(f"{job.name} failed: {job.reason}")


def counts_text(found: ListStatus, noun: str) -> str:
    """ "3 of 12 cells done, 2 running, 7 waiting"."""
    states = [job.state for job in found.jobs]
    counts = [f"{n} {state}" for state in ("running", "interrupted", "failed", "waiting") if (n := states.count(state))]
    twice = sum(job.repeated for job in found.jobs)
    again = [f"{twice:,} {_unit(noun)} done twice"] if twice else []
    return ", ".join([f"{states.count('done')} of {counted(len(states), noun)} done", *counts, *again])


def print_jobs(found: ListStatus, noun: str, figures: dict[str, RunFigures]) -> None:
    """A table of the jobs; columns without an entry are left out."""
    counts = [_unit(noun), "of", "per s", "left", "done twice", "restarts"]
    heads = [noun, "state", "node", *counts, "median", ">= 0.99", "took"]
    rows = [_cells(job, figures.get(job.name)) for job in found.jobs]
    wanted = [k for k in range(len(heads)) if k < 2 or any(row[k] for row in rows)]
    table = Table()
    for k in wanted:
        table.column(heads[k], right=k > 2, no_wrap=k == 0)
    for row in rows:
        table.row(*(row[k] for k in wanted))
    table.print()


def _unit(noun: str) -> str:
    """What the jobs are counted in."""
    return "evaluations" if noun == "run" else "queries"


def _cells(job: JobStatus, figures: RunFigures | None) -> list[str]:
    left = job.seconds_left
    done = figures.evaluations if figures and job.state != "running" else job.done
    return [
        job.name,
        job.state,
        job.node if job.state == "running" else "",
        f"{done:,}" if done else "",
        f"{job.total:,}" if job.total else "",
        f"{job.rate:,.0f}" if job.state == "running" and job.rate else "",
        duration(left) if left is not None else "",
        f"{job.repeated:,}" if job.repeated else "",
        f"{job.restarts}" if job.restarts else "",
        f"{figures.confidence:.4f}" if figures else "",
        f"{figures.sure}/{figures.classes}" if figures else "",
        duration(figures.seconds) if figures and job.state == "done" else "",
    ]


def run_figures_of(folder: Path) -> dict[str, RunFigures]:
    """By the name of each run of a sweep, its figures; a damaged or empty run has none."""
    found = {}
    for path in sorted(folder.glob(f"*/seed-*/{RUN}")):
        with contextlib.suppress(EvofoolError):
            if (figures := run_figures(path.parent)) is not None:
                found[f"{path.parent.parent.name}/{path.parent.name}"] = figures
    return found
