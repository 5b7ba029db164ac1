"""Whether this tree gives the same results as an older commit, to the bit: runs of recipes, and one small benchmark.

    python -m tests.perf.compare_commits COMMIT
    python -m tests.perf.compare_commits COMMIT --only mnist-cppn bench --keep /tmp/older

The older commit is checked out into a folder of its own and runs there, on this machine, in its own process. Compared are
the elites (scores, images, births), the lineage (every genome that entered the archive, its parents, and every cell that
was replaced), the rows of metrics, and the `scores` of the benchmark. JSON keys and values that were renamed since are
listed in RENAMED. `cost.answers`, which counts the images that validate a target too, is printed for both and not
compared. Exits with 1 on any other difference. --keep keeps the older results there, and reuses them.
"""

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EVALUATIONS = {"mnist-cppn": 3000, "mnist-direct": 3000, "imagenet-cppn-10k": 1000}

RENAMED = {
    "looks": "image_metrics",
    "own": "per-class",
    "plain": "float32",
    "float32": "float32-folded",
    "of": "images",
    "per_class": "queries_per_class",
    "tau_variance": "threshold_variance",
    "margins_of_scale": "scaled_margins",
    "p_fitted": "calibrated_confidence",
    "holds": "met",
}
"""Names of the older commit and what they are called now: keys and values."""

QUERIES = {
    "elites": "SELECT cell, class, niche, birth, log_odds, margin, search_log_odds, search_margin, png, sha256 FROM elites"
    " ORDER BY cell",
    "genomes": "SELECT birth, batch, mother, father, genome, steps FROM genomes ORDER BY birth",
    "cell_history": "SELECT cell, birth, batch, log_odds, margin, switched FROM {cell_history} ORDER BY id",
    "metrics": "SELECT batch, row FROM metrics ORDER BY batch",
}

BENCH = """
targets = [{ target = "lenet" }]
images = "digits"
budgets = [100, 400]
seeds = 2
arms = ["cppn", "%(own)s", "random", "apgd"]

[detectors]
names = ["msp"]

[%(looks)s]
"""


def evofool(tree: Path, *words: str) -> None:
    """Run a command of the evofool in tree; SystemExit with what it printed if it fails."""
    # Older commits do not set it themselves, and it decides last bits.
    environment = {"MKL_CBWR": "AUTO", **os.environ, "PYTHONPATH": str(tree)}
    line = [sys.executable, "-m", "evofool", *words]
    done = subprocess.run(line, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"ended with {done.returncode}: {' '.join(line)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def run(tree: Path, recipe: str, out: Path, number_format: str | None) -> str:
    """Run a recipe of tree into out, unless it is there; the number format it ranked in, which a timing may decide."""
    if not (out / "run.db").is_file():
        changes = ["stop.confidence=", f"stop.evaluations={EVALUATIONS[recipe]}"]
        changes += [] if number_format is None else [f"compute.format={number_format}"]
        evofool(tree, "run", recipe, "--out", str(out), *(word for change in changes for word in ("--set", change)))
    with sqlite3.connect(out / "run.db") as db:
        recipe_text = db.execute("SELECT value FROM meta WHERE key = 'recipe'").fetchone()[0]
    return str(json.loads(recipe_text)["compute"]["format"])


def content(folder: Path) -> dict[str, list[Any]]:
    """What the file of a run in folder holds, of this version or an older one."""
    with sqlite3.connect(folder / "run.db") as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        # The table's name has changed, its columns have not.
        columns = {table: {row[1] for row in db.execute(f"PRAGMA table_info({table})")} for table in tables}
        (history,) = [table for table in tables if {"cell", "switched"} <= columns[table]]
        return {part: db.execute(query.format(cell_history=history)).fetchall() for part, query in QUERIES.items()}


def scores_of(tree: Path, out: Path, *, older: bool) -> dict[str, Any]:
    """The scores of the small benchmark, by target, with today's names."""
    names = {new: old for old, new in RENAMED.items()} if older else {}
    if not (out / "report.html").is_file():
        recipe = out.with_suffix(".toml")
        recipe.write_text(
            BENCH % {"own": names.get("per-class", "per-class"), "looks": names.get("image_metrics", "image_metrics")}
        )
        evofool(tree, "bench", str(recipe), "--out", str(out))
    scores = {path.stem: json.loads(path.read_text())["scores"] for path in sorted((out / "results").glob("*.json"))}
    assert scores, f"{out / 'results'} has no results"
    return renamed(scores) if older else scores


def renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {RENAMED.get(key, key): renamed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [renamed(entry) for entry in value]
    return RENAMED.get(value, value) if isinstance(value, str) else value


def answers_taken(scores: Any) -> list[float]:
    """The values of `answers` in scores, which are taken out of them."""
    if isinstance(scores, list):
        return [value for entry in scores for value in answers_taken(entry)]
    if not isinstance(scores, dict):
        return []
    found = [scores.pop("answers")] if "answers" in scores else []
    return [*found, *(value for key in sorted(scores) for value in answers_taken(scores[key]))]


def report(name: str, part: str, before: Any, now: Any) -> bool:
    """Print how a part compares; whether it is equal."""
    same = bool(before == now)
    print(f"{name:<20} {part:<14} {len(before):>7,} entries  {'equal' if same else 'DIFFERENT'}", flush=True)
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("--only", nargs="+", choices=[*EVALUATIONS, "bench"], default=[*EVALUATIONS, "bench"])
    parser.add_argument("--keep", type=Path, help="folder for what the older commit makes, reused if it is there")
    args = parser.parse_args()
    same = True
    with tempfile.TemporaryDirectory() as scratch:
        here, tree = Path(scratch) / "now", Path(scratch) / "older-tree"
        kept = args.keep.absolute() if args.keep else Path(scratch) / "older"
        here.mkdir()
        kept.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), args.commit], cwd=ROOT, check=True)
        try:
            for name in args.only:
                if name == "bench":
                    before, now = scores_of(tree, kept / name, older=True), scores_of(ROOT, here / name, older=False)
                    print(f"{name:<20} cost.answers   {answers_taken(before)} before, {answers_taken(now)} now")
                    same &= report(name, "scores", before, now)
                    continue
                number_format = run(tree, name, kept / name, None)
                run(ROOT, name, here / name, RENAMED.get(number_format, number_format))
                older, newer = content(kept / name), content(here / name)
                for part in QUERIES:
                    same &= report(name, part, older[part], newer[part])
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)
            shutil.rmtree(tree, ignore_errors=True)
    raise SystemExit(not same)


if __name__ == "__main__":
    main()
