"""Invented results of benchmarks as JSON: for the tests of the report, and to look at the page."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from evofool.bench.arms import ARMS
from evofool.bench.headline import SUITE
from evofool.pages.sheet import Tile

KINDS = {
    "direct": "search",
    "cppn": "search",
    "canvas": "search",
    "per-class": "search",
    "random": "black",
    "square": "black",
    "nes": "black",
    "surrogate": "surrogate",
    "apgd": "white",
    "fourier": "white",
    "noise": "floor",
}
HARDNESS = {
    "direct": 2.6,
    "cppn": 1.0,
    "canvas": 0.9,
    "per-class": 1.5,
    "random": 60.0,
    "square": 3.5,
    "nes": 5.0,
    "surrogate": 0.2,
    "apgd": 0.25,
    "fourier": 0.6,
    "noise": 1e6,
}
SURROGATES = [
    {
        "name": "lenet-cousin",
        "fingerprint": "44af86d081884c7d659a2feaa0c55ad015",
        "images": 2500,
        "agreement": 0.9632,
        "low": 0.955,
        "high": 0.970,
        "by_chance": 0.1003,
    }
]
BUDGETS = [100, 300, 1_000, 3_000, 10_000]
SEEDS = [0, 1, 2, 3, 4]
WRONG = "the same image was answered twice, and differently (3 of 64)"
CHANGED = "it was made with another target (labels, preprocessing or weights differ)"


def results(targets: int = 12, arms: Sequence[str] = tuple(KINDS), points: int = 1_000) -> list[dict[str, Any]]:
    """The JSON of each target. With five or more, the last is invalid, and so are some cells of cppn and per-class."""
    names = ["lenet", "lenet-2015", *(f"plain-{k}" for k in range(5)), *(f"outlier-exposure-{k}" for k in range(5))]
    found = [result(names[k], k, list(arms), points) for k in range(targets)]
    if targets > 4:
        last = found[-1]
        last |= {"valid": False, "images": None, "raw": {}, "timings": {}, "flags": [invalid(WRONG)]}
        last["target"] = {key: last["target"][key] for key in ("name", "group", "spec")}
        last["scores"] = {"headline": None, "controls": {}, "arms": {}, "sharing": {}, "detectors": [], "image_metrics": {}}
        per_class = found[2]["scores"]["arms"]["per-class"]
        per_class["seeds"], per_class["invalid"] = [0, 1, 2, 4], {"3": CHANGED}
        found[2]["flags"] = [invalid(f"per-class: 1 cell(s) are left out of every figure: {CHANGED}")]
        found[3]["scores"]["arms"]["cppn"] = {
            "kind": "search",
            "seeds": [],
            "invalid": dict.fromkeys(map(str, SEEDS), CHANGED),
        }
        found[3]["scores"]["sharing"] = {}
        found[3]["flags"] = [invalid(f"cppn: 5 cell(s) are left out of every figure: {CHANGED}")]
        found[0]["flags"] = [{"level": "warning", "message": "suspected training images: top-1 0.995, declared 0.93"}]
    return found


def _spread(arms: dict[str, Any]) -> dict[str, Any] | None:
    searching = [name for name, arm in arms.items() if arm["kind"] != "floor"]
    if not searching:
        return None
    rows = {
        score: {
            "arm": searching[0],
            "r95": arms[searching[0]]["r95"][-1],
            "q50": arms[searching[0]]["q50"],
            "control": {"accepted": 0.95, "images": 1240, "standard_error": 0.0061},
        }
        for score in ("margin", "pair")
    }
    return {
        "easiest": "pair",
        "scores": rows,
        "left_out": {"features": "a target without a PyTorch network gives no features"},
    }


def result(name: str, key: int, arms: list[str], points: int = 1_000) -> dict[str, Any]:
    rng = np.random.default_rng([7, key])
    base = 180 * float(rng.uniform(0.7, 1.6)) * (9 if "outlier" in name else 1)
    group = "undefended" if "plain" in name else "outlier exposure" if "outlier" in name else ""
    made = {arm: _arm(arm, base * HARDNESS[arm], rng, points) for arm in arms}
    compared = [arm for arm in ("per-class", "nes", "apgd") if arm in made] if "cppn" in made else []
    image_metrics = {arm: _image_metrics(80, rng) for arm in arms} | {
        "uniform-noise": _image_metrics(99, rng),
        "smooth-noise": _image_metrics(85, rng),
        "real": _image_metrics(50, rng),
    }
    return {
        "schema": "evofool.bench",
        "version": 2,
        "target": {
            "name": name,
            "group": group,
            "spec": name,
            "fingerprint": f"{key:02d}9f86d081884c7d659a2feaa0c55ad015",
            "classes": 10,
            "scored_classes": 10,
            "shape": [1, 28, 28],
            "labels": [str(c) for c in range(10)],
        },
        "protocol": {
            "budgets": BUDGETS,
            "seeds": SEEDS,
            "arms": arms,
            "settings": {"apgd": list(ARMS["apgd"].changes)} if "apgd" in arms else {},
            "rank": "margin",
            "format": "float32",
            "levels": {"tau5": 0.05, "tau50": 0.5},
            "confidence": 0.95,
            "evofool": "0.1.0",
        },
        "images": {
            "source": "digits",
            "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
            "number": 2500,
            "calibration": 1250,
            "control": 1250,
            "correct": 1240,
            "top1": 0.992,
            "declared_top1": None,
            "suspected_training": key == 0,
            "classes_with_own_threshold": 10,
        },
        "valid": True,
        "flags": [],
        "scores": {
            "headline": headline(made),
            "controls": {"real": {"accepted": 0.952, "images": 1240, "standard_error": 0.0061, "met": True}},
            "arms": made,
            "spread": _spread(made),
            "sharing": {r: _ratio(HARDNESS[r] / HARDNESS["cppn"] * float(rng.uniform(0.6, 1.6)), rng) for r in compared},
            "detectors": [
                _detector(d, arm, kind, rng)
                for d in ("msp", "max-logit", "energy", "mahalanobis")
                for arm in arms[1:2]
                for kind in ("static", "adaptive")
                if not (d == "mahalanobis" and kind == "adaptive")
            ],
            "image_metrics": image_metrics,
        },
        "raw": {
            "tau5": 3.1,
            "tau50": 11.2,
            "temperature": 1.4,
            "confidence": {arm: {"5": 0.7, "50": 0.9999, "95": 1.0} for arm in arms},
        },
        **({"surrogates": SURROGATES} if "surrogate" in arms else {}),
        "timings": {"wall_seconds": 812.0 + 60 * key, "device": "cpu", "machines": ["a processor"], "peak_memory_mb": 512.0},
    }


def invalid(message: str) -> dict[str, str]:
    return {"level": "invalid", "message": message}


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    names = [result["target"]["name"] for result in found if result["valid"]]
    n, rng = len(names), np.random.default_rng(8)
    share = np.clip(rng.normal(0.35, 0.2, (n, n)), 0, 1) * (1 - np.eye(n)) + np.eye(n)
    groups = {}
    for group in sorted({result["target"]["group"] for result in found} - {""}):
        members = [result["target"]["name"] for result in found if result["target"]["group"] == group]
        q50 = {
            "value": 240.0 * (9 if "outlier" in group else 1),
            "bound": "=",
            "low": 150.0,
            "high": 900.0,
            "networks": len(members),
            "censored": 0,
        }
        groups[group] = {
            "targets": members,
            "arms": {"cppn": {"q50": q50}, "apgd": {"q50": q50 | {"high": None, "censored": 1, "bound": ">="}}},
        }
    return {
        "schema": "evofool.bench.summary",
        "version": 2,
        "statements": [
            {"statement": "evolution beats random search at every budget", "met": True, "figures": "33 of 33 comparisons"},
            {
                "statement": "the defended networks' Q50 is at least 2x the undefended ones'",
                "met": False,
                "figures": "1.4 [0.9, 2.2]",
            },
            {
                "statement": "the adaptive arm lowers AUROC against the static one",
                "met": None,
                "figures": "no detector was fitted",
            },
        ],
        "groups": groups,
        "transfer": None
        if n < 2
        else {
            "targets": names,
            "share": share.tolist(),
            "low": np.clip(share - 0.08, 0, 1).tolist(),
            "high": np.clip(share + 0.08, 0, 1).tolist(),
            "of": [[50] * n] * n,
            "off_diagonal_median": 0.34,
        },
    }


def tiles(found: list[dict[str, Any]], side: int = 28) -> dict[str, dict[str, Callable[[], list[Tile]]]]:
    """Ten images of noise for each arm, smoother for cppn."""

    def made(number: int, arm: str) -> list[Tile]:
        rng = np.random.default_rng([9, number])
        cells = side // 7 if arm == "cppn" else side
        images = rng.integers(0, 256, (10, 1, cells, cells), np.uint8).repeat(side // cells, 2).repeat(side // cells, 3)
        return [Tile(image, str(k), float(rng.uniform(0.8, 1))) for k, image in enumerate(images)]

    return {
        result["target"]["name"]: {arm: partial(made, number, arm) for arm in result["scores"]["arms"]}
        for number, result in enumerate(found)
    }


def headline(arms: dict[str, Any]) -> dict[str, Any] | None:
    """That of the arm that fools most classes after 1,000 queries; reasons for the arms of the suite that are not there."""
    suite = [arm for arm in SUITE if arm in arms]
    if not suite:
        return None
    row = max((arms[arm]["r95"][BUDGETS.index(1_000)] for arm in suite), key=lambda row: row["value"])
    figures = {key: row[key] for key in ("value", "low", "high", "per_seed")}
    q50 = min((arms[arm]["q50"] for arm in suite), key=lambda q50: q50["value"] or 1_000)
    queries = {key: min((q50[key] or 1_000) / 10, 100.0) for key in ("value", "low", "high")}
    queries |= {"per_seed": [queries["value"]] * len(SEEDS)}
    return {
        "queries_per_class": 100,
        "attack_queries_per_class": 1_000.0,
        "classes": 10,
        "arms": suite,
        "left_out": {arm: "not among the arms of this benchmark" for arm in SUITE if arm not in arms},
        "seeds": SEEDS,
        "score": "margin",
        **figures,
        "queries": queries,
        "reached": (reached := {"value": 0.956, "low": 0.93, "high": 0.97, "per_seed": [0.956] * len(SEEDS)}),
        "by_score": {"margin": figures | {"threshold_variance": 1e-4, "queries": queries, "reached": reached}},
    }


def _arm(arm: str, hard: float, rng: np.random.Generator, points: int) -> dict[str, Any]:
    budget = BUDGETS[-1]
    reached = np.exp(rng.normal(np.log(hard), 0.9, 10)[None] + rng.normal(0, 0.25, (len(SEEDS), 10)))
    queries = np.unique(np.geomspace(1, budget, points).round().astype(int))
    shares = (reached[:, :, None] <= queries).mean(1)
    mean, spread = shares.mean(0), 2.78 * shares.std(0, ddof=1) / len(SEEDS) ** 0.5
    per_seed = np.sort(reached, 1)[:, 4]
    q50 = [round(float(v)) if v <= budget else None for v in per_seed]
    value = float(np.exp(np.log(per_seed).mean()))
    half = float(np.exp(2.78 * np.log(per_seed).std(ddof=1) / len(SEEDS) ** 0.5))
    known = {
        "value": round(value, 1),
        "low": round(value / half, 1),
        "high": round(value * half, 1) if value * half <= budget else None,
    }
    if None in q50:
        known |= {"high": None}
    if not any(q50):
        known = {"value": None, "low": budget, "high": None}

    def at(level: float) -> list[dict[str, Any]]:
        found = []
        for b in BUDGETS:
            reached_shares = (reached * level <= b).mean(1)
            reach = 2.78 * reached_shares.std(ddof=1) / len(SEEDS) ** 0.5
            low, high = max(0.0, reached_shares.mean() - reach), min(1.0, reached_shares.mean() + reach)
            found.append(
                {
                    "queries": b,
                    "queries_per_class": b / 10,
                    "value": float(reached_shares.mean()),
                    "low": low,
                    "high": high,
                    "per_seed": reached_shares.tolist(),
                }
            )
        return found

    scale = 4.0 / (1 + np.log10(1 + hard / 50))
    margins = {q: round(scale * f, 3) for q, f in (("5", 0.4), ("25", 0.8), ("50", 1.0), ("75", 1.2), ("95", 1.7))}
    gradient = KINDS[arm] == "white"
    return {
        "kind": KINDS[arm],
        "seeds": SEEDS,
        "invalid": {},
        "r95": at(1.0),
        "r50": at(6.0),
        "q50": known
        | {
            "bound": ">=" if None in q50 else "=",
            "censored": q50.count(None),
            "per_seed": q50,
            "queries_per_class": known["value"] and known["value"] / 10,
        },
        "curve": {
            "queries": queries.tolist(),
            "value": mean.tolist(),
            "low": np.clip(mean - spread, 0, 1).tolist(),
            "high": np.clip(mean + spread, 0, 1).tolist(),
        },
        "margin_percentiles": {"5": 71.0, "25": 90.0, "50": 99.2, "75": 100.0, "95": 100.0},
        "scaled_margins": margins,
        "calibrated_confidence": {"5": 0.91, "50": 0.9997, "95": 1.0},
        "accepted_at": {
            str(seed): [round(float(at)) if at <= budget else None for at in row]
            for seed, row in zip(SEEDS, reached, strict=True)
        },
        "cost": {"queries": budget, "forwards": budget, "backwards": budget if gradient else 0, "answers": budget + 310}
        | (dict.fromkeys(("surrogate_forwards", "surrogate_backwards"), 12_345.0) if KINDS[arm] == "surrogate" else {}),
    }


def _ratio(ratio: float, rng: np.random.Generator) -> dict[str, Any]:
    wide = float(rng.uniform(1.1, 2.0))
    censored = int(rng.integers(0, 2))
    known = {"bound": ">=" if censored else "=", "high": None if censored else ratio * wide}
    return {"value": ratio, "low": ratio / wide, "pairs": 5, "censored": censored} | known


def _detector(detector: str, arm: str, kind: str, rng: np.random.Generator) -> dict[str, Any]:
    shift = float(rng.uniform(0.8, 2)) - (1.1 if kind == "adaptive" else 0)
    fpr = np.linspace(0, 1, 1_000)
    tpr = fpr ** float(np.exp(-shift))
    area = float(np.trapezoid(tpr, fpr))
    return {
        "detector": detector,
        "arm": arm,
        "kind": kind,
        "auroc": area,
        "fpr95": float(fpr[np.argmax(tpr >= 0.95)]),
        "low": area - 0.04,
        "high": min(1.0, area + 0.04),
        "per_seed": [area] * 5,
        "images": [9, 10, 10, 9, 10],
        "curve": {"fpr": fpr.tolist(), "tpr": tpr.tolist()},
        "real": {"rejected": 0.052, "images": 1250, "standard_error": 0.0087, "met": True},
        "through": {
            "seeds": [0, 1, 2, 3, 4],
            "separate": _through(0.5, 0.05, {"kept": 0.91, "images": 1240, "standard_error": 0.0081}),
            "joint": _through(0.6, 0.031, {"kept": 0.949, "images": 1240, "standard_error": 0.0087, "met": True}),
        },
    }


def _through(share: float, level: float, real: dict[str, Any]) -> dict[str, Any]:
    limits = {"low": share - 0.1, "high": share + 0.1, "per_seed": [share] * 5}
    return {"value": share, "level": level, "real": real, **limits}


def _image_metrics(middle: float, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    bytes_ = float(rng.uniform(0.3, 1.1))
    return {
        "nearest_real_pixels_percentile": {"5": middle / 2, "50": middle, "95": 100.0},
        "bytes_per_pixel": {"5": bytes_ / 2, "50": bytes_, "95": bytes_ * 1.2},
        "total_variation": {"5": 0.05, "50": 0.1 + bytes_ / 4, "95": 0.5},
    }
