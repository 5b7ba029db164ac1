"""Images as the numbers of a JSON request: preprocessed here, in the order of axes and the data type that a server takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from evofool.errors import TargetError
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.remote.url import redacted_url
from evofool.targets.spec import Spec

LAYOUTS = ("nchw", "nhwc", "nhw", "flat")
"""The order of axes: images, channels, height, width. nhw: grey without an axis of channels; flat: (n, channels * height *
width)."""
DATATYPES = {
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"int{bits}") for bits in (16, 32, 64)},
}
"""By their names in the Open Inference Protocol. INT8 does not hold a pixel."""
OPTIONS = ("scale", "mean", "std", "order", "invert", "transpose")
"""Those that change numbers; none of them is of a server that is sent files of pictures."""


@dataclass(frozen=True)
class Numbers:
    """Images as numbers. shape: (C, H, W). A float is (pixel * scale - mean) / std, a whole number is a pixel, 0 to 255."""

    shape: tuple[int, int, int]
    layout: str
    datatype: str
    preprocessing: Preprocessing

    @classmethod
    def of(cls, spec: Spec, shape: tuple[int, int, int], layout: str = "nchw", datatype: str = "FP32") -> "Numbers":
        """As the options say; layout and datatype are what the server says, or the defaults."""
        who = redacted_url(spec.name)
        layout, datatype = given_layout(spec) or layout, spec.options.get("datatype", datatype).upper()
        if datatype not in DATATYPES:
            raise TargetError(f'{who}: datatype "{datatype}" is none of {", ".join(DATATYPES)}')
        if layout == "nhw" and shape[0] != 1:
            raise TargetError(f"{who}: layout=nhw is for grey images, and these have {shape[0]} channels")
        whole = not datatype.startswith("FP")
        if whole and (given := [option for option in ("scale", "mean", "std") if option in spec.options]):
            raise TargetError(
                f"{who}: {', '.join(given)} cannot be set: it is sent whole numbers ({datatype}), pixels as they are"
            )
        made, _ = spec.preprocessing(Preprocessing(scale=1.0 if whole else 1 / 255), shape[1:])
        return cls(shape, layout, datatype, made)

    @property
    def dims(self) -> list[int]:
        """The shape of one image."""
        c, h, w = self.shape
        return {"nchw": [c, h, w], "nhwc": [h, w, c], "nhw": [h, w], "flat": [c * h * w]}[self.layout]

    def array(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """(n, *dims) of uint8 images (C, H, W), in the data type."""
        x = self.preprocessing.affine()(torch.from_numpy(np.stack(images)).float()).numpy()
        x = x.transpose(0, 2, 3, 1) if self.layout == "nhwc" else x
        return np.ascontiguousarray(x).reshape(len(x), *self.dims).astype(DATATYPES[self.datatype])

    def details(self) -> dict[str, str]:
        return {"layout": self.layout, "datatype": self.datatype}


def given_layout(spec: Spec) -> str | None:
    """layout=, if it is given; TargetError for one that there is not."""
    layout = spec.options.get("layout")
    if layout not in (None, *LAYOUTS):
        raise TargetError(f'{redacted_url(spec.name)}: layout "{layout}" is none of {", ".join(LAYOUTS)}')
    return layout


def layout_of(dims: Sequence[int]) -> str | None:
    """The layout of an input (n, ...), from its shape (-1: any number); None if it is not clear."""
    if len(dims) in (2, 3):
        return "flat" if len(dims) == 2 else "nhw"
    if len(dims) != 4:
        return None
    first, last = dims[1] in (1, 3), dims[3] in (1, 3)
    return None if first == last else "nchw" if first else "nhwc"


def shape_of(dims: Sequence[int], layout: str, spec: Spec) -> tuple[int, int, int]:
    """The shape (C, H, W) of images, from that of an input of this layout and from size= and channels=."""
    _, *rest = dims
    axes = {"nchw": "chw", "nhwc": "hwc", "nhw": "hw", "flat": ""}[layout]
    known = {axis: size for axis, size in zip(axes, rest, strict=False) if size > 0}
    sides = (known["h"], known["w"]) if "h" in known and "w" in known else None
    size = spec.side(sides)
    channels = known.get("c", 1 if layout == "nhw" else 3)
    if layout == "flat" and rest[0] > 0:
        channels = rest[0] // (size[0] * size[1])
    channels = spec.whole("channels", channels) or 3
    shape = (channels, *size)
    axes_fit = len(rest) == (len(axes) or 1)
    whole = rest[0] < 0 or rest[0] == channels * size[0] * size[1] if layout == "flat" else True
    given = {"c": channels, "h": size[0], "w": size[1]}
    if not axes_fit or not whole or any(given[axis] != size for axis, size in known.items()) or channels not in (1, 3):
        raise TargetError(
            f"{redacted_url(spec.name)}: its input has the shape {list(dims)}, which images of {channels} channel(s), "
            f"{size[0]}x{size[1]} pixels, do not have (layout {layout}); correct size=, channels= or layout="
        )
    return shape
