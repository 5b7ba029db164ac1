"""The reference rows that bench shows beside a result, and the board of the site, made anew
(evofool/bench/reference_results).

    python -m tests.perf.reference_rows OUT                                # digits: four networks, some 20 minutes
    python -m tests.perf.reference_rows OUT --photographs RESULT.json ...  # of finished results of photographs

Three digit networks are trained, and these and the bundled one are attacked by the suite with 100 queries a class, by 5
seeds. The same command continues what was interrupted.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evofool.bench.bench import run_bench
from evofool.bench.headline import PER_CLASS, SUITE
from evofool.bench.plan import parse
from evofool.bench.reference import FOLDER, reference_copy
from evofool.bench.result_file import load_result
from evofool.json_file import write_json

NAMES = {
    "lenet": "bundled LeNet",
    "none-1": "undefended LeNet",
    "adversarial-1": "adversarially trained LeNet",
    "outlier-exposure-1": "LeNet with outlier exposure",
    "efficientnet-lite0": "EfficientNet-Lite0",
    "efficientnet-lite1": "EfficientNet-Lite1",
    "efficientnet-lite2": "EfficientNet-Lite2",
    "torchvision_squeezenet1_0": "SqueezeNet 1.0",
}
"""By name in the benchmark, the name that is shown."""
RECIPE = {
    "name": "reference",
    "images": "digits",
    "arms": SUITE,
    "budgets": [10 * PER_CLASS],
    "seeds": 5,
    "targets": [
        {"target": "lenet", "top1": 0.992},
        *({"train": kind} for kind in ("none", "adversarial", "outlier-exposure")),
    ],
    "transfer": True,
    "detectors": {"names": ["energy"], "arm": "canvas"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--photographs", nargs="*", type=Path, default=[])
    args = parser.parse_args()
    if args.photographs:
        for path in args.photographs:
            write_row("photographs", path)
        return
    run_bench(parse(RECIPE, "reference"), args.out)
    for path in sorted((args.out / "results").glob("*.json")):
        write_row("digits", path)


def write_row(kind: str, path: Path) -> None:
    name = NAMES.get(path.stem, path.stem)
    file = FOLDER / kind / f"{name.replace(' ', '-')}.json"
    write_json(file, reference_copy(without_folders(load_result(path)), name))
    print(f"wrote {file}")


def without_folders(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with the names of files and folders alone, of the real images and in the spec, without where they lay."""
    target, images = result["target"], result["images"]
    spec = re.sub(r"(?<==)[^&=]*/", "", target["spec"])
    return {**result, "target": {**target, "spec": spec}, "images": {**images, "source": Path(images["source"]).name}}


if __name__ == "__main__":
    main()
