"""The activation functions of nodes: their numbers, names and exact definitions, and the named sets for recipes.

Every renderer evaluates the same float32 operations in the same order, so numpy and numba give the same bits on any
machine. No libm function is called. The argument is clamped to +-LIMIT first. Sine and exponential are polynomials:
Cody-Waite reduction, then the minimax coefficients of Cephes (Moshier) and Green ("Faster math functions", 2002);
the error, relative to max(1, |value|), is below 2e-7.
"""

import numpy as np

NAMES = (
    "linear", "sin", "cos", "gauss", "sigmoid", "tanh", "abs", "relu", "step", "bipolar", "clip3", "tanh5", "square",
)  # fmt: skip
"""A genome stores the position in this tuple, so new names may only be appended."""

SETS: dict[str, tuple[str, ...]] = {
    # Measured on the network of 2015: within 60,000 evaluations all of ten runs reached 0.9999 on all digits. With seven
    # activations nine of ten did, with the four of Nguyen 2015 five of ten.
    "default": NAMES,
    # Nguyen 2015 [their modules/nn2]: sine, 2 * sigmoid - 1, exp(-z^2), clip(z, +-3) / 3
    "nguyen2015": ("sin", "bipolar", "gauss", "clip3"),
    # Innovation Engines (Nguyen 2015b) put tanh(5z) in the sine's place, which "creates a lot of recognizable images"
    "innovation2015": ("tanh5", "bipolar", "gauss", "clip3"),
}

f32 = np.float32
LIMIT = f32(1e4)
HALF, ONE, TWO, THREE, FIVE, ZERO = f32(0.5), f32(1), f32(2), f32(3), f32(5), f32(0)
MAGIC = f32(12582912.0)  # 1.5 * 2**23: adding and taking it away rounds to the nearest whole number
INV_PI = f32(0.318309886183790671538)
PI_A, PI_B, PI_C = f32(3.140625), f32(9.67502593994140625e-4), f32(1.509957990978376432e-7)
S3, S5, S7, S9 = f32(-0.16666657), f32(0.0083330255), f32(-0.00019807414), f32(2.6019031e-06)
LOG2_E = f32(1.44269504088896341)
LN2_A, LN2_B = f32(0.693359375), f32(-2.12194440e-4)
E0, E1, E2 = f32(1.9875691500e-4), f32(1.3981999507e-3), f32(8.3334519073e-3)
E3, E4, E5 = f32(4.1665795894e-2), f32(1.6666665459e-1), f32(5.0000001201e-1)
EXP_LIMIT = f32(87.0)


def number(name: str) -> int:
    """The number of an activation; ValueError lists the known names."""
    try:
        return NAMES.index(name)
    except ValueError:
        raise ValueError(f'there is no activation "{name}"; there are {", ".join(NAMES)}') from None


def apply(kind: int, z: np.ndarray) -> np.ndarray:
    """The activation's value at float32 z, in numpy: the definition that the other renderers are tested against."""
    z = np.minimum(np.maximum(z, -LIMIT), LIMIT)
    match NAMES[kind]:
        case "linear":
            return z
        case "sin":
            return _sin(z)
        case "cos":
            return _cos(z)
        case "gauss":
            return _exp(-(z * z))
        case "sigmoid":
            return ONE / (ONE + _exp(-z))
        case "tanh":
            return ONE - TWO / (ONE + _exp(TWO * z))
        case "abs":
            return np.abs(z)
        case "relu":
            return np.maximum(z, ZERO)
        case "step":
            return np.where(z > ZERO, ONE, ZERO)
        case "bipolar":
            return TWO / (ONE + _exp(-z)) - ONE
        case "clip3":
            return np.minimum(np.maximum(z, -THREE), THREE) / THREE
        case "tanh5":
            return ONE - TWO / (ONE + _exp(TWO * (FIVE * z)))
        case "square":
            return np.minimum(z * z, LIMIT)
    raise AssertionError(kind)


def _sine_of(r: np.ndarray, n: np.ndarray) -> np.ndarray:
    """sin of the reduced angle r in [-pi/2, pi/2], negated for odd n."""
    odd = n - TWO * ((n * HALF + MAGIC) - MAGIC)
    sign = ONE - TWO * (odd * odd)
    r2 = r * r
    return ((((S9 * r2 + S7) * r2 + S5) * r2 + S3) * r2 * r + r) * sign


def _sin(z: np.ndarray) -> np.ndarray:
    n = (z * INV_PI + MAGIC) - MAGIC
    return _sine_of(((z - n * PI_A) - n * PI_B) - n * PI_C, n)


def _cos(z: np.ndarray) -> np.ndarray:
    # cos z = sin(z + pi/2), reduced around the odd multiples of pi/2, so that the sum loses no digits of z
    n = (z * INV_PI + HALF + MAGIC) - MAGIC
    h = n - HALF
    return _sine_of(((z - h * PI_A) - h * PI_B) - h * PI_C, n)


def _exp(z: np.ndarray) -> np.ndarray:
    z = np.minimum(np.maximum(z, -EXP_LIMIT), EXP_LIMIT)
    t = z * LOG2_E + MAGIC
    n = t - MAGIC
    r = (z - n * LN2_A) - n * LN2_B
    q = (((((E0 * r + E1) * r + E2) * r + E3) * r + E4) * r + E5) * (r * r) + r + ONE
    return (q.view(np.int32) + (t.view(np.int32) << np.int32(23))).view(f32)
