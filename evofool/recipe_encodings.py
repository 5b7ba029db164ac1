"""The encodings of a recipe: strict, frozen models, whose docstrings document their keys."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from evofool.errors import RecipeError
from evofool.generators.decoder_file import DIGITS, read_decoder
from evofool.recipe_parts import Part, Probability, Share
from genomes import CPPN, Canvas, Direct, Encoding, GenomeError, Latent
from genomes.canvas import encoding as canvas
from genomes.canvas import operators
from genomes.cppn import activations
from genomes.cppn.vary import Rates

OperatorRate = Annotated[float, Field(ge=0, lt=1e6)]


class DirectPart(Part):
    """Genomes that are pixels (genomes.Direct)."""

    kind: Literal["direct"]
    """This kind of encoding: uint8 pixels."""
    rate: Share | tuple[Share, Share] = 0.1
    """The share of pixels that mutate, or `[low, high]`: each child draws its own rate, uniformly in the logarithm."""
    eta: float = Field(15.0, gt=0)
    """The index of Deb's polynomial mutation; the lower it is, the larger the steps."""
    halve_every: int = Field(0, ge=0)
    """The number of batches after which the rate halves; 0: never."""
    crossover: Probability = 0.0
    """The probability of simulated binary crossover (SBX)."""
    eta_crossover: float = Field(10.0, gt=0)
    """The index of that crossover."""
    start: Literal["noise", "shades"] = "noise"
    """What random images are: noise of mid-grey on average, or `shades`: noise of many mean brightnesses."""

    @model_validator(mode="after")
    def _in_order(self) -> "DirectPart":
        if isinstance(self.rate, tuple) and self.rate[0] > self.rate[1]:
            raise ValueError(f"rate {list(self.rate)} has to be [low, high]")
        return self

    def build(self, shape: tuple[int, int, int]) -> Encoding:
        return Direct(*shape, **self.model_dump(exclude={"kind"}))


class MutationPart(Part):
    """How a CPPN's child differs from its mother (genomes.cppn.vary.Rates)."""

    weight: Probability = Rates._field_defaults["weight"]
    """The share of weights that mutate."""
    eta: float = Field(Rates._field_defaults["eta"], gt=0)
    """The index of their polynomial mutation; the lower it is, the larger the steps."""
    activation: Probability = Rates._field_defaults["activation"]
    """The share of nodes whose activation function is drawn anew."""
    add_edge: Probability = Rates._field_defaults["add_edge"]
    """The probability that a child gets a new edge."""
    delete_edge: Probability = Rates._field_defaults["delete_edge"]
    """The probability that a child loses an edge."""
    split_edge: Probability = Rates._field_defaults["split_edge"]
    """The probability that an edge of a child is split by a new node."""
    delete_node: Probability = Rates._field_defaults["delete_node"]
    """The probability that a child loses a node."""


class CPPNPart(Part):
    """Genomes that are graphs of functions (genomes.CPPN)."""

    kind: Literal["cppn"]
    """This kind of encoding: compositional pattern-producing networks."""
    preset: Literal["default", "nguyen2015"] = "default"
    """`nguyen2015` has the settings of the 2015 code: raw pixel indices, four activation functions, weights between -10
    and 10, and its colours. Other keys still override them.
    """
    color: Literal["auto", "grey", "rgb", "hsv", "grey2015", "hls2015"] = "auto"
    """How outputs become colours; `auto` is grey for one channel and HSV for three."""
    activations: str | tuple[str, ...] | None = None
    """A set of activation functions by name (`default`, `nguyen2015`, `innovation2015`) or a list of functions; the
    preset's if not given.
    """
    weight_limit: float | None = Field(None, gt=0, lt=1e6)
    """The largest absolute value of a weight; 10 if not given."""
    initial_weight: float | None = Field(None, gt=0, lt=1e6)
    """The largest absolute value of a first weight; `weight_limit` if not given."""
    coordinates: Literal["centred", "raw"] | None = None
    """`centred`: independent of the resolution. `raw`: pixel indices. The preset's if not given."""
    max_nodes: int = Field(64, ge=4, le=4096)
    """The largest number of nodes of a genome."""
    max_edges: int = Field(192, ge=16, le=16384)
    """The largest number of edges of a genome."""
    mutation: MutationPart = MutationPart()
    """The rates of mutation."""

    table: ClassVar[str] = "encoding"

    @model_validator(mode="after")
    def _known(self) -> "CPPNPart":
        names = self.activations
        if isinstance(names, str) and names not in activations.SETS:
            raise ValueError(f'activations: no set "{names}"; there are {", ".join(activations.SETS)}')
        for name in names if isinstance(names, tuple) else ():
            activations.number(name)
        return self

    def build(self, shape: tuple[int, int, int]) -> CPPN:
        channels, height, width = shape
        given = {
            "mode": None if self.color == "auto" else self.color,
            "activation_set": self.activations,
            "weight_limit": self.weight_limit,
            "initial_weight": self.initial_weight,
            "raw_coordinates": None if self.coordinates is None else self.coordinates == "raw",
            "max_nodes": self.max_nodes,
            "max_edges": self.max_edges,
            "rates": Rates(**self.mutation.model_dump()),
        }
        changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        if "weight_limit" in changes:
            changes.setdefault("initial_weight", changes["weight_limit"])
        try:
            if self.preset == "nguyen2015":
                encoding = CPPN.nguyen2015(channels, height, width, **changes)
            else:
                changes.setdefault("mode", "grey" if channels == 1 else "hsv")
                encoding = CPPN(height=height, width=width, **changes)
        except ValueError as error:
            raise RecipeError(f"{self.table}: {error}") from None
        if encoding.channels != channels:
            raise RecipeError(
                f'{self.table}.color "{encoding.mode}" has {encoding.channels} channels, the target takes {channels}'
            )
        return encoding


class CanvasCPPNPart(CPPNPart):
    """The CPPNs that canvases begin as."""

    kind: Literal["cppn"] = "cppn"
    """The kind of encoding that canvases begin with; may be left out."""

    table: ClassVar[str] = "encoding.cppn"


class OperatorsPart(Part):
    """How often each operator makes a child, relative to the others (genomes.canvas.operators)."""

    cppn: OperatorRate = 1.0
    """The mutation of a canvas that is still a CPPN; any other canvas gets a field."""
    field: OperatorRate = 1.0
    """Adds a low-frequency field: a random sum of cosines of up to 2 to 24 half waves a side."""
    low_field: OperatorRate = 1.0
    """Adds a field of at most 10 half waves a side."""
    local_field: OperatorRate = 1.0
    """Adds a field within an ellipse."""
    blend: OperatorRate = 1.0
    """Mixes mother and father."""
    extrapolate: OperatorRate = 1.0
    """Moves the mother's pixels away from the father's."""
    mask: OperatorRate = 1.0
    """Joins parts of mother and father along soft, winding borders."""
    paste: OperatorRate = 1.0
    """Pastes an ellipse of the father."""
    paste_moved: OperatorRate = 1.0
    """Pastes an ellipse of the father, which is scaled, turned and shifted before."""
    paste_own: OperatorRate = 1.0
    """Pastes an ellipse of the mother, which is scaled, turned and shifted before."""
    move: OperatorRate = 1.0
    """Scales, turns and shifts the canvas."""
    color: OperatorRate = 1.0
    """Mixes the channels."""
    contrast: OperatorRate = 1.0
    """Scales all values around their mean, and shifts them."""
    patch: OperatorRate = 1.0
    """Paints an ellipse with a colour."""

    @model_validator(mode="after")
    def _some(self) -> "OperatorsPart":
        if not any(self.__dict__.values()):
            raise ValueError("all operators have the rate 0, so that no child can be made")
        return self


class CanvasPart(Part):
    """Genomes that are small pictures, mirrored to the image's size (genomes.Canvas)."""

    kind: Literal["canvas"]
    """This kind of encoding: small pictures that are varied by operators."""
    size: int | None = Field(None, ge=2, le=canvas.MAX_SIZE)
    """The side of the canvas in pixels; if not given, the least that covers the image: its longer side divided by
    `mirror`.
    """
    mirror: int = Field(2, ge=1, le=64)
    """The image has so many copies of the canvas along each side, every second one reflected; 1: no reflections."""
    cosines: int = Field(0, ge=0, le=canvas.MAX_SIZE)
    """0: a canvas is made of pixels. 2 or more, at most `size`: it is a sum of so many cosines along each side of a channel,
    and can be drawn at any size (`evofool export --size`).
    """
    start: Literal["cppn", "waves", "noise"] = "cppn"
    """What random canvases are: CPPNs after 0 to 11 mutations, a low-frequency field on a colour, or noise."""
    cppn: CanvasCPPNPart = CanvasCPPNPart()
    """The CPPNs of `start = "cppn"`."""
    rates: OperatorsPart = OperatorsPart()
    """How often each operator makes a child."""

    def build(self, shape: tuple[int, int, int]) -> Encoding:
        channels, height, width = shape
        size = self.size or canvas.least_size(height, width, self.mirror)
        cppn, rates = self.cppn.build((channels, size, size)), operators.Rates(**self.rates.model_dump())
        try:
            return Canvas(channels, height, width, size, self.mirror, self.start, rates, cppn, self.cosines)
        except ValueError as error:
            raise RecipeError(f"encoding: {error}") from None


class LatentPart(Part):
    """Genomes that are codes, from which a decoder draws images (genomes.Latent)."""

    kind: Literal["latent"]
    """This kind of encoding: codes of a decoder."""
    decoder: str = Field(DIGITS, min_length=1)
    """The decoder: `digits`, which evofool brings, or a file that `evofool train-decoder` wrote. The run's file gets a copy.
    """
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """The SHA-256 of the decoder's file; any other is refused. A run's file has it; a recipe may."""
    sigma: float = Field(0.1, ge=0, le=1e3)
    """The standard deviation of the step of each coordinate; random codes have 1."""
    line: float = Field(0.2, ge=0, le=1e3)
    """The standard deviation of the step along the line to the father, as a share of their distance; 0: no second parent."""
    limit: float = Field(1.5, gt=0, le=1e3)
    """The largest root mean square of a code; that of random codes is about 1."""

    @model_validator(mode="after")
    def _moves(self) -> "LatentPart":
        if not self.sigma and not self.line:
            raise ValueError("sigma and line are both 0, so that every child would be its mother")
        return self

    def build(self, shape: tuple[int, int, int], copy: bytes | None = None) -> Latent:
        """copy: the decoder's file, if it is known; else `decoder` is read. RecipeError if it is none or does not fit."""
        data = read_decoder(self.decoder) if copy is None else copy
        try:
            encoding = Latent(data, *shape, self.sigma, self.line, self.limit)
        except GenomeError as error:
            raise RecipeError(f"encoding.decoder: {self.decoder} {error}") from None
        if self.sha256 not in (None, encoding.sha256):
            raise RecipeError(
                f"encoding.decoder: {self.decoder} has the SHA-256 {encoding.sha256}, and encoding.sha256 is {self.sha256}: "
                "it is another decoder"
            )
        return encoding
