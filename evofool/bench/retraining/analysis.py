"""The figures of a retraining: accuracies, confidences and tests of each iteration, beside the medians of the paper."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

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
from evofool.json_file import write_json
from evofool.machine import torch_threads
from evofool.run.stored import StoredRun
from evofool.targets import target
from evofool.targets.digits import LABELS, held_out

PAPER_MEDIANS = (
    0.9999, 0.9742, 0.9983, 0.7252, 0.9755, 0.9968, 0.7613, 0.9996, 0.9951, 0.9948, 0.9862, 0.9997, 0.9993, 0.9915, 0.9915,
)  # fmt: skip
"""Median confidences of the 15 MNIST networks of Nguyen 2015, in order; recalled, not measured here."""

_BATCH = 250  # real digits, the same number on every machine


def analyse(plan: RetrainingPlan, folder: Path) -> dict[str, Any]:
    """Write the figures of all finished iterations to the folder's retrain.json, and return them.

    An iteration covers the runs that have finished it. Its confidences are those of the best image of each digit in every
    evolution. Two-sided Mann-Whitney tests compare it with the first iteration and with the one before: over images, as in
    the paper, although images of one network are not independent; and over the medians of runs, which are independent.
    """
    rows: list[dict[str, Any]] = []
    for iteration in range(1, plan.iterations + 1):
        done = [run for run in range(1, plan.repeats + 1) if _is_done(plan, folder, run, iteration)]
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
    network_folder = iteration_folder(folder, run, iteration)
    return all(finished(network_folder / f"evolution-{e}") for e in range(1, plan.searches + 1))


def _row(plan: RetrainingPlan, folder: Path, iteration: int, runs: Sequence[int]) -> dict[str, Any]:
    networks = [_on_digits(iteration_folder(folder, run, iteration) / "network.safetensors") for run in runs]
    by_run = [_confidences(iteration_folder(folder, run, iteration), plan.searches) for run in runs]
    medians = [float(np.median(confidences)) for confidences in by_run]
    pooled = np.concatenate(by_run)
    images, over_runs = median_interval(pooled.tolist()), median_interval(medians)
    shown = [len(fooling_images(folder, run, iteration - 1, plan.searches)) if iteration > 1 else 0 for run in runs]
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
        "confidences": [confidences.tolist() for confidences in by_run],
        "paper_recalled": PAPER_MEDIANS[iteration - 1] if iteration <= len(PAPER_MEDIANS) else None,
    }  # fmt: skip


def _tests(row: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    tests = {}
    for name, values in (
        ("images", [np.concatenate(figures["confidences"]).tolist() for figures in (row, other)]),
        ("runs", [figures["of_runs"]["each"] for figures in (row, other)]),
    ):
        u, p = mann_whitney(*values)
        tests[name] = {"u": u, "p": p}
    return tests


def _on_digits(weights: Path) -> tuple[float, int]:
    """Accuracy on the held-out real digits, and the number of them that are classified as "nothing"."""
    images, labels = held_out()
    attacked = target(f"lenet?weights={weights.absolute()}")
    with torch_threads(1):
        parts = [attacked.logits(images[at : at + _BATCH]) for at in range(0, len(images), _BATCH)]
    called = np.concatenate(parts).argmax(axis=1)
    return float((called == labels).mean()), int((called == len(LABELS)).sum())


def _confidences(network_folder: Path, evolutions: int) -> np.ndarray:
    """(evolutions * 10,) float64: the highest confidence of each digit in each evolution, 0 if there is no elite."""
    best = np.zeros((evolutions, len(LABELS)))
    for e in range(evolutions):
        with StoredRun(network_folder / f"evolution-{e + 1}") as stored:
            for elite in stored.listed():
                if elite.row.class_id < len(LABELS):
                    best[e, elite.row.class_id] = max(best[e, elite.row.class_id], elite.confidence)
    return best.ravel()
