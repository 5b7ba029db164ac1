"""What canvases cost: microseconds of each operator, of rendering and packing, and the bytes that a run's file has.

    python -m tests.perf.canvas_cost runs/imagenet

Times are of one core, the best of five rounds, for 64 genomes of the shape of imagenet that 30 batches were varied.
Without a run only these are printed. Of a run: its genomes, how many are whole, their bytes, and what they would take if all
were whole, packed and as pixels.
"""

import argparse
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from evofool.recipe import load
from evofool.run.reader import FILE
from evofool.run.stored import StoredRun
from genomes import Canvas, Key
from genomes.canvas.operators import Rates

COUNT = 64


def microseconds(work: Callable[[], object]) -> float:
    """Of one genome of COUNT."""
    work()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times) / COUNT * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path)
    args = parser.parse_args()
    encoding = load("imagenet").encoding.build((3, 224, 224))
    assert isinstance(encoding, Canvas)
    genomes = encoding.random(COUNT, Key(0, 0))
    for batch in range(1, 31):
        genomes = encoding.vary(genomes, genomes[::-1].copy(), Key(0, batch))
    fathers = genomes[::-1].copy()
    for name in Rates._fields:
        alone = replace(encoding, rates=Rates(*[float(name == other) for other in Rates._fields]))
        print(f"{name:<14}{microseconds(lambda alone=alone: alone.vary(genomes, fathers, Key(0, 31))):>8.0f} us")
    print(f"{'vary':<14}{microseconds(lambda: encoding.vary(genomes, fathers, Key(0, 31))):>8.0f} us")
    print(f"{'render':<14}{microseconds(lambda: encoding.render(genomes)):>8.0f} us")
    packed = [encoding.pack(genome) for genome in genomes]
    print(f"{'pack':<14}{microseconds(lambda: [encoding.pack(genome) for genome in genomes]):>8.0f} us")
    print(f"{'unpack':<14}{microseconds(lambda: encoding.unpack(packed)):>8.0f} us")
    if args.run:
        _print_file(args.run)


def _print_file(folder: Path) -> None:
    with closing(sqlite3.connect(folder / FILE)) as db:
        count, whole, length = db.execute("SELECT COUNT(*), SUM(steps = 0), SUM(LENGTH(genome)) FROM genomes").fetchone()
    with StoredRun(folder) as run:
        births, raw = run.store.births(), int(run.encoding.dtype["pixels"].itemsize)
        packed = sum(len(run.encoding.pack(genome)) for at in births for genome in run.genomes([at]))
        evaluations = run.evaluations
    size = (folder / FILE).stat().st_size
    print(f"{evaluations:,} evaluations: {size / 1e6:.1f} MB, of which {length / 1e6:.1f} MB are genomes")
    print(f"{count:,} genomes, {whole:,} of them whole; all whole: {packed / 1e6:.1f} MB packed, {count * raw / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
