"""What layers keep by depth: is a class that is kept at a layer kept at each earlier one, and does the error fall?

    python -m tests.perf.inversions_by_depth efficientnet-lite0 --photographs DIR --elites runs/mine --out FILES

Inverts five layers of a network for photographs of scikit-image and scikit-learn with a class of ImageNet, some of a folder
and the ten elites of a run that are surest of their class, a quarter of a minute of a core for each image. Each image's
result is a file in FILES, and a second run measures only the images that have none. --only part: images whose name starts
with it.

Two properties should hold for an image: a class that is kept at a layer is kept at each earlier one, and the error falls or
stays towards the input. Settings were chosen on astronaut and on the photographs 212 and 712 of a thousand of ImageNet,
sorted by name, and on digits; `--photographs` takes evenly spaced ones, and neither is among 40.
"""

import argparse
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

from evofool.explain.inversion import invert
from evofool.explain.layers import evenly
from evofool.explain.nearest import some_real
from evofool.json_file import read_json, write_json
from evofool.run.stored import StoredRun
from evofool.scores import margin
from evofool.targets import Target, target
from evofool.targets.photos import to_input
from tests.perf.inversions import LEAST, falls_towards_input, kept_earlier_too, square
from tests.perf.shapes import HELD_OUT, TRAINED_ON

SCHEMA, VERSION = "evofool/inversions-by-depth", 1
TOGETHER = 2  # images that are inverted in one call


def measured(network: Target, layers: Sequence[str], images: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """For each image its margin and, by layer, errors over the distances of pairs of photographs, kept, seconds."""
    reference = square((*HELD_OUT, *TRAINED_ON), network.shape[1:])
    results: list[dict[str, Any]] = [{"margin": float(m), "layers": []} for m in margin(network.logits(images)).max(1)]
    for layer in layers:
        began = time.process_time()
        found = invert(network, images, layer, reference=reference, seed=seed)
        seconds = (time.process_time() - began) / len(images)
        apart = np.sqrt(((found.images / 255.0 - images / 255.0) ** 2).mean((1, 2, 3)))
        for k, result in enumerate(results):
            result["layers"].append(
                {
                    "layer": layer,
                    "tv": found.tv,
                    "leak": found.leak,
                    "steps": found.steps,
                    "unsquared": float(found.unsquared[k]),
                    "squared": float(found.squared[k]),
                    "pixels": float(apart[k]),
                    "kept": bool(found.kept[k]),
                    "margin": float(found.margins[k]),
                    "seconds": seconds,
                }
            )
    return results


def report(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a table by layer, and the images without each property."""
    names = list(results)
    by_layer = list(zip(*(result["layers"] for result in results.values()), strict=True))
    print("| layer | tv | leak | steps | unsquared: mean, median | squared | pixels | kept | core s an image |")
    print("|---|---|---|---|---|---|---|---|---|")
    for rows in by_layer:
        first = rows[0]
        error, squared, pixels, seconds = (
            np.array([row[key] for row in rows]) for key in ("unsquared", "squared", "pixels", "seconds")
        )
        kept = f"{sum(row['kept'] for row in rows)} of {len(rows)}"
        print(
            f"| {first['layer']} | {first['tv']:.3g} | {first['leak']:.2g} | {first['steps']} "
            f"| {error.mean():.3f}, {np.median(error):.3f} | {squared.mean():.2%} | {pixels.mean():.3f} | {kept} "
            f"| {seconds.mean():.1f} |"
        )
    kept, errors = (np.array([[row[key] for row in rows] for rows in by_layer]) for key in ("kept", "unsquared"))
    checks = {
        "kept at a layer, then at each earlier one": kept_earlier_too(kept),
        "the error falls or stays towards the input": falls_towards_input(errors),
    }
    for what, held in checks.items():
        verdict = "held" if held.mean() >= LEAST else "MISSED"
        print(f"{what}: {held.sum()} of {len(held)} images ({held.mean():.1%}; >= {LEAST:.0%}: {verdict})")
        for k in np.flatnonzero(~held).tolist():
            layers = zip(errors[:, k], kept[:, k], strict=True)
            shown = " ".join(f"{error:.3f}{'' if stays else ' lost'}" for error, stays in layers)
            print(f"  not {names[k]} (margin {results[names[k]]['margin']:.2f}): {shown}")


def subjects(network: Target, photographs: Path | None, count: int, elites: Path | None) -> dict[str, np.ndarray]:
    """uint8 images (C, H, W) by name; an image of another shape than the target's is cut and resized."""
    shown = {name: getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}
    shown |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    found = {name: to_input(Image.fromarray(pixels), network) for name, pixels in shown.items()}
    if photographs is not None:
        found |= {f"photograph {k}": image for k, image in enumerate(some_real(network, photographs, count))}
    if elites is not None:
        with StoredRun(elites) as run:
            for elite in sorted(run.elites(), key=lambda each: -each.row.log_odds)[:10]:
                picture = Image.fromarray(elite.image.transpose(1, 2, 0))
                found[f"elite of {elite.label}"] = to_input(picture, network)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", help="a network")
    parser.add_argument("--photographs", type=Path, help="a folder of photographs")
    parser.add_argument("--count", type=int, default=40, help="how many of them, evenly spaced")
    parser.add_argument("--elites", type=Path, help="a run, for ten of its elites")
    parser.add_argument("--only", default="", help="images whose name starts with this")
    parser.add_argument("--most", type=int, help="stop after so many images")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the results")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    network = target(args.target)
    layers = evenly(network)
    images = subjects(network, args.photographs, args.count, args.elites)
    names = [name for name in images if name.startswith(args.only)][: args.most]
    files = {
        name: args.out / (re.sub("[^A-Za-z0-9.]+", "-", f"{network.name}-{args.seed}-{name}") + ".json") for name in names
    }
    missing = [name for name in names if not files[name].exists()]
    for at in range(0, len(missing), TOGETHER):
        part = missing[at : at + TOGETHER]
        results = measured(network, layers, np.stack([images[name] for name in part]), args.seed)
        for name, result in zip(part, results, strict=True):
            write_json(files[name], {"schema": SCHEMA, "version": VERSION, **result})
            print(f"{files[name].name} written", flush=True)
    report({name: read_json(files[name], SCHEMA, VERSION, "delete it and measure again") for name in names})


if __name__ == "__main__":
    main()
