"""The interface of encodings."""

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from genomes.random import Key

if TYPE_CHECKING:
    import torch

Genomes = np.ndarray
"""A batch of B genomes: one numpy array whose first axis is the genome.

The rest of its shape and its dtype depend on the encoding (pixels, a structured record of a graph, a code). Batches are
handled with numpy: len(g), g[rows], np.concatenate([g, h]), g.tobytes().
"""


class GenomeError(ValueError):
    """A genome, or its JSON or bytes, is invalid for this encoding. The message names what is wrong."""


@runtime_checkable
class Encoding(Protocol):
    """An encoding of images as genomes. Immutable: equal encodings give equal results to the bit."""

    @property
    def name(self) -> str: ...

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        ...

    @property
    def height(self) -> int:
        """Of the rendered images, in pixels."""
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

    @property
    def variation(self) -> str:
        """The version of random and vary, if a child should be stored by its parents and key and made again from these; an
        empty text if it should be stored itself."""
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
        """(n,) bool: which of the n children of vary with this key have genes of their fathers."""
        ...

    def render(self, genomes: Genomes, size: tuple[int, int] | None = None, threads: int = 1) -> np.ndarray:
        """uint8 (B, channels, H, W). size (H, W): the encoding's by default; GenomeError if it has no other sizes."""
        ...

    def draw(self, genomes: Genomes, device: "torch.device | str") -> "torch.Tensor":
        """The images of render, computed by torch on the device; always a new tensor on that device.

        On a CPU the bits are equal, but it is slower than render. On CUDA at most 1e-4 of the pixels may differ, by 1 grey
        level.
        """
        ...

    def pack(self, genome: Any) -> bytes:
        """One genome (a row of a batch) as compact little-endian bytes, without pickle."""
        ...

    def unpack(self, blobs: list[bytes]) -> Genomes:
        """The batch of these packed genomes. Raises GenomeError for bytes that are invalid."""
        ...

    def to_json(self, genome: Any) -> dict[str, Any]:
        """The canonical form of one genome, of lists, strings and numbers; equal genomes have equal forms."""
        ...

    def from_json(self, data: dict[str, Any]) -> Genomes:
        """A batch of one genome. Raises GenomeError naming what is missing, unknown or out of range."""
        ...


class PixelEncoding(Encoding, Protocol):
    """An encoding of genomes that are pixels, so that a gradient of the image is one of the genome."""

    def pixels(self, genomes: Genomes) -> np.ndarray:
        """uint8 (B, C, h, w); h and w need not be those of the image."""
        ...

    def of_pixels(self, pixels: np.ndarray) -> Genomes:
        """The genomes with these pixels, uint8 (B, C, h, w)."""
        ...

    def spread(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """Pixels (B, C, h, w) of any dtype to the images (B, C, H, W), as render draws them; differentiable."""
        ...
