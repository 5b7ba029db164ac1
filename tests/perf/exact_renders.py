"""numpy and numba draw the same bits: 2,000 random genomes at 28, 64 and 224 pixels, any block size, 1 and 2 threads.

python -m tests.perf.exact_renders [--genomes 2000]
"""

import argparse

import numpy as np

from genomes import CPPN, Key
from genomes.cppn import activations, color, coordinates, render_numba, render_numpy
from genomes.cppn.program import compile_programs

BLOCKS = (1, 97, 784, 5000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--genomes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draws = np.random.default_rng(args.seed)
    sets = [*activations.SETS]
    encodings = [
        CPPN(mode=mode, activation_set=name, raw_coordinates=raw)
        for mode in color.MODES
        for name in sets
        for raw in (False, True)
    ]
    different = checked = 0
    share = -(-args.genomes // len(encodings))
    for number, encoding in enumerate(encodings):
        genomes = encoding.random(share, Key(args.seed, 0, number << 20))
        for batch in range(1, int(draws.integers(2, 120))):
            genomes = encoding.vary(genomes, genomes, Key(args.seed, batch, number << 20))
        programs = compile_programs(genomes, encoding.channels)
        for size in (28, 64, 224):
            where = coordinates.raw(size, size, 28, 28) if encoding.raw_coordinates else coordinates.centred(size, size)
            oracle = render_numpy.render(programs, where, encoding.mode)
            block = int(draws.choice(BLOCKS))
            fast = [render_numba.render(programs, where, encoding.mode, b) for b in (render_numba.BLOCK, block)]
            fast += [encoding.render(genomes, (size, size), threads=t).reshape(oracle.shape) for t in (1, 2)]
            different += sum(int((image != oracle).sum()) for image in fast)
        checked += len(genomes)
    print(f"{checked} genomes x 3 sizes x (2 block sizes, 1 and 2 threads): {different} pixels differ from numpy's")
    raise SystemExit(different > 0)


if __name__ == "__main__":
    main()
