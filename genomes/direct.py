"""The direct encoding: a genome is the image's own 8-bit pixels (Nguyen 2015, section 2.2)."""

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numba
import numpy as np

from genomes.encoding import GenomeError, Genomes
from genomes.random import Key, start, uniform

if TYPE_CHECKING:
    import torch

FORMAT = "evofool.direct"
VERSION = 1
_LOWEST_RATE = 1e-12  # halving stops here; at this rate practically no gene changes
_LARGEST_EXPONENT = 64.0  # of a random image of "shades": a mean of 255 / 65 grey levels


@dataclass(frozen=True)
class Direct:
    """uint8 pixels (B, C, H, W), varied by polynomial mutation and optionally by SBX crossover.

    rate is the share of pixels that mutate: a number in (0, 1], or a pair (low, high) from which each child draws its rate,
    uniformly in the logarithm (the heavy-tailed mutation of Doerr 2017: large changes early, single pixels late). eta is
    Deb's distribution index, > 0: the higher, the smaller the steps (mean |step| = 255 / (eta + 2) grey levels).
    halve_every: the rate is halved after every so many batches (1000 generations in Nguyen 2015); 0: never. crossover is the
    probability of SBX with index eta_crossover between mother and father, 0 to 1. start: what random images are. "noise":
    pixels uniform on 0..255. "shades": noise of many mean brightnesses; each image draws an exponent from 1 to 64, uniformly
    in the logarithm, its pixels are uniform draws raised to it, and every second image, by chance, is inverted.
    """

    channels: int = 1
    height: int = 28
    width: int = 28
    rate: float | tuple[float, float] = 0.1
    eta: float = 15.0
    halve_every: int = 0
    crossover: float = 0.0
    eta_crossover: float = 10.0
    start: Literal["noise", "shades"] = "noise"

    name: str = field(default="direct", init=False)
    variation: ClassVar[str] = ""

    def __post_init__(self) -> None:
        low, high = self._rates()
        if not 0 < low <= high <= 1:
            raise ValueError(f"direct: rate is {self.rate}; it has to lie in (0, 1], low before high")
        if not (0 <= self.crossover <= 1 and self.halve_every >= 0):
            raise ValueError(
                f"direct: crossover has to lie in [0, 1], not {self.crossover}; "
                f"halve_every has to be at least 0, not {self.halve_every}"
            )
        if not (self.eta > 0 and self.eta_crossover > 0):
            raise ValueError(f"direct: eta {self.eta} and eta_crossover {self.eta_crossover} have to be > 0")
        if self.start not in ("noise", "shades"):
            raise ValueError(f'direct: start is "{self.start}"; it has to be "noise" or "shades"')

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.height, self.width)

    def random(self, n: int, key: Key) -> Genomes:
        """Independent pixels, distributed as `start` says."""
        out = np.empty((n, *self.shape), np.uint8)
        _random(key.seed, key.batch, key.row, self.start == "shades", out.reshape(n, self._genes))
        return out

    def vary(self, mothers: Genomes, fathers: Genomes, key: Key) -> Genomes:
        n = len(mothers)
        out = np.empty(mothers.shape, np.uint8)
        low, high = self._rates()
        halved = 0.5 ** (key.batch // self.halve_every) if self.halve_every else 1.0
        flat = (n, self._genes)
        _vary(
            mothers.reshape(flat),
            fathers.reshape(flat),
            key.seed,
            key.batch,
            key.row,
            max(low * halved, _LOWEST_RATE),
            max(high * halved, _LOWEST_RATE),
            self.eta,
            self.crossover,
            self.eta_crossover,
            out.reshape(flat),
        )
        return out

    def uses_second_parent(self, n: int, key: Key) -> np.ndarray:
        """The children made by crossover."""
        out = np.empty(n, np.bool_)
        _crossed(key.seed, key.batch, key.row, self.crossover, out)
        return out

    def render(self, genomes: Genomes, size: tuple[int, int] | None = None, threads: int = 1) -> np.ndarray:
        """The genomes themselves; GenomeError for any other size than that of the pixels."""
        if size is not None and tuple(size) != (self.height, self.width):
            raise GenomeError(
                f"a direct genome is {self.height}x{self.width} pixels and cannot be rendered at {size[0]}x{size[1]}; "
                "only CPPNs and canvases can be rendered at any size"
            )
        return genomes

    def draw(self, genomes: Genomes, device: "torch.device | str") -> "torch.Tensor":
        """A copy of the genomes on the device."""
        import torch

        return torch.tensor(np.ascontiguousarray(genomes), device=device)

    def pixels(self, genomes: Genomes) -> np.ndarray:
        """The genomes themselves."""
        return genomes

    def of_pixels(self, pixels: np.ndarray) -> Genomes:
        """A copy of the pixels."""
        return pixels.copy()

    def spread(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """The pixels themselves."""
        return pixels

    def pack(self, genome: Any) -> bytes:
        return np.ascontiguousarray(genome, np.uint8).tobytes()

    def unpack(self, blobs: list[bytes]) -> Genomes:
        size = int(np.prod(self.shape))
        for blob in blobs:
            if len(blob) != size:
                raise GenomeError(f"a packed direct genome has {len(blob)} bytes; {self.shape} needs {size}")
        return np.frombuffer(b"".join(blobs), np.uint8).reshape(len(blobs), *self.shape).copy()

    def to_json(self, genome: Any) -> dict[str, Any]:
        """format, version, shape [C, H, W], and pixels in base64 of C-ordered bytes."""
        pixels = base64.b64encode(self.pack(genome)).decode("ascii")
        return {"format": FORMAT, "version": VERSION, "shape": list(self.shape), "pixels": pixels}

    def from_json(self, data: dict[str, Any]) -> Genomes:
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise GenomeError(f'not a direct genome: "format" has to be "{FORMAT}"')
        if data.get("version") != VERSION:
            raise GenomeError(f"direct genome of version {data.get('version')!r}; this evofool reads {VERSION}")
        if data.get("shape") != list(self.shape):
            raise GenomeError(f"direct genome of shape {data.get('shape')}; expected {list(self.shape)}")
        try:
            pixels = base64.b64decode(data["pixels"], validate=True)
        except (KeyError, TypeError, ValueError) as error:
            raise GenomeError(f'direct genome: "pixels" is missing or no base64 ({error})') from None
        return self.unpack([pixels])

    @property
    def _genes(self) -> int:
        return self.channels * self.height * self.width

    def _rates(self) -> tuple[float, float]:
        return self.rate if isinstance(self.rate, tuple) else (self.rate, self.rate)


@numba.njit(inline="always")
def polynomial_step(u: float, eta: float) -> float:
    """Deb's polynomial mutation of a gene on [0, 1]: the step in [-1, 1] of a draw u in [0, 1) (Deb & Agrawal 1995)."""
    if u < 0.5:
        return (2.0 * u) ** (1.0 / (eta + 1.0)) - 1.0
    return 1.0 - (2.0 * (1.0 - u)) ** (1.0 / (eta + 1.0))


@numba.njit(inline="always")
def sbx(a: float, b: float, u: float, lower: bool, eta: float) -> float:
    """Simulated binary crossover, bounded to [0, 1] (Deb & Agrawal 1995): one child of the genes a < b.

    u in [0, 1) is the draw of the spread. lower: the child below the parents' mean, otherwise the one above.
    """
    gap = b - a
    bound = a if lower else 1.0 - b
    alpha = 2.0 - (1.0 + 2.0 * bound / gap) ** -(eta + 1.0)
    spread = (u * alpha) ** (1.0 / (eta + 1.0)) if u * alpha <= 1.0 else (1.0 / (2.0 - u * alpha)) ** (1.0 / (eta + 1.0))
    child = 0.5 * (a + b - spread * gap) if lower else 0.5 * (a + b + spread * gap)
    return min(1.0, max(0.0, child))


@numba.njit(cache=True, nogil=True)
def _random(seed: int, batch: int, row: int, shades: bool, out: np.ndarray) -> None:
    stream = np.empty(1, np.uint64)
    for i in range(out.shape[0]):
        start(stream, seed, batch, row + i)
        if not shades:
            for k in range(out.shape[1]):
                out[i, k] = np.uint8(uniform(stream) * 256.0)
            continue
        exponent = _LARGEST_EXPONENT ** uniform(stream)
        inverted = uniform(stream) < 0.5
        for k in range(out.shape[1]):
            value = np.uint8(uniform(stream) ** exponent * 256.0)
            out[i, k] = np.uint8(255 - value) if inverted else value


@numba.njit(cache=True, nogil=True)
def _crossed(seed: int, batch: int, row: int, crossover: float, out: np.ndarray) -> None:
    stream = np.empty(1, np.uint64)
    for i in range(out.size):
        start(stream, seed, batch, row + i)
        out[i] = crossover > 0.0 and uniform(stream) < crossover


@numba.njit(cache=True, nogil=True)
def _vary(
    mothers: np.ndarray,
    fathers: np.ndarray,
    seed: int,
    batch: int,
    row: int,
    low: float,
    high: float,
    eta: float,
    crossover: float,
    eta_crossover: float,
    out: np.ndarray,
) -> None:
    stream = np.empty(1, np.uint64)
    genes = out.shape[1]
    for i in range(out.shape[0]):
        start(stream, seed, batch, row + i)
        for k in range(genes):
            out[i, k] = mothers[i, k]
        if crossover > 0.0 and uniform(stream) < crossover:  # the stream's first draw, repeated in _crossed
            for k in range(genes):
                m, f = mothers[i, k], fathers[i, k]
                # The 2015 code resets a gene that both parents share to 0.5; here it is kept, as in SBX.
                if m != f:
                    a, b = min(m, f) / 255.0, max(m, f) / 255.0
                    u = uniform(stream)
                    out[i, k] = np.uint8(sbx(a, b, u, uniform(stream) < 0.5, eta_crossover) * 255.0 + 0.5)
        rate = low if low == high else low * (high / low) ** uniform(stream)
        # Skips from one mutated gene to the next: the gaps between successes of a coin are geometric.
        if rate <= _LOWEST_RATE:
            continue
        scale = 1.0 / np.log1p(-rate) if rate < 1.0 else 0.0
        k = int(np.log1p(-uniform(stream)) * scale)
        while k < genes:
            x = out[i, k] / 255.0 + polynomial_step(uniform(stream), eta)
            out[i, k] = np.uint8(min(1.0, max(0.0, x)) * 255.0 + 0.5)
            k += 1 + int(np.log1p(-uniform(stream)) * scale)
