"""The reference rows that bench shows beside a result (evofool/bench/reference_results), made anew.

    python -m tests.perf.reference_rows OUT                                # digits: three networks, ten minutes
    python -m tests.perf.reference_rows OUT --photographs RESULT.json ...  # of finished results of photographs

The digit networks are trained, attacked by the suite with 100 queries a class, and scored with 5 seeds. The same command
continues what was interrupted.
"""

import argparse
from pathlib import Path

from evofool.bench.bench import run_bench
from evofool.bench.headline import PER_CLASS, SUITE
from evofool.bench.plan import parse
from evofool.bench.reference import FOLDER, shortened
from evofool.bench.result_file import load_result
from evofool.json_file import write_json

NAMES = {
    "none": "undefended LeNet",
    "adversarial": "adversarially trained LeNet",
    "outlier-exposure": "LeNet with outlier exposure",
}
RECIPE = {
    "name": "reference",
    "images": "digits",
    "arms": SUITE,
    "budgets": [10 * PER_CLASS],
    "seeds": 5,
    "targets": [{"train": kind} for kind in NAMES],
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
    for kind, name in NAMES.items():
        write_row("digits", args.out / "results" / f"{kind}-1.json", name)


def write_row(kind: str, path: Path, name: str) -> None:
    file = FOLDER / kind / f"{name.replace(' ', '-')}.json"
    write_json(file, shortened(load_result(path), name))
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
