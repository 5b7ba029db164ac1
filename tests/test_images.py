"""8-bit images: what is written as PNG is read back, what is no such PNG is named and not unpacked; and other sizes."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from evofool.errors import ImageError
from evofool.images import MOST_PIXELS, decode_png, encode_png, resized


def png_of(width: int, height: int, first: bytes = b"") -> bytes:
    """A grey PNG of some bytes that says it has so many pixels, with a chunk before the one that says so."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + first + head + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 5, 7), (1, 1, 1)])
def test_what_is_written_is_read_back(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert np.array_equal(decode_png(encode_png(image)), image)


def test_what_is_no_such_png_is_named() -> None:
    picture, buffer = Image.new("RGBA", (4, 4)), io.BytesIO()
    picture.save(buffer, "PNG")
    for data, words in ((b"", "not a whole PNG"), (encode_png(np.zeros((1, 9, 9), np.uint8))[:45], "not a whole PNG")):
        with pytest.raises(ImageError, match=f"row 3: {words}"):
            decode_png(data, "row 3")
    with pytest.raises(ImageError, match="row 3: PNG of mode RGBA"):
        decode_png(buffer.getvalue(), "row 3")


@pytest.mark.parametrize("side", [9_500, 20_000, 1 << 31])
def test_a_giant_is_refused_before_it_is_unpacked(side: int) -> None:
    """Pillow warns of the first, which a test would take for an error, and refuses the others."""
    with pytest.raises(ImageError, match=rf"row 3: a PNG of {side:,} x {side:,} pixels; {MOST_PIXELS:,} are the most"):
        decode_png(png_of(side, side), "row 3")


@pytest.mark.parametrize("side", [9_500, 20_000])
def test_a_giant_that_hides_its_size_is_refused(side: int) -> None:
    comment = struct.pack(">I", 0) + b"tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))
    with pytest.raises(ImageError, match="row 3: not a whole PNG"):
        decode_png(png_of(side, side, comment), "row 3")


# --- at another size


def test_an_image_of_the_same_size_keeps_its_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 9, 8), np.uint8)
    np.testing.assert_array_equal(resized(image, (3, 9, 8)), image)


@pytest.mark.parametrize("shape", [(3, 9, 8), (1, 9, 8), (3, 40, 33), (1, 3, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_another_size_is_scaled_whole(channels: int, shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (channels, 16, 12), np.uint8)
    out = resized(image, shape)
    assert out.shape == shape
    assert out.dtype == np.uint8
    assert out.flags["C_CONTIGUOUS"]
    picture = Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0))
    picture = picture.convert("L" if shape[0] == 1 else "RGB").resize(shape[:0:-1], Image.Resampling.BILINEAR)
    expected = np.asarray(picture)
    np.testing.assert_array_equal(out, expected[None] if shape[0] == 1 else expected.transpose(2, 0, 1))


def test_scaling_cuts_nothing_off_and_averages() -> None:
    image = np.zeros((1, 40, 20), np.uint8)
    image[0, :4], image[0, -4:], image[0, 10:30] = 255, 255, np.arange(20) % 2 * 255  # borders, and stripes between them
    out = resized(image, (1, 10, 10))
    assert out[0, 0].min() > 200
    assert out[0, -1].min() > 200
    assert abs(out[0, 5].astype(float) - 127.5).max() < 40  # stripes become grey instead of some of them


def test_grey_becomes_three_equal_channels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 9, 8), np.uint8)
    out = resized(image, (3, 9, 8))
    assert all(np.array_equal(channel, image[0]) for channel in out)
