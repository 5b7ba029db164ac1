"""Encodings of images as genomes: random genomes, variation and rendering.

This package never imports evofool; it needs numpy, numba and torch only.
"""

import genomes.cache  # first: numba reads its settings when it is imported  # noqa: F401
from genomes.canvas.encoding import Canvas
from genomes.cppn.encoding import CPPN
from genomes.direct import Direct
from genomes.encoding import Encoding, GenomeError, Genomes, PixelEncoding
from genomes.latent import Latent
from genomes.random import Key

__all__ = ["CPPN", "Canvas", "Direct", "Encoding", "GenomeError", "Genomes", "Key", "Latent", "PixelEncoding"]
