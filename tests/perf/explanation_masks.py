"""Are an explanation's masks where the class is? Checks, fresh checks, and the maps' deletion and insertion areas.

    python -m tests.perf.explanation_masks --photographs DIR --out FILES        about 40 s of a core a photograph and network

Six photographs of scikit-image and scikit-learn and 40 of DIR (every 25th of its sorted JPEGs, from the 13th on), each for
the class that the network gives it. The settings of evofool/explain/masks.py were chosen on others, with the first
network: --chosen measures those, every 25th from the first on. The checks of the page (64 copies; mean colour, then blur)
are followed by two of the answer's mask with fresh copies: by the blur again, and by a fill that no mask was made or chosen
with, the pixels of the next photograph. The result of each photograph is a file in FILES; those that are there are not
measured again, so the command can be stopped and repeated. The tables are of all files that are there.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import sklearn.datasets
import torch

from evofool.explain.answer import answer
from evofool.explain.covering import answers
from evofool.explain.curves import curves, random_map
from evofool.explain.elements import find_elements
from evofool.explain.figures import mask_figures
from evofool.explain.input_picture import read_picture
from evofool.explain.mask_check import MaskCheck, Removal, check_by_both_fills, check_mask, shifted
from evofool.explain.masks import most_effective, object_mask, occlusion_mask, saliency_mask
from evofool.explain.occlusion import ablate, occlude
from evofool.explain.saliency import Averaging, saliency, smooth_saliency
from evofool.json_file import read_json, write_json
from evofool.targets import Target, target
from tests.perf.shapes import Row

SCHEMA, VERSION = "evofool-explanation-masks", 1
TARGETS = ("efficientnet-lite0", "efficientnet-lite1")
FROM_SKIMAGE = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
FROM_SKLEARN = ("china.jpg", "flower.jpg")
EVERY, MEASURED_FROM, COUNT, CHOSEN = 25, 12, 40, 20
MOST_PASS, MOST_PASS_AGAIN = 0.60, 0.85


def photographs(folder: Path, chosen: bool) -> list[Path]:
    """Those that are measured, or those on which settings were chosen."""
    if chosen:
        return sorted(folder.glob("*.jpg"))[::EVERY][:CHOSEN]
    theirs = [Path(skimage.__file__).parent / "data" / name for name in FROM_SKIMAGE]
    theirs += [Path(sklearn.datasets.__file__).parent / "images" / name for name in FROM_SKLEARN]
    return theirs + sorted(folder.glob("*.jpg"))[MEASURED_FROM::EVERY][:COUNT]


def measured(found: Target, file: Path, other: Path) -> dict[str, Any]:
    """The checks of every mask and the areas of every map, for one photograph. other: the next one."""
    began = time.process_time()
    image, _ = read_picture(file, found)
    class_id = int(found.logits(image[None])[0].argmax())
    maps, masks = _maps_and_masks(found, image, class_id)
    checks = [check_by_both_fills(found, image, class_id, part, mask) for part, mask in masks.items() if mask.any()]
    result = answer(found, class_id, checks)
    again = None
    if result.mask:
        fresh = check_mask(found, image, class_id, result.mask.mask, fill="blur", seed=1)
        photograph = by_photograph(found, image, class_id, result.mask.mask, read_picture(other, found)[0])
        again = {"part": result.mask.part, "blur": fresh.passed, "photograph": photograph.passed}
    areas = curves(found, image, class_id, maps)
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "target": found.name,
        "photograph": file.name,
        "label": found.labels[class_id],
        "answer": result.sentence,
        "masks": [mask_figures(checked, found) for checked in checks],
        "again": again,
        "areas": {name: [curve.deletion_area, curve.insertion_area] for name, curve in areas.items()},
        "seconds": time.process_time() - began,
    }


def by_photograph(found: Target, image: np.ndarray, class_id: int, mask: np.ndarray, other: np.ndarray) -> MaskCheck:
    """The check with fresh copies, and the pixels of another image in the place of the mask's."""
    places = [mask, *shifted(mask, 64, 1)]
    odds, predicted = answers(found, [image, *(np.where(place, other, image) for place in places)], class_id)
    removal = Removal(float(odds[1]), float("nan"), int(predicted[1]), -1)
    return MaskCheck("mean", float(mask.mean()), float(odds[0]), int(predicted[0]), {"mean": removal}, odds[2:])


def _maps_and_masks(found: Target, image: np.ndarray, class_id: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    smooth = {name: maps[0] for name, maps in smooth_saliency(found, image[None], [class_id]).items()}
    drops = occlude(found, image, class_id).map
    elements = find_elements(image)
    maps = {
        "occlusion": drops,
        "saliency": saliency(found, image[None], [class_id])[0],
        "ten crops": saliency(found, image[None], [class_id], averaging=Averaging("crops"))[0],
        **smooth,
        "random pixels": random_map(*drops.shape),
        "random patches": random_map(*drops.shape, patch=round(min(drops.shape) / 8)),
    }
    masks = {
        "occlusion": occlusion_mask(drops),
        "saliency": saliency_mask(smooth["smooth"]),
        "segmentation": object_mask(image, smooth["smooth"]),
    }
    if elements:
        masks["elements"] = most_effective(elements, ablate(found, image, class_id, elements))
    return maps, masks


def rows(results: list[Mapping[str, Any]]) -> list[Row]:
    """The bounds, and how often each kind of mask passes."""
    passed = [result for result in results if result["again"]]
    share = len(passed) / len(results)
    figure = f"{len(passed)} of {len(results)}: {share:.0%}"
    found = [Row("a mask passes", f">= {MOST_PASS:.0%}", figure, share >= MOST_PASS)]
    for fill in ("blur", "photograph"):
        again = sum(result["again"][fill] for result in passed)
        share = again / max(1, len(passed))
        figure = f"{again} of {len(passed)}: {share:.0%}"
        found.append(Row(f"... again, fresh copies, {fill}", f">= {MOST_PASS_AGAIN:.0%}", figure, share >= MOST_PASS_AGAIN))
    for part in ("occlusion", "elements", "saliency", "segmentation"):
        of_part = [mask for result in results for mask in result["masks"] if mask["part"] == part]
        passes, mean = sum(mask["passed"] for mask in of_part), sum(mask["mean"]["passed"] for mask in of_part)
        area = np.mean([mask["area"] for mask in of_part]) if of_part else 0.0
        chosen = sum(result["again"]["part"] == part for result in passed)
        found.append(
            Row(
                f"{part} passes",
                "",
                f"{passes} of {len(of_part)} ({mean} by mean), area {area:.1%}; the answer {chosen}",
                None,
            )
        )
    return found


def areas_table(results: list[Mapping[str, Any]]) -> list[str]:
    """Markdown: each map's mean areas, and how often they are better than those of random patches."""
    lines = ["| map | deletion area | insertion area | deletion below random patches | insertion above |"]
    lines.append("|---|---|---|---|---|")
    for name in results[0]["areas"]:
        both = np.array([result["areas"][name] for result in results])
        random = np.array([result["areas"]["random patches"] for result in results])
        better = [np.mean(both[:, 0] < random[:, 0]), np.mean(both[:, 1] > random[:, 1])]
        shown = ["", ""] if name == "random patches" else [f"{share:.0%}" for share in better]
        lines.append(f"| {name} | {both[:, 0].mean():.3f} | {both[:, 1].mean():.3f} | {shown[0]} | {shown[1]} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, required=True, help="a folder of at least 1,000 JPEGs")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the results")
    parser.add_argument("--chosen", action="store_true", help="measure the photographs that settings were chosen on")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--most", type=int, default=None, help="measure at most so many photographs a network")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for spec in args.targets:
        found = target(spec)
        results = []
        files = photographs(args.photographs, args.chosen)
        for file, other in zip(files[: args.most], files[1:] + files[:1], strict=False):
            path = args.out / f"{found.name}-{file.stem}.json"
            if not path.exists():
                write_json(path, measured(found, file, other))
                print(f"{path.name} written", flush=True)
            results.append(read_json(path, SCHEMA, VERSION, "delete it and measure again"))
        seconds = sum(result["seconds"] for result in results)
        print(f"\n{found.name}: {len(results)} photographs, {seconds:.0f} s of one core")
        for row in rows(results):
            held = {True: "held", False: "MISSED", None: ""}[row.held]
            print(f"{row.name:<36}{row.bound:<10}{row.figure:<56}{held}")
        print("\n".join(areas_table(results)))


if __name__ == "__main__":
    main()
