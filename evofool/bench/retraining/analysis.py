"""The figures of a retraining: accuracies, confidences and tests of each iteration, and the paper's medians, recalled."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from evofool.bench.json_file import write_json
from evofool.bench.retraining.retrain_loop import (
    FILE,
    SCHEMA,
    VERSION,
    RetrainingPlan,
    finished,
    fooling_images,
    iteration_folder,
)
from evofool.bench.statistics import mann_whitney, median_interval
from evofool.machine import torch_threads
from evofool.run.stored import StoredRun
from evofool.targets import target
from evofool.targets.digits import LABELS, held_out

PAPER = (
    0.9999, 0.9742, 0.9983, 0.7252, 0.9755, 0.9968, 0.7613, 0.9996, 0.9951, 0.9948, 0.9862, 0.9997, 0.9993, 0.9915, 0.9915,
)  # fmt: skip
"""Median confidences of Nguyen 2015's 15 MNIST networks in turn; recalled, not measured here."""

_BATCH = 250  # of real digits, on any machine the same


def analyse(plan: RetrainingPlan, folder: Path) -> dict[str, Any]:
    """The figures of all that is done, which become the folder's retrain.json. An iteration's are of the runs that have it.

    Confidences are of each digit's best image, of every evolution against every run's network. Two tests against the first
    iteration and against the one before (Mann-Whitney, two-sided): of images, as the paper has it, where the digits of one
    network are not independent of each other; and of runs' medians, which are.
    """
    rows: list[dict[str, Any]] = []
    for iteration in range(1, plan.iterations + 1):
        done = [run for run in range(1, plan.runs + 1) if _is_done(plan, folder, run, iteration)]
        if not done:
            break
        rows.append(_row(plan, folder, iteration, done))
    for row in rows:
        for name, other in (("first", rows[0]), ("before", rows[max(0, row["iteration"] - 2)])):
            row[f"against_{name}"] = None if row is rows[0] else _tests(row, other)
    payload = {
        "schema": SCHEMA,
        "version": VERSION,
        "plan": asdict(plan) | {"changes": list(plan.changes)},
        "iterations": rows,
        "paper": "medians of Nguyen 2015, recalled, not measured here",
    }
    write_json(folder / FILE, payload)
    return payload


def _is_done(plan: RetrainingPlan, folder: Path, run: int, iteration: int) -> bool:
    place = iteration_folder(folder, run, iteration)
    return all(finished(place / f"evolution-{e}") for e in range(1, plan.evolutions + 1))


def _row(plan: RetrainingPlan, folder: Path, iteration: int, runs: Sequence[int]) -> dict[str, Any]:
    networks = [_on_digits(iteration_folder(folder, run, iteration) / "network.safetensors") for run in runs]
    each = [_confidences(iteration_folder(folder, run, iteration), plan.evolutions) for run in runs]
    medians = [float(np.median(one)) for one in each]
    pooled = np.concatenate(each)
    images, over_runs = median_interval(pooled.tolist()), median_interval(medians)
    shown = [len(fooling_images(folder, run, iteration - 1, plan.evolutions)) if iteration > 1 else 0 for run in runs]
    return {
        "iteration": iteration,
        "runs": list(runs),
        "accuracy": [accuracy for accuracy, _ in networks],
        "rejected": [rejected for _, rejected in networks],
        "real_digits": len(held_out()[1]),
        "fooling_images": shown,
        "median": images.value,
        "of_images": {"low": images.low, "high": images.high, "confidence": images.confidence, "number": len(pooled)},
        "of_runs": {
            "median": over_runs.value, "low": over_runs.low, "high": over_runs.high, "confidence": over_runs.confidence,
            "each": medians,
        },
        "share_at_99": float((pooled >= 0.99).mean()),
        "confidences": [one.tolist() for one in each],
        "paper_recalled": PAPER[iteration - 1] if iteration <= len(PAPER) else None,
    }  # fmt: skip


def _tests(row: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    tests = {}
    for name, values in (
        ("images", [np.concatenate(one["confidences"]).tolist() for one in (row, other)]),
        ("runs", [one["of_runs"]["each"] for one in (row, other)]),
    ):
        u, p = mann_whitney(*values)
        tests[name] = {"u": u, "p": p}
    return tests


def _on_digits(weights: Path) -> tuple[float, int]:
    """Accuracy on the held-out real digits, and how many of them are called nothing."""
    images, labels = held_out()
    attacked = target(f"lenet?weights={weights.absolute()}")
    with torch_threads(1):
        parts = [attacked.logits(images[at : at + _BATCH]) for at in range(0, len(images), _BATCH)]
    called = np.concatenate(parts).argmax(axis=1)
    return float((called == labels).mean()), int((called == len(LABELS)).sum())


def _confidences(place: Path, evolutions: int) -> np.ndarray:
    """(evolutions * 10,) float64: each digit's best, 0 where a search has none."""
    best = np.zeros((evolutions, len(LABELS)))
    for e in range(evolutions):
        with StoredRun(place / f"evolution-{e + 1}") as stored:
            for elite in stored.elites():
                if elite.row.class_id < len(LABELS):
                    best[e, elite.row.class_id] = max(best[e, elite.row.class_id], elite.confidence)
    return best.ravel()
