"""Small runs to be merged, and what they hold."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

from evofool.recipe import parse
from evofool.run.meta import RunMeta
from evofool.run.reader import FILE
from evofool.run.run import Run
from evofool.run.schema import elite_digest
from evofool.run.store import Store
from evofool.targets import Target

CLASSES, SIDE, BIG = 5, 6, 128
NICHES = {"descriptor": "mirror_symmetry", "edges": [0.6, 0.68]}


def scaled_target(side: int = SIDE, labels: str = "abcde", seed: int = 9, **details: Any) -> Target:
    weights = np.random.default_rng(seed).integers(-8, 9, (side * side, len(labels)))

    def linear(images: np.ndarray) -> np.ndarray:
        return (images.reshape(len(images), -1).astype(np.int64) @ weights / (28.4 * side * side)).astype(np.float32)

    return Target("fake", list(labels), (1, side, side), linear, details)


def made(folder: Path, seed: int = 0, side: int = SIDE, target: Target | None = None, **parts: Any) -> Path:
    data = {
        "target": "fake",
        "encoding": {"kind": "direct"},
        "stop": {"evaluations": 320},
        **parts,
        "search": {"batch": 8, "seed": seed, **parts.get("search", {})},
    }
    with Run.start(parse(data, "test"), folder, target or scaled_target(side)) as run:
        assert run.advance()
    return folder


def content(folder: Path) -> dict[str, Any]:
    """Every row of every table but what names the run itself: its id and its folder."""
    database = sqlite3.connect(f"file:{folder / FILE}?mode=ro", uri=True)
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    out: dict[str, Any] = {name: database.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in tables}
    database.close()
    meta = {key: json.loads(value) for key, value in out["meta"]}
    meta["digests"].pop("meta")
    out["meta"] = {**meta, "id": "", "recipe": {**meta["recipe"], "name": ""}}
    return out


def change(folder: Path, statement: str, *values: Any) -> Path:
    """Change a run's file, and give every elite the hash of what it then says."""
    database = sqlite3.connect(folder / FILE)
    assert database.execute(statement, values).rowcount != 0
    for cell, class_id, niche, birth, *scores, png in database.execute(
        "SELECT cell, class, niche, birth, log_odds, margin, search_log_odds, search_margin, png FROM elites"
    ).fetchall():
        digest = elite_digest(class_id, niche, birth, scores, png)
        database.execute("UPDATE elites SET sha256 = ? WHERE cell = ?", (digest, cell))
    database.commit()
    database.close()
    return folder


def copy(folder: Path, to: Path, **meta: Any) -> Path:
    """A copy of a run, with other values of these keys."""
    shutil.copytree(folder, to)
    for key, value in meta.items():
        change(to, "UPDATE meta SET value = ? WHERE key = ?", json.dumps(value), key)
    return to


def meta_of(folder: Path) -> RunMeta:
    with Store.open(folder) as store:
        return store.meta()


def elites_of(folder: Path) -> dict[int, Any]:
    with Store.open(folder) as store:
        return {row.cell: row for row in store.elites()}


def genomes_of(folder: Path) -> list[bytes]:
    """Of the elites, by cell."""
    with Store.open(folder) as store:
        births = [row.birth for row in store.elites()]
        return [store.genomes(births)[birth] for birth in births]


def origins_of(folder: Path) -> dict[int, tuple[str, int]]:
    with Store.open(folder) as store:
        return store.origins()
