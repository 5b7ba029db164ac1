"""The files of decoders: the shipped one of digits, and a user's."""

import stat
from pathlib import Path

from evofool.errors import RecipeError
from evofool.text import shortened

DIGITS = "digits"
"""The name of the shipped decoder. `evofool train-decoder digits --out evofool/generators/digits.safetensors` made it."""

SHIPPED = Path(__file__).with_name("digits.safetensors")
MOST_BYTES = 1 << 25
"""Of a decoder's file, which every run with it has a copy of."""


def read_decoder(name: str) -> bytes:
    """The bytes of the decoder of this name: `digits`, or a file. RecipeError if it cannot be read, or is too large."""
    path = SHIPPED if name == DIGITS else Path(name)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("it is a folder, a pipe or a device")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecipeError(
            f"encoding.decoder: {shortened(name)} cannot be read ({reason}); it has to be {DIGITS}, or a file that "
            "evofool train-decoder wrote"
        ) from None
    if len(data) > MOST_BYTES:
        raise RecipeError(
            f"encoding.decoder: {shortened(name)} is too long: {MOST_BYTES:,} bytes are the most, as a run has a copy of it"
        )
    return data
