"""What an image is made of: encodings of images as genomes, with their variation and their rendering.

This package never imports evofool; it needs numpy, numba and torch alone.
"""

import genomes.cache  # first: numba reads its settings once, when it is imported  # noqa: F401
from genomes.cppn.encoding import CPPN
from genomes.direct import Direct
from genomes.encoding import Encoding, GenomeError, Genomes
from genomes.random import Key

__all__ = ["CPPN", "Direct", "Encoding", "GenomeError", "Genomes", "Key"]
