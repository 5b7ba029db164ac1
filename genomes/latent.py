"""The latent encoding: a genome is a code, and its image is what a decoder draws from it (LSI: Fontaine et al. 2021)."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from genomes.encoding import GenomeError, Genomes
from genomes.random import Key, normals
from genomes.resample import weights_of

if TYPE_CHECKING:
    import torch

    from genomes.upconv import Decoder

FORMAT = "evofool.latent"
VERSION = 1
MOST = 1000.0
"""The largest absolute value of a code's coordinate."""

_ON_GPU = 64  # codes in a forward pass on a GPU. On a CPU it is one: the quickest in float64, and no bit depends on a batch
_KEYS = ("format", "version", "decoder", "code")


@dataclass(frozen=True)
class Latent:
    """Codes float32 (B, D) of a decoder (genomes.upconv), varied by Gaussian steps and along the line to the other parent.

    decoder: the bytes of its file. channels, height and width are those of the image, which is the decoder's, resampled by a
    triangle filter (genomes/resample.py) if that has another size. A random code is standard normal, which the decoder was
    trained for. A child is mother + sigma N(0, I) + line N(0, 1) (father - mother): one draw for each coordinate, and one
    along the line (Vassiliades & Mouret 2018, eq. 2). sigma and line are at least 0, and not both 0. A child whose root mean
    square is above `limit` is scaled back to it: that of random codes is about 1, and the decoder has seen few others.

    On a CPU the decoder draws codes one by one, in float64 and on one thread, so an image has the same bits in any batch and
    with any number of threads. On another kind of machine sums may differ by about 1e-15, and so a pixel with a probability
    of about 1e-12. GenomeError for bytes that are no decoder of a vector, and one of another number of channels.
    """

    decoder: bytes = field(repr=False, compare=False)
    channels: int = 1
    height: int = 28
    width: int = 28
    sigma: float = 0.1
    line: float = 0.2
    limit: float = 1.5

    name: str = field(default="latent", init=False)
    sha256: str = field(init=False)
    variation: ClassVar[str] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", hashlib.sha256(self.decoder).hexdigest())
        layout = _loaded(self.decoder).layout
        if len(layout.code) != 1 or layout.mask:
            what = "with a mask" if layout.mask else f"of maps {layout.code}"
            raise GenomeError(f"is a decoder {what}; the codes of genomes are vectors, and it draws an image alone")
        if layout.image[0] != self.channels:
            raise GenomeError(f"draws images of {layout.image[0]} channels, and these have {self.channels}")
        if not (self.sigma >= 0 and self.line >= 0 and self.sigma + self.line > 0 and self.limit > 0):
            raise ValueError(
                f"latent: sigma {self.sigma} and line {self.line} have to be at least 0, and one of them above it; "
                f"limit has to be above 0, not {self.limit}"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        values = self.decoder, self.channels, self.height, self.width, self.sigma, self.line, self.limit
        return type(self), values

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        return _loaded(self.decoder).layout.code

    def random(self, n: int, key: Key) -> Genomes:
        """Standard normal codes, up to 6 standard deviations, scaled back to the limit."""
        return self._limited(normals(key, n, self.shape[0]))

    def vary(self, mothers: Genomes, fathers: Genomes, key: Key) -> Genomes:
        draws = normals(key, len(mothers), self.shape[0] + 1)
        codes = mothers.astype(np.float64)
        children = codes + self.sigma * draws[:, 1:] + self.line * draws[:, :1] * (fathers.astype(np.float64) - codes)
        return self._limited(children)

    def uses_second_parent(self, n: int, key: Key) -> np.ndarray:
        """All, unless line is 0."""
        return np.full(n, self.line > 0)

    def render(self, genomes: Genomes, size: tuple[int, int] | None = None, threads: int = 1) -> np.ndarray:
        """The decoder's images, resampled where the size is not its own. More threads do not help."""
        return self._drawn(genomes, "cpu", size).numpy()

    def draw(self, genomes: Genomes, device: "torch.device | str") -> "torch.Tensor":
        return self._drawn(genomes, device, None)

    def pack(self, genome: Any) -> bytes:
        return np.ascontiguousarray(genome, "<f4").tobytes()

    def unpack(self, blobs: list[bytes]) -> Genomes:
        size = 4 * self.shape[0]
        for blob in blobs:
            if len(blob) != size:
                raise GenomeError(f"a packed code has {len(blob)} bytes; this decoder's have {size}")
        codes = np.frombuffer(b"".join(blobs), "<f4").astype(np.float32).reshape(len(blobs), *self.shape)
        if not (np.abs(codes) <= MOST).all():  # also NaN
            raise GenomeError(f"a code has values that are no numbers, or beyond {MOST:g}")
        return codes

    def to_json(self, genome: Any) -> dict[str, Any]:
        """format, version, decoder, the SHA-256 of its file, and code, in base64 of little-endian float32."""
        code = base64.b64encode(self.pack(genome)).decode("ascii")
        return {"format": FORMAT, "version": VERSION, "decoder": self.sha256, "code": code}

    def from_json(self, data: dict[str, Any]) -> Genomes:
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise GenomeError(f'not a latent genome: "format" has to be "{FORMAT}"')
        if data.get("version") != VERSION:
            raise GenomeError(f"latent genome of version {data.get('version')!r}; this evofool reads {VERSION}")
        missing, unknown = [k for k in _KEYS if k not in data], [k for k in data if k not in _KEYS]
        if missing or unknown:
            raise GenomeError(f"a latent genome with missing keys {missing} and unknown keys {unknown}")
        if data["decoder"] != self.sha256:
            raise GenomeError(
                f'latent genome with "decoder" {data["decoder"]!r:.80}; the SHA-256 of this decoder is {self.sha256}'
            )
        try:
            code = base64.b64decode(data["code"], validate=True)
        except (TypeError, ValueError) as error:
            raise GenomeError(f'latent genome: "code" is no base64 ({error})') from None
        return self.unpack([code])

    # -- inside

    def _limited(self, codes: np.ndarray) -> Genomes:
        """float32 codes, scaled back to the limit."""
        # Row by row: the order of a sum must not depend on the number of rows.
        rms = np.sqrt([float(np.square(code).mean()) for code in codes]).reshape(-1, 1)
        scale = np.minimum(1.0, self.limit / np.maximum(rms, 1e-300))
        return np.clip(codes * scale, -MOST, MOST).astype(np.float32)

    def _drawn(self, genomes: Genomes, device: "torch.device | str", size: tuple[int, int] | None) -> "torch.Tensor":
        """uint8 (B, C, H, W) on the device."""
        import torch

        height, width = size or (self.height, self.width)
        out = torch.empty((len(genomes), self.channels, height, width), dtype=torch.uint8, device=device)
        decoder = _loaded(self.decoder, torch.device(device))
        with torch.inference_mode(), _one_thread():
            at_once = 1 if out.device.type == "cpu" else _ON_GPU
            for begin in range(0, len(genomes), at_once):
                part = torch.from_numpy(genomes[begin : begin + at_once].astype(np.float64)).to(device)
                levels = torch.floor(torch.nan_to_num(decoder(part)) * 255.0 + 0.5)
                out[begin : begin + len(part)] = _resampled(levels, height, width).to(torch.uint8)
        return out


def _resampled(levels: "torch.Tensor", height: int, width: int) -> "torch.Tensor":
    """As genomes.resample.resampled, of grey levels as float64, to the bit."""
    import torch

    for axis, length in ((3, width), (2, height)):
        if levels.shape[axis] == length:
            continue
        first, weights = weights_of(levels.shape[axis], length)
        shape = [-1 if a == axis else 1 for a in range(4)]
        total = torch.full_like(levels.narrow(axis, 0, 1), 0.5)
        for k in range(weights.shape[1]):
            places = levels.new_tensor(first + k).long()
            total = total + levels.index_select(axis, places) * levels.new_tensor(weights[:, k]).reshape(shape)
        levels = total.clamp(max=255.0).floor()
    return levels


@lru_cache(maxsize=8)
def _loaded(data: bytes, device: "torch.device | None" = None) -> "Decoder":
    """The decoder of a file, in float64 on a device (None: as it is stored)."""
    from genomes.upconv import decoder_of_bytes

    decoder = decoder_of_bytes(data)[0]
    if device is None:
        return decoder
    decoder = decoder.to(device=device).double()
    if device.type == "cuda":  # threads may have CUDA streams of their own, which do not wait for this one's copies
        import torch

        torch.cuda.synchronize(device)
    return decoder


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch has one thread within: the calling thread's own setting."""
    import torch

    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
