"""A decoder that draws an image from a code by up-convolutions (Dosovitskiy, Springenberg & Brox 2015), and its file."""

import json
import math
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from genomes.encoding import GenomeError
from genomes.tensor_file import check_tensor, pack_tensors, unpack_tensors

FORMAT = "evofool.decoder 1"
_SLOPE = 0.2
_MOST_SIDE, _MOST_WIDTH, _MOST_STAGES = 1024, 4096, 8
_MOST_IN_VECTOR, _MOST_IN_MAP, _MOST_IN_STAGE = 1 << 16, 1 << 24, 1 << 25  # values of one image
_EXACT = ("code_mean", "code_scale")  # stored in float32: features may be beyond float16


@dataclass(frozen=True)
class Layout:
    """What a decoder takes, and what it draws.

    code: the shape of a code, (D,) a vector or (C, h, w) a map. image: (C, H, W), C 1 or 3. widths: the channels after each
    stage, which doubles height and width; the first also before the first stage. mask: whether a second head draws a mask.
    transposed: whether a stage that doubles is a transposed convolution, 4 x 4, in half the time of one that resizes first.
    GenomeError for what is out of range, and for a stage with over 2^25 values (channels x height x width), because a small
    file could ask for any memory otherwise.
    """

    code: tuple[int, ...]
    image: tuple[int, int, int]
    widths: tuple[int, ...]
    mask: bool = False
    transposed: bool = False

    def __post_init__(self) -> None:
        for name in ("code", "image", "widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not all(type(n) is int and n >= 1 for n in (*self.code, *self.image, *self.widths)):
            raise GenomeError(f"the numbers of a decoder's layout have to be whole and at least 1: {self}")
        if not all(type(flag) is bool for flag in (self.mask, self.transposed)):
            raise GenomeError(f"mask and transposed of a decoder's layout have to be true or false: {self}")
        most = _MOST_IN_VECTOR if len(self.code) == 1 else _MOST_IN_MAP
        if len(self.code) not in (1, 3) or math.prod(self.code) > most:
            raise GenomeError(
                f"a code is a vector (D,) of at most {_MOST_IN_VECTOR:,} values or a map (C, h, w) of at most "
                f"{_MOST_IN_MAP:,}, not {self.code}"
            )
        if len(self.image) != 3 or self.image[0] not in (1, 3) or max(self.image) > _MOST_SIDE:
            raise GenomeError(
                f"a decoder's image is (1 or 3, height, width), up to {_MOST_SIDE} pixels a side, not {self.image}"
            )
        if not 1 <= len(self.widths) <= _MOST_STAGES or max(self.widths) > _MOST_WIDTH:
            raise GenomeError(
                f"a decoder has 1 to {_MOST_STAGES} stages of up to {_MOST_WIDTH:,} channels, not {self.widths}"
            )
        for channels, (height, width) in _stages(self):
            if channels * height * width > _MOST_IN_STAGE:
                raise GenomeError(
                    f"a stage of a decoder has at most {_MOST_IN_STAGE:,} values, not {channels} x {height} x {width}"
                )

    def grid(self, stages: int) -> tuple[int, int]:
        """Height and width after so many stages; the last grid is the image's, another half of the next, rounded up."""
        left = len(self.widths) - stages
        return -(-self.image[1] >> left), -(-self.image[2] >> left)


class Decoder(nn.Module):
    """Images from codes: a linear layer or a convolution, then up-convolutions to the image's size.

    The stem takes a code: a vector by a linear layer, to the first grid; a map by a 3 x 3 convolution, whose output is
    resized bilinearly to the first grid if that is finer, or to the image's size if that is coarser. A stage resizes
    bilinearly to its grid and convolves 3 x 3, or is a transposed convolution where the layout says so and both sides
    double. A map that is finer than a grid keeps its size there. Leaky ReLUs are between, a logistic function is at the end.
    There is no batch norm, so an image depends on its own code only; its bits may depend on the batch's size and the number
    of threads.

    code_mean, code_scale: float32 (D,) or (C, 1, 1), subtracted from a code and then divided by; 0 and 1 unless set. Weights
    are drawn from torch's global generator (He et al. 2015).
    """

    code_mean: torch.Tensor
    code_scale: torch.Tensor

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        first, code = layout.widths[0], layout.code
        per_channel = code if len(code) == 1 else (code[0], 1, 1)
        self.register_buffer("code_mean", torch.zeros(per_channel))
        self.register_buffer("code_scale", torch.ones(per_channel))
        self.stem: nn.Module
        self._sizes = _sizes(layout)
        self.stem = (
            nn.Linear(code[0], first * math.prod(self._sizes[0]))
            if len(code) == 1
            else nn.Conv2d(code[0], first, 3, padding=1)
        )
        self.doublings = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, 2, 1)
            if layout.transposed and _doubles(old, new)
            else nn.Conv2d(before, after, 3, padding=1)
            for before, after, (old, new) in zip((first, *layout.widths), layout.widths, pairwise(self._sizes), strict=False)
        )
        self.to_image = nn.Conv2d(layout.widths[-1], layout.image[0], 3, padding=1)
        self.to_mask = nn.Conv2d(layout.widths[-1], 1, 3, padding=1) if layout.mask else None
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                # A pixel of a transposed convolution of stride 2 is a sum over a quarter of its 4 x 4 weights.
                inputs = module.weight[0].numel() if not isinstance(module, nn.ConvTranspose2d) else 4 * module.in_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2 / ((1 + _SLOPE**2) * inputs)))
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        for head in (self.to_image, self.to_mask):
            if head is not None:
                with torch.no_grad():
                    head.weight *= 0.1  # images start near grey

    def forward(self, codes: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """float (B, *code) to (B, C, H, W) on [0, 1]; with a mask to that and the mask, (B, 1, H, W) on [0, 1].

        They are float32, or of the weights' type if that was changed.
        """
        x = F.leaky_relu(self.stem((codes.to(self.code_mean.dtype) - self.code_mean) / self.code_scale), _SLOPE)
        if len(self.layout.code) == 1:
            x = x.unflatten(1, (self.layout.widths[0], *self._sizes[0]))
        else:
            x = _resized(x, self._sizes[0])
        for stage, new in zip(self.doublings, self._sizes[1:], strict=True):
            x = stage(x if isinstance(stage, nn.ConvTranspose2d) else _resized(x, new))
            # A grid of odd size is doubled to one row or column too many.
            x = F.leaky_relu(x[..., : new[0], : new[1]], _SLOPE)
        image = torch.sigmoid(self.to_image(x))
        return image if self.to_mask is None else (image, torch.sigmoid(self.to_mask(x)))


def decoder_bytes(decoder: Decoder, metadata: dict[str, str]) -> bytes:
    """A safetensors file of the decoder, its weights in float16, with the layout and further texts as metadata.

    Equal decoders and texts give equal bytes. GenomeError for weights that are not finite in float16, and for texts named
    "format" or "layout".
    """
    if taken := {"format", "layout"} & metadata.keys():
        raise GenomeError(f"the metadata {', '.join(sorted(taken))} are the decoder's own; give yours another name")
    tensors = {}
    for name, tensor in decoder.state_dict().items():
        kind = np.float32 if name in _EXACT else np.float16
        with np.errstate(over="ignore"):
            tensors[name] = tensor.detach().cpu().numpy().astype(kind)
        if not np.isfinite(tensors[name]).all():
            raise GenomeError(f"the decoder's {name} has NaN, infinity or a value beyond {np.dtype(kind)}: train it again")
    layout = json.dumps(asdict(decoder.layout), sort_keys=True)
    return pack_tensors(tensors, {"format": FORMAT, "layout": layout} | metadata)


def decoder_of_bytes(data: bytes) -> tuple[Decoder, dict[str, str]]:
    """The decoder of a file that decoder_bytes made, float32, in eval mode, without gradients; and the further texts.

    GenomeError for other bytes, damaged ones, another format and arrays that do not fit the layout. Its message begins with
    a verb, so that a caller can put the file's name before it.
    """
    tensors, metadata = unpack_tensors(data)
    if metadata.get("format") != FORMAT:
        raise GenomeError(f'is not a decoder: its format is "{metadata.get("format")}", not "{FORMAT}"')
    try:
        layout = Layout(**json.loads(metadata["layout"]))
    except GenomeError as error:
        raise GenomeError(f"is damaged: {error}") from None
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise GenomeError(f"is damaged: its layout cannot be read ({error})") from None
    with torch.device("meta"):  # no memory is spent on a layout that the arrays do not fit
        decoder = Decoder(layout)
    shapes = {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
    if unknown := sorted(tensors.keys() - shapes.keys()):
        raise GenomeError(f"is damaged: it has {unknown[0]}, which a decoder of its layout has not")
    state = {name: torch.from_numpy(check_tensor(tensors, name, shape).astype(np.float32)) for name, shape in shapes.items()}
    if not (state["code_scale"] > 0).all():
        raise GenomeError("is damaged: its code_scale has values that are not above 0")
    decoder.load_state_dict(state, assign=True)
    rest = {name: text for name, text in metadata.items() if name not in ("format", "layout")}
    return decoder.eval().requires_grad_(False), rest


def _sizes(layout: Layout) -> list[tuple[int, int]]:
    """Height and width after the stem and after each stage."""
    size = layout.grid(0)
    if len(layout.code) == 3:
        height, width = (
            min(max(own, least), most) for own, least, most in zip(layout.code[1:], size, layout.image[1:], strict=True)
        )
        size = (height, width)
    sizes = [size]
    for k in range(1, len(layout.widths) + 1):
        grid = layout.grid(k)
        sizes.append((max(sizes[-1][0], grid[0]), max(sizes[-1][1], grid[1])))
    return sizes


def _stages(layout: Layout) -> list[tuple[int, tuple[int, int]]]:
    """Channels, height and width of the largest tensor of the stem and of each stage, for one image."""
    sizes = _sizes(layout)
    stem = [layout.code[1:], sizes[0]] if len(layout.code) == 3 else sizes[:1]
    widths = pairwise((layout.widths[0], *layout.widths))
    return [(layout.widths[0], (size[0], size[1])) for size in stem] + [
        (max(pair), size) for pair, size in zip(widths, sizes[1:], strict=True)
    ]


def _doubles(old: tuple[int, int], new: tuple[int, int]) -> bool:
    """Whether both sides double, or are one less than double."""
    return all(before > 0 and 2 * before - 1 <= after <= 2 * before for before, after in zip(old, new, strict=True)) and (
        new != old
    )


def _resized(x: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Bilinearly, averaged over where it shrinks; x itself for its own size."""
    if tuple(x.shape[2:]) == size:
        return x
    shrinks = any(new < old for new, old in zip(size, x.shape[2:], strict=True))
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=shrinks)
