"""The canvas encoding: a small picture, mirrored to the image's size, which begins as a CPPN and is varied by operators."""

import base64
import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from genomes.canvas import compression, cosines, operators
from genomes.canvas.operators import Parents, Rates
from genomes.cppn import coordinates, render_numba
from genomes.cppn.encoding import CPPN
from genomes.cppn.program import compile_programs
from genomes.encoding import GenomeError, Genomes
from genomes.random import Key, integers
from genomes.resample import resampled

if TYPE_CHECKING:
    import torch

FORMAT = "evofool.canvas"
VERSION = 1
STARTS = ("cppn", "waves", "noise")
MAX_SIZE = 512
MAX_WALK = 12
"""Random CPPNs have 0 to MAX_WALK - 1 neutral mutations behind them."""

_LEAST_BY_PARENTS = 1024  # values
_KEYS = ("format", "version", "channels", "size", "mirror", "image", "cppn")
_GRAPH, _CODED, _RAW, _COSINES = b"\0", b"\1", b"\2", b"\3"  # the first byte of a packed genome
# Streams of CPPNs have other rows than those of the operators, so that their draws are independent.
_GRAPH_ROWS = 1 << 40


def least_size(height: int, width: int, mirror: int) -> int:
    """The side of the least canvas that covers an image when it is mirrored."""
    return -(-max(height, width) // mirror)


@dataclass(frozen=True)
class Canvas:
    """uint8 pictures (B, C, size, size), mirrored to images of height x width: structured, low-frequency variation.

    mirror: the image has mirror x mirror copies of the canvas, every second one reflected, and is cropped at the right and
    at the bottom to height x width; 1: no reflections. size: 0 chooses the least that covers the image, the longer side
    divided by mirror and rounded up; it may be at most MAX_SIZE. start: what random canvases are. "cppn": CPPNs after 0 to
    11 neutral mutations; "waves": a low-frequency field on a colour; "noise": independent values. rates: how often each
    operator makes a child (genomes/canvas/operators.py). cppn: the encoding of the CPPNs, of the canvas's size and channels;
    by default grey or HSV with the settings of CPPN. cosines: if not 0, a canvas is a sum of so many cosines along each side
    of a channel, at most size (genomes/canvas/cosines.py), so that it can be drawn at any size; its pixels are this sum.

    A genome has the fields "pixels" and "cppn", and "cosines" if there are any. As long as it was only varied by the
    mutation of CPPNs, "cppn" is the graph that draws its pixels, and its cosines are 0; any other operator empties it
    (n_nodes 0).
    """

    channels: int = 3
    height: int = 224
    width: int = 224
    size: int = 0
    mirror: int = 2
    start: str = "cppn"
    rates: Rates = Rates()
    cppn: CPPN = None  # type: ignore[assignment]  # set below
    cosines: int = 0

    name: str = field(default="canvas", init=False)
    dtype: np.dtype = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        longer = max(self.height, self.width)
        if self.mirror < 1:
            raise ValueError(f"canvas: mirror is {self.mirror}; it has to be at least 1")
        least = least_size(self.height, self.width, self.mirror)
        if not self.size:
            object.__setattr__(self, "size", least)
        if self.size * self.mirror < longer:
            raise ValueError(
                f"canvas: size {self.size} x mirror {self.mirror} covers {self.size * self.mirror} pixels, and the image "
                f"has {self.height}x{self.width}; size has to be at least {least}"
            )
        if not 2 <= self.size <= MAX_SIZE:
            raise ValueError(
                f"canvas: size is {self.size}; it has to lie in 2..{MAX_SIZE}. For images of {self.height}x{self.width}, "
                f"mirror can be {max(1, -(-longer // MAX_SIZE))} to {longer // 2}"
            )
        if self.start not in STARTS:
            raise ValueError(f'canvas: start is "{self.start}"; it has to be one of {", ".join(STARTS)}')
        if not (all(0 <= rate < 1e6 for rate in self.rates) and any(self.rates)):
            raise ValueError(f"canvas: rates {list(self.rates)} have to lie in [0, 1e6), and not all of them can be 0")
        if self.cppn is None:
            mode = "grey" if self.channels == 1 else "hsv"
            object.__setattr__(self, "cppn", CPPN(mode=mode, height=self.size, width=self.size))
        graph, own = self.cppn, (self.channels, self.size, self.size)
        if (graph.channels, graph.height, graph.width) != own:
            raise ValueError(f"canvas: cppn draws {(graph.channels, graph.height, graph.width)}, the canvas is {own}")
        if self.cosines and not 2 <= self.cosines <= self.size:
            raise ValueError(f"canvas: cosines is {self.cosines}; it has to be 0, or in 2..{self.size} for this size")
        waves = [("cosines", np.int16, (self.channels, self.cosines, self.cosines))] if self.cosines else []
        object.__setattr__(self, "dtype", np.dtype([("pixels", np.uint8, own), ("cppn", graph.dtype), *waves]))

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def variation(self) -> str:
        """The version of the operators; empty for small canvases, which are better stored whole."""
        return operators.VERSION if self.channels * self.size**2 >= _LEAST_BY_PARENTS else ""

    def random(self, n: int, key: Key) -> Genomes:
        """As start says."""
        if self.start == "waves":
            return self.of_pixels(operators.waves(n, self.channels, self.size, key))
        if self.start == "noise":
            return self.of_pixels(operators.noise(n, self.channels, self.size, key))
        graphs = self.cppn.random(n, key.at(_GRAPH_ROWS))
        steps = np.array([integers(key.at(i), MAX_WALK, 1)[0] for i in range(n)], np.int64)
        for step in range(int(steps.max(initial=0))):
            varied = self.cppn.vary(graphs, graphs, key.at((2 + step) * _GRAPH_ROWS))
            graphs = np.where(step < steps, varied, graphs)
        return self._of_graphs(graphs)

    def vary(self, mothers: Genomes, fathers: Genomes, key: Key) -> Genomes:
        """Each child is made by one operator, drawn by rates.

        A father that equals the mother stands for none: operators that need one take the mother, moved, in his place.
        """
        pixels, coefficients, graphs = operators.vary(self._parents(mothers), self._parents(fathers), self.rates, key)
        out = np.zeros(len(pixels), self.dtype)
        out["pixels"] = pixels
        if self.cosines:
            out["cosines"] = coefficients
        rows = np.flatnonzero(graphs)
        if len(rows):
            parts = [mothers["cppn"][i : i + 1] for i in rows]
            varied = [self.cppn.vary(g, g, key.at(_GRAPH_ROWS + i)) for g, i in zip(parts, rows.tolist(), strict=True)]
            out[rows] = self._of_graphs(np.concatenate(varied))
        return out

    def uses_second_parent(self, n: int, key: Key) -> np.ndarray:
        """The children that blend, extrapolate, mask, paste or paste_moved makes."""
        return operators.uses_father(operators.drawn(n, self.rates, key))

    def is_cppn(self, genomes: Genomes) -> np.ndarray:
        """(B,) bool: the genomes that are still CPPNs."""
        return np.asarray(genomes["cppn"]["n_nodes"] > 0)

    def has_any_size(self, genomes: Genomes) -> np.ndarray:
        """(B,) bool: those that render draws exactly at any size: CPPNs, and with cosines all; others are resampled."""
        return self.is_cppn(genomes) | bool(self.cosines)

    def render(self, genomes: Genomes, size: tuple[int, int] | None = None, threads: int = 1) -> np.ndarray:
        """The mirrored canvases. At another size than the encoding's, a canvas that is still a CPPN or has cosines is drawn
        with so many pixels; the image of any other is resampled by a triangle filter (genomes/resample.py)."""
        if size is None or tuple(size) == (self.height, self.width):
            return _mirrored(genomes["pixels"], self.height, self.width)
        height, width = size
        out = np.empty((len(genomes), self.channels, height, width), np.uint8)
        graphs = self.is_cppn(genomes)
        others = genomes[~graphs]
        if self.cosines:
            down, across = (
                cosines.cosines(self.cosines, self.size, *of) for of in ((self.height, height), (self.width, width))
            )
            out[~graphs] = cosines.drawn(others["cosines"], down, across)
        else:
            out[~graphs] = resampled(_mirrored(others["pixels"], self.height, self.width), height, width)
        if graphs.any():
            programs = compile_programs(genomes["cppn"][graphs], self.channels)
            drawn = render_numba.render(programs, self._coordinates(height, width), self.cppn.mode)
            out[graphs] = drawn.reshape(-1, self.channels, height, width)
        return out

    def draw(self, genomes: Genomes, device: "torch.device | str") -> "torch.Tensor":
        """The canvases are copied to the device and mirrored there."""
        import torch

        return self.spread(torch.tensor(np.ascontiguousarray(genomes["pixels"]), device=device))

    def pixels(self, genomes: Genomes) -> np.ndarray:
        """The canvases, not mirrored."""
        return np.asarray(genomes["pixels"])

    def of_pixels(self, pixels: np.ndarray) -> Genomes:
        """Canvases that are no CPPNs. With cosines, their pixels are the nearest that these can draw."""
        if self.cosines:
            return self._of_cosines(cosines.of_pixels(pixels, self.cosines))
        out = np.zeros(len(pixels), self.dtype)
        out["pixels"] = pixels
        return out

    def spread(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """The canvases, mirrored."""
        import torch

        down, across = (torch.from_numpy(_places(self.size, n).copy()).to(pixels.device) for n in (self.height, self.width))
        return pixels.index_select(3, across).index_select(2, down)

    def pack(self, genome: Any) -> bytes:
        """One byte for the kind; then the packed CPPN if it is one, else cosines, or pixels, compressed where it helps."""
        if genome["cppn"]["n_nodes"] > 0:
            return _GRAPH + self.cppn.pack(genome["cppn"])
        if self.cosines:
            return _COSINES + cosines.packed(genome["cosines"])
        coded = compression.encode(genome["pixels"])
        raw = np.ascontiguousarray(genome["pixels"]).tobytes()
        return _CODED + coded if len(coded) < len(raw) else _RAW + raw

    def unpack(self, blobs: list[bytes]) -> Genomes:
        out = np.zeros(len(blobs), self.dtype)
        graphs = [i for i, blob in enumerate(blobs) if blob[:1] == _GRAPH]
        if graphs:
            out[graphs] = self._of_graphs(self.cppn.unpack([blobs[i][1:] for i in graphs]))
        others = [i for i, blob in enumerate(blobs) if blob[:1] != _GRAPH]
        if others and self.cosines:
            out[others] = self._of_cosines(np.stack([self._coefficients(blobs[i]) for i in others]))
        elif others:
            out["pixels"][others] = [self._pixels(blobs[i]) for i in others]
        return out

    def to_json(self, genome: Any) -> dict[str, Any]:
        """format, version, channels, size and mirror of the canvas, image [H, W]; then either "cppn", the graph's JSON, or
        "pixels", the canvas in base64 of C-ordered bytes; the other is null. With cosines these are in place of "pixels",
        in base64 of C-ordered little-endian int16."""
        pure = bool(genome["cppn"]["n_nodes"] > 0)
        values = np.ascontiguousarray(genome[self._values], "<i2" if self.cosines else np.uint8)
        return {
            "format": FORMAT,
            "version": VERSION,
            "channels": self.channels,
            "size": self.size,
            "mirror": self.mirror,
            "image": [self.height, self.width],
            "cppn": self.cppn.to_json(genome["cppn"]) if pure else None,
            self._values: None if pure else base64.b64encode(values.tobytes()).decode("ascii"),
        }

    def from_json(self, data: dict[str, Any]) -> Genomes:
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise GenomeError(f'not a canvas genome: "format" has to be "{FORMAT}"')
        if data.get("version") != VERSION:
            raise GenomeError(f"canvas genome of version {data.get('version')!r}; this evofool reads {VERSION}")
        keys = *_KEYS, self._values
        missing, unknown = [k for k in keys if k not in data], [k for k in data if k not in keys]
        if missing or unknown:
            raise GenomeError(f"a canvas genome with missing keys {missing} and unknown keys {unknown}")
        own = {"channels": self.channels, "size": self.size, "mirror": self.mirror, "image": [self.height, self.width]}
        for key, value in own.items():
            if data[key] != value or type(data[key]) is not type(value):
                raise GenomeError(f'canvas genome with "{key}" {data[key]!r:.80}; this encoding has {value!r}')
        if (data["cppn"] is None) == (data[self._values] is None):
            raise GenomeError(f'a canvas genome has either "cppn" or "{self._values}"; the other is null')
        if data["cppn"] is not None:
            return self._of_graphs(self.cppn.from_json(data["cppn"]))
        try:
            values = base64.b64decode(data[self._values], validate=True)
        except (TypeError, ValueError) as error:
            raise GenomeError(f'canvas genome: "{self._values}" is no base64 ({error})') from None
        if not self.cosines:
            return self.of_pixels(self._pixels(_RAW + values)[None])
        shape = (1, self.channels, self.cosines, self.cosines)
        if len(values) != 2 * math.prod(shape):
            raise GenomeError(
                f"canvas genome: cosines of shape {shape[1:]} have {2 * math.prod(shape)} bytes, not {len(values)}"
            )
        return self._of_cosines(np.frombuffer(values, "<i2").astype(np.int16).reshape(shape))

    # -- inside

    @property
    def _values(self) -> str:
        """The field of a genome that is no CPPN."""
        return "cosines" if self.cosines else "pixels"

    def _parents(self, genomes: Genomes) -> Parents:
        coefficients = genomes["cosines"] if self.cosines else np.empty((len(genomes), self.channels, 0, 0), np.int16)
        return Parents(
            np.ascontiguousarray(genomes["pixels"]), np.ascontiguousarray(coefficients), genomes["cppn"]["n_nodes"] > 0
        )

    def _of_cosines(self, coefficients: np.ndarray) -> Genomes:
        out = np.zeros(len(coefficients), self.dtype)
        out["cosines"] = coefficients
        waves, _ = cosines.tables(self.cosines, self.size)
        out["pixels"] = cosines.drawn(coefficients, waves, waves)
        return out

    def _coefficients(self, blob: bytes) -> np.ndarray:
        """Of a packed genome that is no CPPN."""
        shape = (self.channels, self.cosines, self.cosines)
        found = cosines.unpacked(blob[1:], shape) if blob[:1] == _COSINES else None
        if found is None:
            raise GenomeError(f"a packed canvas of {len(blob)} bytes is damaged, or has no cosines of shape {shape}")
        return found

    def _of_graphs(self, graphs: Genomes) -> Genomes:
        out = np.zeros(len(graphs), self.dtype)
        out["cppn"] = graphs
        out["pixels"] = self.cppn.render(graphs)
        return out

    def _pixels(self, blob: bytes) -> np.ndarray:
        """Of a packed genome that is no CPPN."""
        shape = (self.channels, self.size, self.size)
        count = self.channels * self.size * self.size
        if blob[:1] == _RAW:
            if len(blob) != 1 + count:
                raise GenomeError(f"a canvas of shape {shape} has {count} pixels, not {len(blob) - 1}")
            return np.frombuffer(blob, np.uint8, offset=1).reshape(shape)
        found = compression.decode(blob[1:], shape) if blob[:1] == _CODED else None
        if found is None:
            raise GenomeError(f"a packed canvas of {len(blob)} bytes is damaged, or is none of shape {shape}")
        return found

    def _coordinates(self, height: int, width: int) -> np.ndarray:
        """The places on the canvas of an image's pixels at this size, as a CPPN's inputs."""
        x, y = _reflected(self.size, self.width, width), _reflected(self.size, self.height, height)
        cx, cy = ((2 * t / self.size - 1).astype(np.float32) for t in (x, y))
        if self.cppn.raw_coordinates:
            return coordinates.planes((x - 0.5).astype(np.float32), (y - 0.5).astype(np.float32), cx, cy)
        return coordinates.planes(cx, cy, cx, cy)


def _reflected(size: int, length: int, pixels: int) -> np.ndarray:
    """float64 (pixels,): where the centres of so many pixels along a side of the image, which is `length` long, lie on a
    canvas that is mirrored without end, in pixels of the canvas."""
    t = (np.arange(pixels) + 0.5) * (length / pixels) % (2 * size)
    return np.where(t > size, 2 * size - t, t)


@lru_cache(maxsize=16)
def _places(size: int, length: int) -> np.ndarray:
    """int64 (length,), read-only: for each pixel along a side of the image, the pixel of the canvas."""
    places = np.floor(_reflected(size, length, length)).astype(np.int64)
    places.flags.writeable = False
    return places


def _mirrored(canvases: np.ndarray, height: int, width: int) -> np.ndarray:
    size = canvases.shape[-1]
    wide = np.take(canvases, _places(size, width), axis=3)
    return np.take(wide, _places(size, height), axis=2)
