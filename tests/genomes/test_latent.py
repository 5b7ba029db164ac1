"""The latent encoding: its steps against a loop, its limit, sizes and decoders."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genomes import GenomeError, Key, Latent
from genomes.random import normals
from genomes.resample import resampled
from genomes.upconv import Decoder, Layout, decoder_bytes, decoder_of_bytes


def decoder_file(code: tuple[int, ...] = (5,), image: tuple[int, int, int] = (1, 12, 14), **more: bool) -> bytes:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return decoder_bytes(Decoder(Layout(code, image, (6, 4), **more)), {})


FILE = decoder_file()
ENCODING = Latent(FILE, 1, 12, 14, sigma=0.3, line=0.7, limit=1.2)


def test_normal_draws_are_those_of_the_streams(reference_stream):
    found = normals(Key(7, 3, 5), 4, 6)
    for i, row in enumerate(found):
        stream = reference_stream(7, 3, 5 + i)
        for value in row:
            total = -6.0
            for _ in range(12):
                total += stream.uniform()
            assert value == total
    many = normals(Key(0, 0), 200, 50)
    assert abs(many.mean()) < 0.03
    assert abs(many.std() - 1) < 0.03


def test_a_child_is_a_gaussian_step_and_a_step_along_the_line_to_its_father() -> None:
    mothers, fathers = ENCODING.random(9, Key(1, 0)), ENCODING.random(9, Key(2, 0))
    children = replace(ENCODING, limit=9.0).vary(mothers, fathers, Key(3, 4))
    draws = normals(Key(3, 4), 9, 6)
    for i in range(9):
        for k in range(5):
            m, f = float(mothers[i, k]), float(fathers[i, k])
            assert children[i, k] == np.float32(m + 0.3 * draws[i, 1 + k] + 0.7 * draws[i, 0] * (f - m))
    alone = replace(ENCODING, line=0.0)
    assert np.array_equal(alone.vary(mothers, fathers, Key(3, 4)), alone.vary(mothers, mothers, Key(3, 4)))
    assert (alone.uses_second_parent(3, Key(0, 0)), ENCODING.uses_second_parent(3, Key(0, 0)))[1].all()
    assert not alone.uses_second_parent(3, Key(0, 0)).any()
    along = replace(ENCODING, sigma=0.0, limit=9.0).vary(mothers, fathers, Key(3, 4)) - mothers
    for step, way in zip(along, fathers - mothers, strict=True):
        assert np.linalg.norm(step - way * (step @ way) / (way @ way)) < 1e-5


def test_codes_stay_within_the_limit() -> None:
    codes = ENCODING.random(50, Key(0, 0))
    for b in range(1, 30):
        codes = replace(ENCODING, sigma=3.0).vary(codes, codes[::-1], Key(0, b))
    rms = np.sqrt(np.square(codes.astype(np.float64)).mean(1))
    assert rms.max() <= 1.2 * (1 + 1e-6)
    assert (rms > 1.199).mean() > 0.5


def test_another_size_is_the_decoders_image_resampled() -> None:
    codes = ENCODING.random(5, Key(0, 0))
    own = ENCODING.render(codes)
    for height, width in ((24, 28), (12, 40), (7, 14), (30, 9), (5, 5)):
        wanted = resampled(own, height, width)
        assert np.array_equal(ENCODING.render(codes, (height, width)), wanted)
        other = replace(ENCODING, height=height, width=width)
        assert np.array_equal(other.render(codes), wanted)
        assert np.array_equal(other.draw(codes, "cpu").numpy(), wanted)


def test_pixels_are_the_decoders_values_rounded() -> None:
    codes = ENCODING.random(20, Key(0, 0))
    with torch.inference_mode():
        values = decoder_of_bytes(FILE)[0].double()(torch.from_numpy(codes.astype(np.float64))).numpy()
    assert np.abs(ENCODING.render(codes) - 255 * values).max() <= 0.5 + 1e-9
    assert ENCODING.render(codes).std() > 0


def test_bits_do_not_depend_on_torchs_threads_and_these_stay() -> None:
    codes, before = ENCODING.random(5, Key(0, 0)), torch.get_num_threads()
    images = ENCODING.render(codes)
    try:
        torch.set_num_threads(2)
        assert np.array_equal(ENCODING.render(codes), images)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_encoding_is_its_decoder() -> None:
    other = decoder_file(image=(1, 12, 13))
    assert replace(ENCODING, decoder=other) != ENCODING
    text = ENCODING.to_json(ENCODING.random(1, Key(0, 0))[0])
    with pytest.raises(GenomeError, match="the SHA-256 of this decoder is"):
        replace(ENCODING, decoder=other).from_json(text)
    with pytest.raises(GenomeError, match='"code" is no base64'):
        ENCODING.from_json(text | {"code": "!"})
    with pytest.raises(GenomeError, match="no numbers, or beyond 1000"):
        ENCODING.unpack([np.full(5, np.nan, "<f4").tobytes()])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a whole safetensors file"),
        (FILE[:-7], "is not a whole safetensors file"),
        (b"\x80\x04K\x01.", "is a pickle"),
        (decoder_file(image=(3, 12, 14)), "draws images of 3 channels, and these have 1"),
        (decoder_file((2, 3, 3)), "is a decoder of maps"),
        (decoder_file(mask=True), "is a decoder with a mask"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(GenomeError, match=message):
        Latent(data, 1, 12, 14)


@pytest.mark.parametrize("change", [{"sigma": -0.1}, {"sigma": 0.0, "line": 0.0}, {"limit": 0.0}, {"line": float("nan")}])
def test_settings_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="sigma"):
        replace(ENCODING, **change)  # type: ignore[arg-type]
