"""Files of a list of jobs: sweep.json, and status.json of a sweep or a benchmark."""

import contextlib
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from evofool.bench.manifest import MANIFEST as BENCH
from evofool.recipe import Recipe, load
from evofool.sweep import status
from evofool.sweep.sweep import MANIFEST, SCHEMA, VERSION, plan_sweep, stored_sweep
from tests.fuzz.mutations import apply_bytes, apply_json, as_json, byte_edits, json_edits
from tests.fuzz.room import OURS, Area, Fault, Room


@cache
def recipe() -> Recipe:
    return load("mnist-cppn")


@cache
def sample(kind: str) -> dict[str, Any]:
    """What a file of this kind has."""
    if kind == "sweep":
        whole = recipe().model_dump(mode="json", exclude_none=True)
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "recipe": whole,
            "targets": {"lenet": "lenet", "lenet-2": "lenet?std=2"},
        }
    jobs = [{**vars(status.JobStatus(f"lenet/seed-{k}")), "state": state} for k, state in enumerate(status.STATES)]
    jobs[1] |= {"folder": "lenet/seed-1", "done": 5, "total": 10, "node": "n", "rate": 2.5}
    head = {"schema": status.SCHEMA, "version": status.VERSION, "state": "running", "message": "", "time": 1.0}
    return {**head, "host": "h", "pid": 1, "jobs": jobs}


def enter(case: tuple[Any, ...], room: Room) -> None:
    """Read a list of jobs, show it, plan its continuation, and write its status anew."""
    kind, noun, how, edits = case
    whole = sample(kind)
    if how == "json":
        content = as_json(apply_json(whole, edits)).encode("utf-8", "surrogatepass")
    else:
        content = apply_bytes(as_json(whole).encode(), edits)
    folder = room.work
    (folder / status.FILE).write_text(as_json(sample("status")))
    (folder / (MANIFEST if noun == "run" else BENCH)).write_text(as_json(sample("sweep")))
    (folder / (MANIFEST if kind == "sweep" else status.FILE)).write_bytes(content)
    room.call("sweep" if noun == "run" else "bench", "show", folder)
    room.call("sweep", "show", folder, "--json")
    with contextlib.suppress(*OURS):
        kept, specs, seeds = stored_sweep(folder)
        _check_folders(kept, specs, seeds, folder)
    with contextlib.suppress(*OURS):
        _check_folders(recipe(), ["lenet"], [0], folder)
    with status.StatusFile(folder) as file:
        file.begin([status.JobStatus("lenet/seed-0"), status.JobStatus("lenet/seed-1", total=5)], {"lenet/seed-1": ""})
    status.read_status(folder)


def _check_folders(kept: Recipe, specs: list[str], seeds: list[int], folder: Path) -> None:
    for job in plan_sweep(kept, folder, specs, seeds).jobs:
        if job.folder.resolve().parent.parent != folder.resolve():
            raise Fault(f"a run would be written outside of the folder\n{job.folder}")


CASES = st.one_of(
    st.tuples(st.sampled_from(["sweep", "status"]), st.sampled_from(["run", "cell"]), st.just("json"), json_edits()),
    st.tuples(st.sampled_from(["sweep", "status"]), st.sampled_from(["run", "cell"]), st.just("json"), json_edits(6)),
    st.tuples(st.sampled_from(["sweep", "status"]), st.sampled_from(["run", "cell"]), st.just("bytes"), byte_edits()),
)
AREA = Area("sweeps", CASES, enter, 3, prepare=recipe)
