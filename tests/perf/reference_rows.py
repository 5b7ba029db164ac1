"""The reference rows that bench shows beside a result, and the board of the site, made anew
(evofool/bench/reference_results).

    python -m tests.perf.reference_rows OUT                                # digits: four networks, some 20 minutes
    python -m tests.perf.reference_rows OUT --photographs RESULT.json ...  # of finished results of photographs

Three digit networks are trained, and these and the bundled one are attacked by the suite with 100 queries a class, by 5
seeds. The same command continues what was interrupted.
"""

import argparse
from pathlib import Path

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
            write_row("photographs", path, load_result(path)["target"]["name"])
        return
    run_bench(parse(RECIPE, "reference"), args.out)
    for own_name, name in NAMES.items():
        write_row("digits", args.out / "results" / f"{own_name}.json", name)


def write_row(kind: str, path: Path, name: str) -> None:
    file = FOLDER / kind / f"{name.replace(' ', '-')}.json"
    write_json(file, reference_copy(load_result(path), name))
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
