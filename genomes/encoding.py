"""The contract that every encoding keeps."""

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from genomes.random import Key

if TYPE_CHECKING:
    import torch

Genomes = np.ndarray
"""A batch of B genomes: one numpy array whose first axis is the genome.

The rest of its shape and its dtype are the encoding's (pixels, a structured record of a graph, a code). So a batch is
measured, indexed, joined, copied and shipped by numpy itself: len(g), g[rows], np.concatenate([g, h]), g.tobytes().
"""


class GenomeError(ValueError):
    """A genome, or the text or bytes of one, that this encoding cannot be. Says what is wrong with it."""


@runtime_checkable
class Encoding(Protocol):
    """How images of one kind are written as genomes. Frozen: two equal encodings do the same to the bit."""

    @property
    def name(self) -> str: ...

    @property
    def channels(self) -> int:
        """1 grey, 3 RGB."""
        ...

    @property
    def height(self) -> int:
        """Of the images that a target sees, in pixels."""
        ...

    @property
    def width(self) -> int: ...

    @property
    def dtype(self) -> np.dtype:
        """Of the elements of a genome."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one genome: a batch is (B, *shape)."""
        ...

    def random(self, n: int, key: Key) -> Genomes:
        """n new genomes; row i draws from the stream key.at(i)."""
        ...

    def vary(self, mothers: Genomes, fathers: Genomes, key: Key) -> Genomes:
        """One child of each (mother, father), in that order; row i draws from the stream key.at(i).

        The same key and parents give the same child, whatever the number of threads or the split into chunks.
        """
        ...

    def uses_second_parent(self, n: int, key: Key) -> np.ndarray:
        """(n,) bool: which of the n children that vary makes with this key take anything from their fathers."""
        ...

    def render(self, genomes: Genomes, size: tuple[int, int] | None = None, threads: int = 1) -> np.ndarray:
        """uint8 (B, channels, H, W); (H, W) is the encoding's own unless size is given and the encoding can."""
        ...

    def draw(self, genomes: Genomes, device: "torch.device | str") -> "torch.Tensor":
        """What render gives, drawn by torch on the device and left there; always a tensor of its own.

        On a CPU the same bits, and slower than render. On CUDA it may be 1 grey level off, on at most 1e-4 of the pixels.
        """
        ...

    def pack(self, genome: Any) -> bytes:
        """One genome (a row of a batch) as compact bytes, little-endian, without anything executable."""
        ...

    def unpack(self, blobs: list[bytes]) -> Genomes:
        """The batch that pack came from. Raises GenomeError on bytes that are not this encoding's."""
        ...

    def to_json(self, genome: Any) -> dict[str, Any]:
        """The canonical form of one genome, of plain lists, strings and numbers; equal genomes give equal forms."""
        ...

    def from_json(self, data: dict[str, Any]) -> Genomes:
        """A batch of one genome. Raises GenomeError naming what is missing, unknown or out of range."""
        ...
