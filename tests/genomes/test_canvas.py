"""The canvas encoding: its operators against plain numpy with the same draws, fixed bits, sizes, bytes and text."""

import base64
import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomes import CPPN, Canvas, GenomeError, Genomes, Key
from genomes.canvas import compression, cosines, operators, shapes
from genomes.canvas.operators import Rates
from genomes.resample import resampled

Stream = Any  # the fixture reference_stream's
WITH_FATHER = ("blend", "extrapolate", "mask", "paste", "paste_moved")


def only(name: str) -> Rates:
    return Rates(*[float(field == name) for field in Rates._fields])


def made_by(name: str, channels: int = 3, side: int = 40, mirror: int = 2) -> Canvas:
    return Canvas(channels, side, side, mirror=mirror, rates=only(name))


def pictures(encoding: Canvas, count: int, seed: int) -> Genomes:
    """Canvases that are no CPPNs, with structure, and with colours up to black and white."""
    genomes = replace(encoding, start="waves").random(count, Key(seed, 0))
    strong = replace(encoding, rates=only("local_field"))
    return strong.vary(genomes, genomes, Key(seed, 1))


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()[:16]


# Bits that must be the same on every machine: they change only together with operators.VERSION

BITS = {
    "cppn": "a288abb39b86da59",
    "field": "a288abb39b86da59",
    "low_field": "45e274310320882b",
    "local_field": "90d1b910fc05aa90",
    "blend": "45fa8f07c0a24e49",
    "extrapolate": "e6b7120853247bf4",
    "mask": "62b955b917823a67",
    "paste": "ce525b1640578eba",
    "paste_moved": "1a86b6302f5647e6",
    "paste_own": "3bdbc9a1fdae294c",
    "move": "c00ce1b6803104f1",
    "color": "158b54b6f76cbe6c",
    "contrast": "d3ba9e067418cab7",
    "patch": "2daf85e86581796f",
}
COSINES = "d099397b4e016374"
STARTS = {"cppn": "6c7c58ccc8a64df4", "waves": "3d082bccfa6d8a03", "noise": "cbf7e5ced42db001"}


@pytest.mark.parametrize("name", Rates._fields)
def test_each_operator_makes_the_same_bits_on_every_machine(name: str) -> None:
    made = []
    for channels, side in ((3, 40), (1, 28), (3, 11)):
        encoding = made_by(name, channels, side)
        mothers, fathers = pictures(encoding, 6, 1), pictures(encoding, 6, 2)
        made.append(encoding.vary(mothers, fathers, Key(3, 4, 5))["pixels"])
    assert (operators.VERSION, digest(*made)) == ("canvas 1", BITS[name])


def test_canvases_of_cosines_have_the_same_bits_on_every_machine() -> None:
    made = []
    for channels, side, bands in ((3, 40, 9), (1, 28, 14), (3, 11, 2)):
        encoding = Canvas(channels, side, side, start="waves", cosines=bands)
        genomes = encoding.random(30, Key(1, 0))
        for batch in range(1, 5):
            genomes = encoding.vary(genomes, genomes[::-1].copy(), Key(3, batch))
        made += [genomes["cosines"].astype("<i2"), encoding.render(genomes, (33, 50))]
    assert digest(*made) == COSINES


@pytest.mark.parametrize("start", ["cppn", "waves", "noise"])
def test_each_start_has_the_same_bits_on_every_machine(start: str) -> None:
    genomes = [Canvas(channels, 40, 40, start=start).random(6, Key(3, 4, 5))["pixels"] for channels in (1, 3)]
    assert digest(*genomes) == STARTS[start]


# The operators against plain numpy, with the draws in the same order


class Plain:
    """The operators in float64, for one child of the stream (3, 4, row)."""

    def __init__(self, stream: Stream, mother: np.ndarray, father: np.ndarray) -> None:
        self.s, self.m, self.f = stream, mother.astype(float), father.astype(float)
        self.size = mother.shape[-1]
        bands = min(24, self.size)
        self.log_bands = np.log(bands)
        self.cosines = np.cos(np.pi * np.arange(bands)[:, None] * (np.arange(self.size) + 0.5) / self.size)
        middle = (np.arange(self.size) + 0.5) / self.size
        self.x, self.y = np.meshgrid(middle, middle)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.s.uniform()

    def log_between(self, low: float, high: float) -> float:
        return float(np.exp(self.between(np.log(low), np.log(high))))

    def normal(self) -> float:
        return sum(self.s.uniform() for _ in range(12)) - 6

    def field(self, band: float, rms: float, channels: int) -> np.ndarray:
        n = min(max(2, int(band)), len(self.cosines))
        equal, c = self.s.uniform() < 0.3, np.zeros((channels, n, n))
        for k, i, j in np.ndindex(c.shape):
            if k and equal:
                c[k, i, j] = c[0, i, j]
            elif i * i + j * j <= band * band:
                c[k, i, j] = self.normal()
        out = np.einsum("cij,ih,jw->chw", c, self.cosines[:n], self.cosines[:n])
        return np.asarray(rms * out / (out.std() + 1e-6))

    def blob(self) -> np.ndarray:
        cx, cy = self.between(0.05, 0.95), self.between(0.05, 0.95)
        radius, stretch = self.log_between(0.08, 0.5), np.exp(0.3 * self.normal())
        angle = np.pi * self.s.uniform()
        sharp = 6 if self.s.uniform() < 0.5 else 30
        x, y = self.x - cx, self.y - cy
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        distance = np.hypot(u / (radius * stretch), v / (radius / stretch))
        return np.asarray(1 / (1 + np.exp(np.clip((distance - 1) * sharp, -30, 30))))

    def border(self) -> np.ndarray:
        band = self.between(2, 8)
        steep = 2 if self.s.uniform() < 0.5 else 8
        return np.asarray(1 / (1 + np.exp(-np.clip(self.field(band, steep, 1)[0], -30, 30))))

    def moved(self, image: np.ndarray) -> np.ndarray:
        scale, angle = np.exp(self.between(-0.7, 0.7)), 0.5 * self.normal()
        tx, ty = self.between(-0.3, 0.3), self.between(-0.3, 0.3)
        x, y = (self.x - 0.5) * (-1 if self.s.uniform() < 0.3 else 1), self.y - 0.5
        u = scale * (x * np.cos(angle) - y * np.sin(angle)) + 0.5 + tx
        v = scale * (x * np.sin(angle) + y * np.cos(angle)) + 0.5 + ty
        place = [np.minimum(np.abs((t + 1) % 2 - 1) * self.size, self.size - 1).astype(int) for t in (v, u)]
        return image[:, place[0], place[1]]

    def child(self, name: str, clipped: bool = True) -> np.ndarray:
        self.s.uniform()  # draws the operator
        m, channels = self.m, len(self.m)
        if name in WITH_FATHER[:4] and np.array_equal(m, self.f):
            self.f = self.moved(m)
        match name:
            case "cppn" | "field":
                band = np.exp(self.between(np.log(2), self.log_bands))
                out = m + self.field(band, self.log_between(5, 50), channels)
            case "low_field":
                band = self.between(2, 10)
                out = m + self.field(band, self.log_between(10, 50), channels)
            case "local_field":
                share, band = self.blob(), np.exp(self.between(np.log(2), self.log_bands))
                out = m + share * self.field(band, self.log_between(15, 90), channels)
            case "blend":
                share = self.between(0.15, 0.7)
                out = m + share * (self.f - m)
                mean = out.mean((1, 2), keepdims=True)
                out = mean + self.between(1, 1.4) * (out - mean)
            case "extrapolate":
                out = m - self.between(0.1, 0.6) * (self.f - m)
            case "mask":
                out = m + self.border() * (self.f - m)
            case "paste":
                out = m + self.blob() * (self.f - m)
            case "paste_moved" | "paste_own":
                share = self.blob()
                out = m + share * (self.moved(self.f if name == "paste_moved" else m) - m)
            case "move":
                out = self.moved(m)
            case "color":
                out = np.zeros_like(m)
                for c in range(channels):
                    out[c] = 128 + 12 * self.normal()
                    for d in range(channels):
                        out[c] += (0.2 * self.normal() + (c == d)) * (m[d] - 128)
            case "contrast":
                factor, shift = np.exp(0.25 * self.normal()), 8 * self.normal()
                out = m.mean() + shift + factor * (m - m.mean())
            case "patch":
                share, fade = self.blob(), self.s.uniform()
                color = np.array([70 * self.normal() for _ in range(channels)])[:, None, None]
                out = m + share * (m * fade + color - m)
        return np.clip(out, 0, 255) if clipped else np.asarray(out)


@pytest.mark.parametrize("name", Rates._fields)
@pytest.mark.parametrize("alone", [False, True])
def test_an_operator_equals_its_definition_in_plain_numpy(
    name: str, alone: bool, reference_stream: Callable[..., Stream]
) -> None:
    for channels, side in ((3, 40), (1, 28)):
        encoding = made_by(name, channels, side)
        mothers = pictures(encoding, 8, 1)
        fathers = mothers if alone else pictures(encoding, 8, 2)
        children = encoding.vary(mothers, fathers, Key(3, 4))["pixels"]
        for row in range(8):
            plain = Plain(reference_stream(3, 4, row), mothers["pixels"][row], fathers["pixels"][row]).child(name)
            apart = np.abs(children[row] - plain)
            # A place on the border of two pixels may be read from either, since it is computed in float32.
            assert np.quantile(apart, 0.98) <= 0.51, (row, np.quantile(apart, 0.98))


def test_cosines_are_orthogonal_and_those_of_libm() -> None:
    for size in (2, 3, 14, 112, 512):
        cosines = shapes.basis(size).cosines.astype(float)
        bands = min(24, size)
        expected = np.cos(np.pi * np.arange(bands)[:, None] * (np.arange(size) + 0.5) / size)
        np.testing.assert_allclose(cosines, expected, atol=4e-8)
        np.testing.assert_allclose(cosines @ cosines.T, np.diag([size, *[size / 2] * (bands - 1)]), atol=1e-5)


# Canvases of cosines


def summed(coefficients: np.ndarray, height: int, width: int) -> np.ndarray:
    """The sums of float64 cosines at the centres of height x width parts of a canvas, not clipped."""
    bands = np.arange(coefficients.shape[-1])[:, None]
    down, across = (np.cos(np.pi * bands * (np.arange(n) + 0.5) / n) for n in (height, width))
    return 128 + np.asarray(np.einsum("bcij,ih,jw->bchw", coefficients / 64, down, across))


def nearest(values: np.ndarray, bands: int) -> np.ndarray:
    """The coefficients that leave the least sum of squares, found by least squares."""
    size = values.shape[-1]
    waves = np.cos(np.pi * np.arange(bands)[None, :] * (np.arange(size)[:, None] + 0.5) / size)
    inverse = np.linalg.pinv(waves)
    return 64 * np.asarray(np.einsum("ih,bchw,jw->bcij", inverse, values - 128.0, inverse))


def test_cosines_of_pixels_are_the_nearest_and_draw_these_pixels() -> None:
    encoding = Canvas(3, 40, 40, cosines=7)
    pixels = pictures(Canvas(3, 40, 40), 5, 1)["pixels"]
    genomes = encoding.of_pixels(pixels)
    assert np.abs(genomes["cosines"] - nearest(pixels, 7)).max() < 0.51
    apart = np.abs(genomes["pixels"] - np.clip(summed(genomes["cosines"], 20, 20), 0, 255))
    assert apart.max() < 0.502
    same = encoding.of_pixels(genomes["pixels"])["cosines"].astype(int)
    assert np.abs(same - genomes["cosines"]).mean() < 20  # grey levels that were clipped are lost


@pytest.mark.parametrize("name", Rates._fields)
def test_a_child_of_cosines_is_the_nearest_to_what_the_operator_makes(
    name: str, reference_stream: Callable[..., Stream]
) -> None:
    encoding = replace(made_by(name), cosines=12)
    mothers, fathers = (pictures(encoding, 8, seed) for seed in (1, 2))
    assert np.abs(mothers["cosines"][:, :, 0, 0] / 64).max() > 20
    children = encoding.vary(mothers, fathers, Key(3, 4))
    values = [summed(parents["cosines"], 20, 20) for parents in (mothers, fathers)]
    for row in range(8):
        plain = Plain(reference_stream(3, 4, row), values[0][row], values[1][row]).child(name, clipped=False)
        apart = np.abs(children["cosines"][row] - nearest(plain[None], 12)[0])
        assert np.median(apart) < 1  # a place on the border of two pixels may be read from either
        assert np.quantile(apart, 0.98) < 30


def test_extremes_are_held_within_the_coefficients() -> None:
    encoding = replace(made_by("extrapolate", 1, 8, 1), cosines=8)
    bright, dark = (encoding.of_pixels(np.full((1, 1, 8, 8), level, np.uint8)) for level in (255, 0))
    for batch in range(40):
        bright = encoding.vary(bright, dark, Key(1, batch))
    assert bright["cosines"][0, 0, 0, 0] == 32767
    assert (bright["pixels"] == 255).all()


@pytest.mark.parametrize("encoding", [Canvas(3, 20, 32, cosines=9), Canvas(1, 27, 28, size=10, mirror=3, cosines=10)])
def test_canvases_of_cosines_are_drawn_at_any_size(encoding: Canvas) -> None:
    genomes = np.concatenate([pictures(encoding, 4, 1), encoding.random(4, Key(1, 0))])
    image = encoding.render(genomes)
    for times in (3, 5):
        large = encoding.render(genomes, (times * encoding.height, times * encoding.width))
        middle = slice(times // 2, None, times)  # the centres of these pixels are those of the small image
        apart = np.abs(large[:, :, middle, middle].astype(int) - image)
        assert apart.max() <= 1
        assert (apart > 0).mean() < 0.001  # sums in float32 that lie beside a half
    assert encoding.has_any_size(genomes).all()
    assert not Canvas(1, 8, 8, start="waves").has_any_size(Canvas(1, 8, 8, start="waves").random(3, Key(0, 0))).any()
    assert encoding.render(genomes, (1, 7)).shape == (8, encoding.channels, 1, 7)


@given(st.integers(0, 1 << 30), st.sampled_from([(1, 2, 2), (3, 9, 9)]), st.sampled_from([0, 1, 300, 32767]))
@settings(max_examples=60, deadline=None)
def test_packing_gives_all_coefficients_back(seed: int, shape: tuple[int, int, int], spread: int) -> None:
    coefficients = np.random.default_rng(seed).integers(-spread, spread + 1, shape, np.int16)
    np.testing.assert_array_equal(cosines.unpacked(cosines.packed(coefficients), shape), coefficients)


def test_damaged_coefficients_are_refused() -> None:
    data = cosines.packed(np.arange(12, dtype=np.int16).reshape(3, 2, 2))
    assert cosines.unpacked(data, (3, 2, 2)) is not None
    for wrong in (data[:-1], data + b"x", b"", b"evofool", zlib.compress(bytes(23)), zlib.compress(bytes(1 << 24))):
        assert cosines.unpacked(wrong, (3, 2, 2)) is None


# Which operator, and which parents


def test_operators_are_drawn_in_proportion_to_their_rates() -> None:
    rates = Rates(*[0.0, 1.0, 2.0, 3.0, *[0.0] * 9, 4.0])
    drawn = operators.drawn(20_000, rates, Key(1, 2))
    shares = np.bincount(drawn, minlength=14) / 20_000
    np.testing.assert_allclose(shares, np.array(rates) / 10, atol=0.015)
    assert set(drawn.tolist()) == {1, 2, 3, 13}
    np.testing.assert_array_equal(drawn[5:9], operators.drawn(4, rates, Key(1, 2, 5)))


def test_a_child_depends_on_its_father_exactly_where_it_uses_the_second_parent() -> None:
    encoding = Canvas(3, 28, 28)
    mothers = pictures(encoding, 200, 1)
    one, other = (encoding.vary(mothers, pictures(encoding, 200, seed), Key(5, 6)) for seed in (2, 3))
    uses = encoding.uses_second_parent(200, Key(5, 6))
    np.testing.assert_array_equal((one["pixels"] != other["pixels"]).any(axis=(1, 2, 3)), uses)
    np.testing.assert_array_equal(uses[7:30], encoding.uses_second_parent(23, Key(5, 6, 7)))
    names = np.array(Rates._fields)[operators.drawn(200, encoding.rates, Key(5, 6))]
    np.testing.assert_array_equal(uses, np.isin(names, WITH_FATHER))
    assert 0.25 < uses.mean() < 0.47


def test_no_operator_gives_the_mother_back_where_there_is_no_father() -> None:
    encoding = Canvas(3, 28, 28)
    mothers = pictures(encoding, 300, 1)
    children = encoding.vary(mothers, mothers, Key(5, 6))
    assert (children["pixels"] != mothers["pixels"]).any(axis=(1, 2, 3)).all()


# CPPNs


def test_random_cppns_have_zero_to_eleven_mutations_behind_them() -> None:
    encoding = Canvas(3, 28, 28)
    genomes = encoding.random(300, Key(1, 2))
    assert encoding.is_cppn(genomes).all()
    nodes = genomes["cppn"]["n_nodes"] - 3
    assert (nodes == 0).mean() > 1 / 12
    assert 3 < nodes.max() <= 11
    np.testing.assert_array_equal(genomes["pixels"], encoding.cppn.render(genomes["cppn"]))
    np.testing.assert_array_equal(encoding.random(10, Key(1, 2, 50)), genomes[50:60])


def test_a_canvas_stays_a_cppn_until_another_operator_varies_it() -> None:
    encoding = Canvas(3, 28, 28)
    genomes = encoding.random(400, Key(1, 0))
    children = encoding.vary(genomes, genomes[::-1].copy(), Key(1, 1))
    by_cppn = operators.drawn(400, encoding.rates, Key(1, 1)) == 0
    np.testing.assert_array_equal(encoding.is_cppn(children), by_cppn)
    assert 0 < by_cppn.mean() < 0.2
    np.testing.assert_array_equal(children["pixels"][by_cppn], encoding.cppn.render(children["cppn"][by_cppn]))
    assert not children["cppn"][~by_cppn].tobytes().strip(b"\0")
    plain = encoding.cppn.vary(genomes["cppn"], genomes["cppn"], Key(1, 1, 1 << 40))
    np.testing.assert_array_equal(children["cppn"][by_cppn], plain[by_cppn])
    # the mutation of a CPPN does not depend on the draw of the operator
    alone = made_by("cppn", side=28).vary(genomes, genomes, Key(1, 1))
    np.testing.assert_array_equal(alone["cppn"], plain)


# Images


@pytest.mark.parametrize(("mirror", "height", "width"), [(1, 20, 20), (2, 40, 40), (2, 39, 30), (3, 60, 60), (4, 70, 80)])
def test_an_image_is_the_canvas_mirrored_and_cropped(mirror: int, height: int, width: int) -> None:
    encoding = Canvas(3, height, width, size=20, mirror=mirror)
    genomes = pictures(encoding, 3, 1)
    image, canvas = encoding.render(genomes), genomes["pixels"]
    rows = np.concatenate([canvas[:, :, :: -1 if k % 2 else 1] for k in range(mirror)], axis=2)
    tiles = np.concatenate([rows[..., :: -1 if k % 2 else 1] for k in range(mirror)], axis=3)
    np.testing.assert_array_equal(image, tiles[:, :, :height, :width])


@pytest.mark.parametrize("encoding", [Canvas(3, 20, 32), Canvas(1, 14, 14, mirror=1), Canvas(1, 27, 28, size=10, mirror=3)])
def test_a_cppn_is_drawn_by_itself_at_any_size_and_another_canvas_is_resampled(encoding: Canvas) -> None:
    graphs, others = encoding.random(4, Key(1, 0)), pictures(encoding, 4, 1)
    mixed = np.concatenate([graphs, others])[[0, 4, 1, 5, 2, 6, 3, 7]]
    size = 3 * encoding.height, 3 * encoding.width
    large = encoding.render(mixed, size)
    # the centres of every third pixel are those of the small image
    np.testing.assert_array_equal(large[::2, :, 1::3, 1::3], encoding.render(graphs))
    np.testing.assert_array_equal(large[1::2], resampled(encoding.render(others), *size))
    np.testing.assert_array_equal(encoding.is_cppn(mixed), [True, False] * 4)


def test_a_cppn_of_pixel_indices_is_drawn_by_itself_too() -> None:
    encoding = Canvas(1, 28, 28, cppn=CPPN.nguyen2015(1, 14, 14))
    graphs = encoding.random(4, Key(1, 0))
    np.testing.assert_array_equal(encoding.render(graphs, (84, 84))[:, :, 1::3, 1::3], encoding.render(graphs))


@pytest.mark.parametrize("size", [(5, 9), (40, 41), (7, 7), (1, 1), (64, 3)])
def test_resampling_equals_its_definition(size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 11), np.uint8)

    def along_rows(rows: np.ndarray, new: int) -> np.ndarray:
        old = rows.shape[-1]
        if new == old:
            return rows
        out = np.empty((*rows.shape[:-1], new), np.uint8)
        for i in range(new):
            centre, reach = (i + 0.5) * old / new - 0.5, max(1.0, old / new)
            weight = np.maximum(0.0, 1 - np.abs(np.arange(old) - centre) / reach)
            out[..., i] = np.floor(rows @ (weight / weight.sum()) + 0.5 + 1e-9)
        return out

    expected = along_rows(along_rows(images, size[1]).swapaxes(2, 3), size[0]).swapaxes(2, 3)
    assert np.abs(resampled(images, *size).astype(int) - expected).max() <= 1
    assert (resampled(images, *size) != expected).mean() < 0.05  # ties
    for level in (0, 7, 255):
        assert (resampled(np.full_like(images, level), *size) == level).all()


# Bytes and text


@given(st.integers(0, 1 << 30), st.sampled_from([(1, 5, 3), (3, 14, 14), (3, 1, 1)]), st.sampled_from([0, 1, 8, 60, 255]))
@settings(max_examples=60, deadline=None)
def test_compression_gives_every_picture_back(seed: int, shape: tuple[int, int, int], spread: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = ((rng.integers(0, 256, (shape[0], 1, 1)) + rng.integers(0, spread + 1, shape)) % 256).astype(np.uint8)
    np.testing.assert_array_equal(compression.decode(compression.encode(pixels), shape), pixels)


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_bytes_that_compression_does_not_make_are_refused(data: bytes) -> None:
    found = compression.decode(data, (1, 8, 8))
    assert found is None or compression.encode(found) == data


def test_packed_canvases_are_short_and_one_that_does_not_compress_is_stored_as_it_is() -> None:
    encoding = Canvas(3, 224, 224)
    smooth, rough = (Canvas(3, 224, 224, start=start).random(4, Key(1, 0)) for start in ("waves", "noise"))
    graphs = encoding.random(4, Key(1, 0))
    raw = 3 * 112 * 112
    assert all(len(encoding.pack(genome)) < 0.4 * raw for genome in smooth)
    assert all(len(encoding.pack(genome)) == raw + 1 for genome in rough)
    assert all(encoding.pack(genome) == b"\0" + encoding.cppn.pack(genome["cppn"]) for genome in graphs)


SMALL = Canvas(1, 8, 8)
WAVES = replace(SMALL, cosines=2)
SUM = WAVES.to_json(pictures(WAVES, 1, 1)[0])
PICTURE, GRAPH = SMALL.to_json(pictures(SMALL, 1, 1)[0]), SMALL.to_json(SMALL.random(1, Key(0, 0))[0])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PICTURE | {"version": 7}, "version 7; this evofool reads 1"),
        (PICTURE | {"more": 1}, r"unknown keys \['more'\]"),
        (PICTURE | {"size": 5}, '"size" 5; this encoding has 4'),
        (PICTURE | {"mirror": True}, '"mirror" True'),
        (PICTURE | {"channels": 3}, '"channels" 3; this encoding has 1'),
        (PICTURE | {"image": [8, 9]}, r'"image" \[8, 9\]; this encoding has \[8, 8\]'),
        (PICTURE | {"pixels": "$$"}, '"pixels" is no base64'),
        (PICTURE | {"pixels": 3}, '"pixels" is no base64'),
        (PICTURE | {"pixels": base64.b64encode(bytes(15)).decode()}, r"\(1, 4, 4\) has 16 pixels, not 15"),
        (PICTURE | {"pixels": None}, 'either "cppn" or "pixels"'),
        (GRAPH | {"pixels": PICTURE["pixels"]}, 'either "cppn" or "pixels"'),
        (GRAPH | {"cppn": {}}, "not an evofool CPPN"),
    ],
)
def test_errors_for_an_invalid_text_name_the_fault(data: Any, message: str) -> None:
    with pytest.raises(GenomeError, match=message):
        SMALL.from_json(json.loads(json.dumps(data)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (SUM | {"cosines": "AA"}, '"cosines" is no base64'),
        (SUM | {"cosines": "AAAA"}, r"cosines of shape \(1, 2, 2\) have 8 bytes, not 3"),
        (SUM | {"cosines": None}, 'either "cppn" or "cosines"'),
        (PICTURE, r"missing keys \['cosines'\] and unknown keys \['pixels'\]"),
    ],
)
def test_errors_for_an_invalid_text_of_cosines_name_the_fault(data: Any, message: str) -> None:
    with pytest.raises(GenomeError, match=message):
        WAVES.from_json(json.loads(json.dumps(data)))


@pytest.mark.parametrize("blob", [b"", b"\3", b"\3xyz", SMALL.pack(pictures(SMALL, 1, 1)[0])])
def test_errors_for_invalid_bytes_of_cosines_name_the_fault(blob: bytes) -> None:
    with pytest.raises(GenomeError, match=r"damaged, or has no cosines of shape \(1, 2, 2\)"):
        WAVES.unpack([blob])


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "0 bytes is damaged"),
        (b"\3" + bytes(16), "17 bytes is damaged"),
        (b"\2" + bytes(15), "16 pixels, not 15"),
        (b"\1" + bytes(3), "4 bytes is damaged, or is none of shape"),
        (b"\0" + bytes(3), "truncated"),
    ],
)
def test_errors_for_invalid_bytes_name_the_fault(blob: bytes, message: str) -> None:
    with pytest.raises(GenomeError, match=message):
        SMALL.unpack([SMALL.pack(SMALL.random(1, Key(0, 0))[0]), blob])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 3}, "size 3 x mirror 2 covers 6 pixels, and the image has 8x8; size has to be at least 4"),
        ({"mirror": 0}, "mirror is 0"),
        ({"size": 600}, r"size is 600; it has to lie in 2..512"),
        ({"mirror": 8}, r"size is 1; it has to lie in 2..512. For images of 8x8, mirror can be 1 to 4"),
        ({"height": 2000, "width": 1500}, r"size is 1000; .* For images of 2000x1500, mirror can be 4 to 1000"),
        ({"cosines": 1}, r"cosines is 1; it has to be 0, or in 2..4 for this size"),
        ({"cosines": 5}, r"cosines is 5; it has to be 0, or in 2..4 for this size"),
        ({"start": "rain"}, 'start is "rain"; it has to be one of cppn, waves, noise'),
        ({"rates": Rates(*[0.0] * 14)}, "not all of them can be 0"),
        ({"rates": Rates(field=-1.0)}, r"have to lie in \[0, 1e6\)"),
        ({"rates": Rates(field=float("nan"))}, r"have to lie in \[0, 1e6\)"),
        ({"cppn": CPPN(height=8, width=8)}, r"cppn draws \(1, 8, 8\), the canvas is \(1, 4, 4\)"),
    ],
)
def test_errors_name_invalid_settings(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Canvas(**{"channels": 1, "height": 8, "width": 8} | wrong)


@pytest.mark.parametrize(("side", "mirror", "size"), [(224, 2, 112), (28, 2, 14), (28, 1, 28), (299, 2, 150), (331, 3, 111)])
def test_the_default_size_is_the_least_that_covers_the_image(side: int, mirror: int, size: int) -> None:
    assert Canvas(3, side, side, mirror=mirror).size == Canvas(3, 5, side, mirror=mirror).size == size
