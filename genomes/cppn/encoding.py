"""The CPPN encoding: an Encoding of the records, variation and renderers of this package (Nguyen 2015, section 2.2)."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from genomes import compilation
from genomes.cppn import activations, arrays, color, coordinates, json_, render_numba, render_numpy
from genomes.cppn import vary as variation
from genomes.cppn.program import compile_programs
from genomes.cppn.vary import Rates
from genomes.encoding import GenomeError, Genomes
from genomes.random import Key

if TYPE_CHECKING:
    import torch

NGUYEN2015_WEIGHT = 10.0
_STAGE = "genomes.cppn.first_calls:"  # before the name of a function of that module


@dataclass(frozen=True)
class CPPN:
    """Graphs of functions of a pixel's coordinates, which can be rendered at any size.

    mode is one of color.MODES and determines the number of channels. height and width are the size that a target gets.
    activation_set is one of activations.SETS or a tuple of names. weight_limit bounds every weight; weights of random
    genomes are uniform on +-initial_weight. raw_coordinates: x and y are pixel indices, as in the 2015 code, instead of
    values on (-1, 1). max_nodes (without inputs) and max_edges are the capacity of a genome.
    """

    mode: str = "grey"
    height: int = 28
    width: int = 28
    activation_set: str | tuple[str, ...] = "default"
    weight_limit: float = 10.0
    initial_weight: float = 10.0
    rates: Rates = Rates()
    raw_coordinates: bool = False
    max_nodes: int = 64
    max_edges: int = 192

    name: str = field(default="cppn", init=False)
    variation: ClassVar[str] = ""
    dtype: np.dtype = field(init=False, repr=False, compare=False)
    kinds: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.mode not in color.MODES:
            raise ValueError(f'cppn: no colour mode "{self.mode}"; there are {", ".join(color.MODES)}')
        names = self.activation_set
        if isinstance(names, str):
            if names not in activations.SETS:
                raise ValueError(f'cppn: no activation set "{names}"; there are {", ".join(activations.SETS)}')
            names = activations.SETS[names]
        if not names:
            raise ValueError("cppn: the activation set is empty")
        if not 0 < self.initial_weight <= self.weight_limit < 1e6:
            raise ValueError(
                f"cppn: 0 < initial_weight <= weight_limit < 1e6, not {self.initial_weight}, {self.weight_limit}"
            )
        if self.max_nodes <= self.channels or self.max_edges < self.channels * arrays.N_IN:
            raise ValueError(
                f"cppn: max_nodes {self.max_nodes} and max_edges {self.max_edges} cannot hold a genome without hidden nodes"
            )
        # Weights are float32, so their limit is rounded to float32: a weight at the limit is within it when it is read back.
        for name in ("weight_limit", "initial_weight"):
            object.__setattr__(self, name, float(np.float32(getattr(self, name))))
        object.__setattr__(self, "kinds", np.array([activations.number(n) for n in names], np.int8))
        object.__setattr__(self, "dtype", arrays.record_dtype(self.max_nodes, self.max_edges))

    @classmethod
    def nguyen2015(cls, channels: int = 1, height: int = 28, width: int = 28, **changes: Any) -> "CPPN":
        """The encoding of the 2015 code: raw pixel indices, its four activations, weights on +-10, its colours."""
        settings: dict[str, Any] = {
            "mode": "grey2015" if channels == 1 else "hls2015",
            "activation_set": "nguyen2015",
            "weight_limit": NGUYEN2015_WEIGHT,
            "initial_weight": NGUYEN2015_WEIGHT,
            "raw_coordinates": True,
        }
        return cls(height=height, width=width, **(settings | changes))

    @property
    def channels(self) -> int:
        return color.outputs(self.mode)

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    def random(self, n: int, key: Key) -> Genomes:
        """All inputs connected to all outputs, no hidden nodes (Nguyen 2015)."""
        compilation.wait(_STAGE + "random")
        return variation.random(np.zeros(n, self.dtype), self.channels, self.kinds, self.initial_weight, key)

    def vary(self, mothers: Genomes, fathers: Genomes, key: Key) -> Genomes:
        """Mutated children of the mothers; there is no crossover of CPPNs (nor in the 2015 code)."""
        compilation.wait(_STAGE + "vary")
        return variation.vary(mothers, self.channels, self.kinds, self.weight_limit, self.rates, key)

    def uses_second_parent(self, n: int, key: Key) -> np.ndarray:
        """All False: there is no crossover of CPPNs."""
        return np.zeros(n, np.bool_)

    def render(self, genomes: Genomes, size: tuple[int, int] | None = None, threads: int = 1) -> np.ndarray:
        """By numba; by numpy, which is slower and gives the same bits, while another process compiles numba's kernel."""
        height, width = size or (self.height, self.width)
        pixels = self._coordinates(height, width)
        compilation.wait(_STAGE + "programs")
        render = render_numpy.render if compilation.is_pending(_STAGE + "render") else render_numba.render

        def draw(part: Genomes) -> np.ndarray:
            return render(compile_programs(part, self.channels), pixels, self.mode)

        if threads > 1 and len(genomes) > 1:
            # Kernels release the GIL. numba's parallel loops would abort if two Python threads entered them.
            with ThreadPoolExecutor(threads) as pool:
                images = np.concatenate(list(pool.map(draw, np.array_split(genomes, min(threads, len(genomes))))))
        else:
            images = draw(genomes)
        return images.reshape(len(genomes), self.channels, height, width)

    def draw(self, genomes: Genomes, device: "torch.device | str") -> "torch.Tensor":
        from genomes.cppn import render_torch

        programs = compile_programs(genomes, self.channels)
        images = render_torch.render(programs, self._coordinates(self.height, self.width), self.mode, device)
        return images.view(len(genomes), self.channels, self.height, self.width)

    def _coordinates(self, height: int, width: int) -> np.ndarray:
        if self.raw_coordinates:
            return coordinates.raw(height, width, self.height, self.width)
        return coordinates.centred(height, width)

    def pack(self, genome: Any) -> bytes:
        return arrays.pack(genome)

    def unpack(self, blobs: list[bytes]) -> Genomes:
        if not blobs:
            return np.zeros(0, self.dtype)
        return np.concatenate([arrays.unpack(blob, self.dtype, self.channels, self.weight_limit) for blob in blobs])

    def to_json(self, genome: Any) -> dict[str, Any]:
        return json_.to_json(genome, self.mode, self.raw_coordinates, (self.height, self.width))

    def from_json(self, data: dict[str, Any]) -> Genomes:
        mode, raw, size = json_.header(data)
        if (mode, raw) != (self.mode, self.raw_coordinates):
            raise GenomeError(
                f"this genome renders {mode} from {'raw' if raw else 'centred'} coordinates, "
                f"this encoding {self.mode} from {'raw' if self.raw_coordinates else 'centred'} ones"
            )
        if raw and size != (self.height, self.width):
            raise GenomeError(
                f"this genome has raw coordinates of size {size}, this encoding of {(self.height, self.width)}"
            )
        nodes, edges = json_.graph(data)
        return arrays.build(self.dtype, self.channels, nodes, edges, self.weight_limit)


def from_json(data: dict[str, Any], **capacity: Any) -> tuple[CPPN, Genomes]:
    """The encoding that a genome's JSON describes, and the genome as a batch of one: all that is needed to render it."""
    mode, raw, (height, width) = json_.header(data)
    nodes, edges = json_.graph(data)
    limit = max([NGUYEN2015_WEIGHT] + [abs(w) for _, _, w in edges])
    settings: dict[str, Any] = {
        "weight_limit": limit,
        "max_nodes": max(64, len(nodes)),
        "max_edges": max(192, len(edges)),
    }
    try:
        encoding = CPPN(mode=mode, height=height, width=width, raw_coordinates=raw, **(settings | capacity))
    except ValueError as error:
        raise GenomeError(str(error)) from None
    return encoding, encoding.from_json(data)
