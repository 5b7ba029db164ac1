"""The numba renderer against its numpy oracle, one thread, alternating: how many times faster, medians.

python -m tests.perf.renderer_ratio
"""

import statistics
import time

import numpy as np

from genomes import CPPN, Key
from genomes.cppn import coordinates, render_numba, render_numpy
from genomes.cppn.program import compile_programs


def main() -> None:
    print(f"{'size':>12}{'nodes':>7}{'numba images/s':>16}{'numpy images/s':>16}{'ratio':>8}")
    for mode, size, generations in (("grey", 28, 30), ("grey", 28, 120), ("hsv", 224, 60)):
        encoding = CPPN(mode=mode, height=size, width=size)
        genomes = encoding.random(64 if size == 28 else 8, Key(0, 0))
        for batch in range(1, generations):
            genomes = encoding.vary(genomes, genomes, Key(0, batch))
        programs = compile_programs(genomes, encoding.channels)
        where = coordinates.centred(size, size)
        assert np.array_equal(render_numba.render(programs, where, mode), render_numpy.render(programs, where, mode))
        both = []
        for _ in range(15):
            took = []
            for render in (render_numba.render, render_numpy.render):
                started = time.perf_counter()
                render(programs, where, mode)
                took.append(time.perf_counter() - started)
            both.append(took)
        fast, slow = (statistics.median(t[i] for t in both) for i in (0, 1))
        ratio = statistics.median(b / a for a, b in both)
        shape = f"{size}x{size}x{encoding.channels}"
        nodes = len(programs.act) / len(genomes)
        print(f"{shape:>12}{nodes:>7.1f}{len(genomes) / fast:>16,.0f}{len(genomes) / slow:>16,.0f}{ratio:>8.0f}")


if __name__ == "__main__":
    main()
