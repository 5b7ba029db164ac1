"""The decoder that draws images from codes, and its file."""

import json
import pickle
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from genomes import GenomeError
from genomes.tensor_file import pack_tensors, unpack_tensors
from genomes.upconv import FORMAT, Decoder, Layout, decoder_bytes, decoder_of_bytes

LAYOUTS = (
    Layout((10,), (1, 28, 28), (8, 4)),
    Layout((5, 3, 4), (3, 17, 21), (6, 6, 4)),
    Layout((2, 40, 12), (3, 24, 16), (4, 3)),  # finer than the image in one direction
    Layout((7,), (3, 16, 16), (4,), mask=True),
    Layout((7,), (3, 13, 16), (4, 3), transposed=True),
    Layout((5, 3, 9), (3, 17, 21), (6, 6, 4), transposed=True),
)


def made(layout: Layout, seed: int = 0) -> Decoder:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return Decoder(layout).eval()


def codes(layout: Layout, count: int = 3) -> torch.Tensor:
    return torch.randn((count, *layout.code), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_images_have_the_layouts_size_and_depend_on_their_own_code_only(layout: Layout) -> None:
    decoder, given = made(layout), codes(layout)
    with torch.no_grad():
        both = [decoder(given), *(decoder(one[None]) for one in given)]
    images, *alone = (x if isinstance(x, tuple) else (x,) for x in both)
    assert [tuple(x.shape) for x in images] == [(3, *layout.image), (3, 1, *layout.image[1:])][: 1 + layout.mask]
    for k, one in enumerate(alone):
        for x, y in zip(images, one, strict=True):
            assert 0 <= x.min() < x.max() <= 1
            torch.testing.assert_close(x[k : k + 1], y, rtol=1e-5, atol=1e-6)
    assert (images[0][0] - images[0][1]).abs().max() > 1e-3, "another code gives another image"


def test_codes_are_scaled_by_the_decoders_own_mean_and_scale() -> None:
    layout = LAYOUTS[1]
    decoder, given = made(layout), codes(layout)
    before = decoder(given)
    decoder.code_mean += 3
    decoder.code_scale *= 2
    torch.testing.assert_close(decoder(3 + 2 * given), before)
    read, _ = decoder_of_bytes(decoder_bytes(decoder, {}))
    assert torch.equal(read.code_mean, decoder.code_mean)
    assert torch.equal(read.code_scale, decoder.code_scale)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_decoder_is_read_as_it_was_written_but_for_half_precision(layout: Layout) -> None:
    decoder = made(layout)
    data = decoder_bytes(decoder, {"layer": "conv1", "target": "lenet"})
    assert decoder_bytes(made(layout), {"target": "lenet", "layer": "conv1"}) == data, "equal decoders give equal bytes"
    read, texts = decoder_of_bytes(data)
    assert texts == {"layer": "conv1", "target": "lenet"}
    assert read.layout == layout
    assert not read.training
    assert not any(p.requires_grad for p in read.parameters())
    given = codes(layout)
    with torch.no_grad():
        for x, y in zip(*(z if isinstance(z, tuple) else (z,) for z in (decoder(given), read(given))), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-2, atol=2e-3)
    assert decoder_bytes(read, texts) == data


def test_the_beginning_of_a_header_of_any_length_is_not_taken_for_a_pickle() -> None:
    """The first byte of a safetensors file is that of its header's length, which may be a pickle's 0x80."""
    first = {pack_tensors({"a": np.zeros(1)}, {"text": "x" * n})[0] for n in range(0, 256, 8)}
    assert 0x80 in first
    for n in range(0, 256, 8):
        assert unpack_tensors(pack_tensors({"a": np.zeros(1)}, {"text": "x" * n}))[1] == {"text": "x" * n}


def test_bytes_that_are_no_decoder_are_refused_in_one_sentence() -> None:
    whole = decoder_bytes(made(LAYOUTS[0]), {})
    tensors, layout = load(whole), json.dumps(asdict(LAYOUTS[0]))
    meta = {"format": FORMAT, "layout": layout}
    for data, message in (
        (b"", "is not a whole safetensors file"),
        (whole[: len(whole) // 2], "is not a whole safetensors file"),
        (pickle.dumps(["anything"]), "is a pickle or a zip, which evofool does not unpack"),
        (b"PK\x03\x04" + bytes(40), "is a pickle or a zip"),
        (save(tensors), r'is not a decoder: its format is "None", not "evofool.decoder 1"'),
        (save(tensors, meta | {"format": "other"}), r'its format is "other"'),
        (save(tensors, {"format": FORMAT}), "its layout cannot be read"),
        (save(tensors, meta | {"layout": "[1]"}), "its layout cannot be read"),
        (save(tensors, meta | {"layout": "[" * 100_000}), "its layout cannot be read"),
        (save(tensors, meta | {"layout": layout.replace("[8, 4]", "[8, 0]")}), "whole and at least 1"),
        (save(tensors, meta | {"layout": layout.replace("[8, 4]", "[4000, 4]")}), r"stem.weight is 392 x 10, not 196000 x"),
        (save({k: v for k, v in tensors.items() if k != "to_image.bias"}, meta), "it has no to_image.bias"),
        (save(tensors | {"more": np.zeros(1)}, meta), "it has more, which a decoder of its layout has not"),
        (save(tensors | {"code_scale": tensors["code_scale"] * 0}, meta), "code_scale has values that are not above 0"),
        (save(tensors | {"stem.bias": tensors["stem.bias"] + np.nan}, meta), "stem.bias has NaN or infinity"),
    ):
        with pytest.raises(GenomeError, match=message) as raised:
            decoder_of_bytes(data)
        assert "\n" not in str(raised.value)


def test_layouts_and_texts_that_cannot_be_are_refused() -> None:
    for arguments, message in (
        (((3, 4), (3, 8, 8), (4,)), r"a code is a vector \(D,\) .* or a map \(C, h, w\)"),
        (((3,), (2, 8, 8), (4,)), r"image is \(1 or 3, height, width\), up to 1024"),
        (((3,), (3, 8, 4096), (4,)), r"up to 1024 pixels a side"),
        (((3,), (3, 8, 8), ()), "1 to 8 stages"),
        (((True,), (3, 8, 8), (4,)), "whole and at least 1"),
        (((70_000,), (3, 8, 8), (4,)), "of at most 65,536 values"),
        (((4,), (1, 1024, 1024), (1,) * 7 + (4096,)), "at most 33,554,432 values, not 4096 x 1024 x 1024"),
        (((1, 4096, 4096), (1, 8, 8), (64,)), "not 64 x 4096 x 4096"),
    ):
        with pytest.raises(GenomeError, match=message):
            Layout(*arguments)  # type: ignore[arg-type]
    with pytest.raises(GenomeError, match="the metadata layout are the decoder's own"):
        decoder_bytes(made(LAYOUTS[0]), {"layout": "mine"})
    decoder = made(LAYOUTS[0])
    decoder.to_image.bias.data[0] = 1e6
    with pytest.raises(GenomeError, match=r"to_image.bias has NaN, infinity or a value beyond float16"):
        decoder_bytes(decoder, {})
