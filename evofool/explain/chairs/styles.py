"""Chairs as parameters and as boxes: four legs, a seat, a back of two posts and a panel, and arms.

The chairs of Dosovitskiy 2015 are 3D models that cannot be had; these take their place. A style is 12 numbers on [0, 1],
and every length and colour is linear in them, so that sums and differences of styles are chairs too while they stay there.
"""

import numpy as np

from genomes.random import Key, integers

PARAMETERS = {
    "width": (0.40, 0.72),
    "depth": (0.40, 0.66),
    "height": (0.26, 0.56),  # of the seat's top above the floor
    "leg": (0.04, 0.10),  # thickness of legs, posts and arms
    "splay": (0.0, 0.14),  # how far a leg's foot stands outside its top
    "back": (0.20, 0.62),  # height above the seat
    "recline": (0.0, 0.26),  # how far the back's top stands behind its foot
    "panel": (0.18, 1.0),  # the share of the back's height that is filled, from the top
    "arms": (0.0, 0.30),  # height above the seat; at 0 they are hidden in it
    "hue": (0.0, 1.0),  # cushions, from blue to orange
    "cushions": (0.55, 1.0),  # lightness
    "frame": (0.30, 0.95),  # lightness
}
"""By name the range that 0 to 1 stands for; lengths in units of about half a chair's height."""

PARTS = (
    *("left front leg", "right front leg", "left back leg", "right back leg", "seat"),
    *("left post", "right post", "panel", "left arm", "right arm", "left arm's post", "right arm's post"),
)
_CUSHIONS = ("seat", "panel")
_SEAT = 0.09  # its thickness
_BLUE, _ORANGE = np.array([0.20, 0.45, 0.95]), np.array([1.00, 0.55, 0.15])
_WOOD = np.array([0.95, 0.75, 0.55])
_MIDDLE = 0.48  # the height of the centre of a picture above the floor


def random_styles(count: int, seed: int) -> np.ndarray:
    """float64 (count, 12) on (0, 1), uniform. Style k has the stream (seed, 0, k): it does not depend on count."""
    steps = 1 << 24
    return np.array([(integers(Key(seed, 0, k), steps, len(PARAMETERS)) + 0.5) / steps for k in range(count)])


def boxes_of(styles: np.ndarray) -> np.ndarray:
    """styles (N, 12) to parallelepipeds, float64 (N, 12, 4, 3): by part its centre and its three half-edges.

    x is to the chair's left, y to its back, z upwards; the chair turns about the z axis through the middle of its seat.
    """
    low, high = np.array(list(PARAMETERS.values())).T
    values = dict(zip(PARAMETERS, (low + (high - low) * np.asarray(styles, float)).T, strict=True))
    width, depth, height, leg = (values[name] for name in ("width", "depth", "height", "leg"))
    x, y, thick = width / 2 - leg / 2, depth / 2 - leg / 2, leg / 2
    below, top = height - _SEAT, height - _MIDDLE  # the length of a leg, and the seat's top
    back, lean = values["back"], values["recline"]
    nothing, inset = np.zeros_like(width), 0.97  # of what meets another part: no two faces lie in one plane
    found: dict[str, np.ndarray] = {}

    def put(
        name: str, centre: tuple[np.ndarray, ...], x_edge: np.ndarray, y_edge: np.ndarray, up: tuple[np.ndarray, ...]
    ) -> None:
        edges = [centre, (x_edge, nothing, nothing), (nothing, y_edge, nothing), up]
        found[name] = np.stack([np.stack(np.broadcast_arrays(*edge), -1) for edge in edges], 1)

    for side, sign in (("left", 1), ("right", -1)):
        for end, to in (("front", -1), ("back", 1)):
            shear = values["splay"] / 2
            centre = (sign * (x + shear), to * (y + shear), top - _SEAT - below / 2)
            put(f"{side} {end} leg", centre, thick, thick, (-sign * shear, -to * shear, below / 2))
        put(f"{side} post", (sign * x, y + lean / 2, top + back / 2), thick, thick, (nothing, lean / 2, back / 2))
        arm, thin = values["arms"] - 0.003, 0.12 * values["arms"] + 0.002
        put(f"{side} arm", (sign * x, nothing, top + arm - thin), inset * thick, inset * depth / 2, (nothing, nothing, thin))
        put(f"{side} arm's post", (sign * x, -y, top + arm / 2 - 0.005), thick, thick, (nothing, nothing, arm / 2))
    put("seat", (nothing, nothing, top - _SEAT / 2), width / 2, depth / 2, (nothing, nothing, nothing + _SEAT / 2))
    filled = values["panel"] / 2
    middle = (nothing, y + lean * (1 - filled), top + back * (1 - filled) - 0.01)
    put("panel", middle, x, 0.7 * thick, (nothing, lean * filled, back * filled))
    return np.stack([found[name] for name in PARTS], 1)


def colours_of(styles: np.ndarray) -> np.ndarray:
    """styles (N, 12) to each part's RGB on [0, 1], float64 (N, 12, 3)."""
    low, high = np.array(list(PARAMETERS.values())).T
    values = dict(zip(PARAMETERS, (low + (high - low) * np.asarray(styles, float)).T[..., None], strict=True))
    cushions = values["cushions"] * (_BLUE + (_ORANGE - _BLUE) * values["hue"])
    frame = values["frame"] * _WOOD
    return np.stack([cushions if name in _CUSHIONS else frame for name in PARTS], 1)
