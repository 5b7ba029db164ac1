"""Files of a benchmark: results, the manifest, records of cells, answers, the plan of a retraining, a page that exists."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from evofool.bench.answer_file import stored_queries
from evofool.bench.cell import read_record
from evofool.bench.gate.against_result import against
from evofool.bench.manifest import MANIFEST, Manifest, has_cells, stored_recipe
from evofool.bench.plan import BenchRecipe, parse
from evofool.bench.result_file import SCHEMA, VERSION, load_result
from evofool.bench.retraining import retrain_loop
from evofool.explain.folder import PAGE, ExplanationFolder
from evofool.run.reader import FILE
from evofool.targets import Target
from tests.bench.samples import result as invented
from tests.bench.test_compare import result
from tests.fuzz.mutations import apply_bytes, apply_json, as_json, byte_edits, json_edits
from tests.fuzz.room import Area, Fault, Room
from tests.synthetic import fake

RESULT = {"schema": SCHEMA, "version": VERSION, **result([300, 500, 420], [0.5, 0.75, 0.9])}
RESULT["protocol"] |= {"settings": {"cppn": ["search.batch=20"]}}
PLAN = retrain_loop.RetrainingPlan(1, 1, "reject-class", 0.1, 1, 100, "cppn", 0, 1, ())


@cache
def recipe() -> BenchRecipe:
    data = {"images": "digits", "targets": [{"target": "lenet"}], "budgets": [20], "seeds": 1, "arms": ["noise"]}
    return parse(data, "sample")


@cache
def target() -> Target:
    return fake()


@cache
def sample(kind: str) -> Any:
    """What a file of this kind has: JSON, or bytes."""
    if kind in ("compare", "gate"):
        return RESULT
    if kind == "board":
        return invented("lenet", 0, ["canvas", "square", "apgd"], points=5)
    if kind == "manifest":
        calibrated = {"spec": "lenet", "fingerprint": "f", "images": "i", "listing": "l", "notes": ["n"], "faulty": False}
        fixed, whole = recipe().fixed(), recipe().model_dump(mode="json")
        return {
            "schema": "evofool.bench.plan",
            "version": 2,
            "fixed": fixed,
            "recipe": whole,
            "targets": {"lenet": calibrated},
        }
    if kind == "cell":
        numbers = {"answers": 9, "forwards": 9, "backwards": 0, "seconds": 1.0, "peak_memory_mb": 5.5}
        texts = {"fingerprint": "f", "comparison": "to the bit", "device": "cpu"}
        return {**texts, **numbers, "faults": [], "machine": {"cpu": "x"}}
    if kind == "retraining":
        plan = {**vars(PLAN), "changes": []}
        return {"schema": retrain_loop.SCHEMA, "version": retrain_loop.VERSION, "plan": plan, "iterations": []}
    if kind == "page":
        return b'<!doctype html><html><head><meta name="generator" content="evofool"></head><img src="a.png"></html>'
    return b"\x00" * (3 * 5 * 4 + 32) * 2


def content_of(case: tuple[Any, ...]) -> bytes:
    """The content of the case's file."""
    kind, how, edits = case
    whole = sample(kind)
    if how == "json" and not isinstance(whole, bytes):
        return as_json(apply_json(whole, edits)).encode("utf-8", "surrogatepass")
    return apply_bytes(whole if isinstance(whole, bytes) else as_json(whole).encode(), edits if how == "bytes" else [])


def enter(case: tuple[Any, ...], room: Room) -> None:
    READERS[case[0]](content_of(case), room)


def _compare(content: bytes, room: Room) -> None:
    given, other = room.give("a.json", content), room.give("b.json", as_json(RESULT).encode())
    room.call("bench", "compare", given, other)
    room.call("bench", "compare", other, given, "--json")


def _board(content: bytes, room: Room) -> None:
    given = room.give("a.json", content)
    other = room.give("b.json", as_json(invented("other", 1, ["canvas", "square", "apgd"], points=5)).encode())
    room.call("bench", "board", given, other, "--out", room.work / "b.html", "--csv", room.work / "b.csv", "--json")


def _gate(content: bytes, room: Room) -> None:
    against("lenet", [load_result(room.give("last.json", content))], None, room.work)
    raise Fault("a result of other images is accepted")


def _manifest(content: bytes, room: Room) -> None:
    (room.work / MANIFEST).write_bytes(content)
    room.give("cells/lenet/noise-0/" + FILE, b"")
    for cells in (False, True):
        if cells:
            (room.work / "cells" / "lenet" / "noise-0").mkdir(parents=True)
            (room.work / "cells" / "lenet" / "noise-0" / FILE).touch()
        (room.work / MANIFEST).write_bytes(content)
        try:
            stored_recipe(room.work)
            manifest = Manifest(recipe(), room.work)
            manifest.calibrated_as("lenet")
            manifest.pinned()
        finally:
            has_cells(room.work)


def _cell(content: bytes, room: Room) -> None:
    room.give(FILE, b"")
    record = read_record(room.give("cell.json", content).parent)
    if record is None:
        raise Fault("a record that is there is not read")
    [record["machine"].get("cpu"), record["forwards"] + record["seconds"] + record["peak_memory_mb"]]


def _retraining(content: bytes, room: Room) -> None:
    retrain_loop.begin(PLAN, room.give(retrain_loop.FILE, content).parent)


def _page(content: bytes, room: Room) -> None:
    folder = ExplanationFolder(room.give(PAGE, content, fixed=False).parent)
    folder.write("<html></html>")


def _answers(content: bytes, room: Room) -> None:
    path = room.work / "answers"
    path.write_bytes(content)
    images = np.zeros((3, *target().shape), np.uint8)
    with stored_queries(target(), 3, path) as query:
        first, second = query(images), query(images + 1)
    if not (np.array_equal(first, target().logits(images, 3)) and np.array_equal(second, target().logits(images + 1, 3))):
        raise Fault("answers are read that the target did not give")


READERS: dict[str, Callable[[bytes, Room], None]] = {
    "compare": _compare,
    "board": _board,
    "gate": _gate,
    "manifest": _manifest,
    "cell": _cell,
    "retraining": _retraining,
    "page": _page,
    "answers": _answers,
}
_KINDS = ("compare", "compare", "board", "gate", "manifest", "manifest", "cell", "retraining")
CASES = st.one_of(
    st.tuples(st.sampled_from(_KINDS), st.just("json"), json_edits()),
    st.tuples(st.sampled_from(_KINDS), st.just("json"), json_edits(6)),
    st.tuples(st.sampled_from(list(READERS)), st.just("bytes"), byte_edits()),
)


def prepare() -> None:
    from evofool.bench.real import real_images
    from evofool.targets import target as load

    real_images("digits", load("lenet"))


def line(case: tuple[Any, ...], room: Room) -> list[str | Path] | None:
    kind, _, _ = case
    if kind not in ("compare", "gate"):
        return None
    path = room.give("a.json", content_of(case))
    if kind == "gate":
        return ["gate", "lenet", "--against", path, "--out", room.work / "gate"]
    return ["bench", "compare", path, room.give("b.json", as_json(RESULT).encode())]


AREA = Area("benches", CASES, enter, 4, prepare, line=line)
