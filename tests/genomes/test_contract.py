"""One table of encodings, each held to what genomes.Encoding promises. A new encoding costs one row."""

import ast
import copy
import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import genomes
from genomes import CPPN, Canvas, Direct, Encoding, GenomeError, Genomes, Key, Latent
from genomes.canvas.operators import Rates
from genomes.upconv import Decoder, Layout, decoder_bytes


@cache
def decoder_file(code: tuple[int], image: tuple[int, int, int]) -> bytes:
    """Of one that is not trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return decoder_bytes(Decoder(Layout(code, image, (6, 4))), {})


ENCODINGS: dict[str, Callable[[], Encoding]] = {
    "direct": lambda: Direct(rate=0.1, eta=15.0),
    "direct, colour, not square": lambda: Direct(channels=3, height=12, width=17, rate=(0.01, 0.5), eta=15.0, crossover=0.5),
    "cppn, default": lambda: CPPN(),
    "cppn, rgb": lambda: CPPN(mode="rgb", height=20, width=33),
    "cppn, hsv": lambda: CPPN(mode="hsv", activation_set="innovation2015", weight_limit=3.0, initial_weight=3.0),
    "cppn, tiny": lambda: CPPN(activation_set=("sin", "abs"), max_nodes=5, max_edges=9),
    "cppn, nguyen2015": lambda: CPPN.nguyen2015(),
    "cppn, nguyen2015, colour": lambda: CPPN.nguyen2015(channels=3, height=16, width=24),
    "canvas": lambda: Canvas(1, 28, 28),
    "canvas, colour, not square": lambda: Canvas(3, 20, 33, start="waves", rates=Rates(cppn=0.0, field=3.0)),
    "canvas, cropped": lambda: Canvas(3, 10, 13, size=6, mirror=3, start="noise"),
    "canvas, cppns only": lambda: Canvas(3, 21, 16, rates=Rates(1.0, *[0.0] * 13)),
    "canvas of cosines": lambda: Canvas(1, 28, 28, cosines=9),
    "canvas of cosines, colour, not square": lambda: Canvas(3, 20, 33, start="waves", cosines=17),
    "canvas of cosines, cropped": lambda: Canvas(3, 10, 13, size=6, mirror=3, start="noise", cosines=2),
    "latent": lambda: Latent(decoder_file((5,), (1, 28, 28))),
    "latent, colour, not square, another size than the decoder's": lambda: Latent(
        decoder_file((7,), (3, 16, 20)), 3, 12, 33, sigma=0.5, line=0.0, limit=1.0
    ),
    "canvas, nguyen2015": lambda: Canvas(1, 14, 14, mirror=1, cppn=CPPN.nguyen2015(1, 14, 14)),
}


@pytest.fixture(params=ENCODINGS)
def encoding(request: pytest.FixtureRequest) -> Encoding:
    return ENCODINGS[request.param]()


def grown(encoding: Encoding, count: int = 30, seed: int = 0) -> Genomes:
    batch = encoding.random(count, Key(seed, 0))
    for b in range(1, 20):
        batch = encoding.vary(batch, batch[::-1].copy(), Key(seed, b))
    return batch


def same(a: Genomes, b: Genomes) -> None:
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_it_is_an_encoding_with_the_stated_properties(encoding: Encoding) -> None:
    assert isinstance(encoding, Encoding)
    assert isinstance(encoding.name, str)
    assert encoding.channels in (1, 3)
    assert encoding.height > 0
    assert encoding.width > 0
    assert isinstance(encoding.dtype, np.dtype)
    assert not encoding.dtype.hasobject
    assert isinstance(encoding.shape, tuple)


def test_equal_encodings_are_equal_frozen_and_do_the_same_also_after_pickling(
    encoding: Encoding, request: pytest.FixtureRequest
) -> None:
    twin = ENCODINGS[request.node.callspec.params["encoding"]]()
    travelled = copy.deepcopy(encoding)
    for other in (twin, travelled, replace(encoding)):  # type: ignore[type-var]
        assert other == encoding
        assert hash(other) == hash(encoding)
        assert other.dtype == encoding.dtype
        same(grown(other), grown(encoding))
        same(other.render(grown(encoding)), encoding.render(grown(encoding)))
    assert replace(encoding, height=9) != encoding  # type: ignore[type-var]
    with pytest.raises(FrozenInstanceError):
        encoding.height = 9  # type: ignore[misc]


def test_random_gives_the_promised_dtype_and_shape_and_a_row_draws_from_its_own_stream(encoding: Encoding) -> None:
    batch = encoding.random(9, Key(1, 2, 3))
    assert batch.dtype == encoding.dtype
    assert batch.shape == (9, *encoding.shape)
    same(encoding.random(9, Key(1, 2, 3)), batch)
    for i in range(9):
        same(encoding.random(1, Key(1, 2, 3).at(i)), batch[i : i + 1])
    assert len({encoding.pack(g) for g in batch}) == 9


def test_vary_gives_the_promised_dtype_and_shape_and_leaves_parents_alone(encoding: Encoding) -> None:
    mothers, fathers = grown(encoding), grown(encoding, seed=1)
    children = encoding.vary(mothers, fathers, Key(1, 2, 3))
    assert children.dtype == encoding.dtype
    assert children.shape == mothers.shape
    assert not np.shares_memory(children, mothers)
    assert (children != mothers).any()
    same(mothers, grown(encoding))
    same(fathers, grown(encoding, seed=1))
    same(encoding.vary(mothers, fathers, Key(1, 2, 3)), children)
    for i in range(0, 30, 7):
        same(encoding.vary(mothers[i : i + 2], fathers[i : i + 2], Key(1, 2, 3).at(i)), children[i : i + 2])
    same(encoding.vary(mothers[::3], fathers[::3], Key(1, 2, 3))[:1], children[:1])


def test_render_gives_uint8_images_of_its_own_size_whatever_the_threads_and_the_batch(encoding: Encoding) -> None:
    batch = grown(encoding)
    images = encoding.render(batch)
    assert images.dtype == np.uint8
    assert images.shape == (30, encoding.channels, encoding.height, encoding.width)
    same(batch, grown(encoding))
    same(encoding.render(batch, (encoding.height, encoding.width)), images)
    for threads in (1, 2, 5):
        same(encoding.render(batch, threads=threads), images)
    rows = np.array([7, 3, 3, 29, 0])
    same(encoding.render(batch[rows]), images[rows])
    same(encoding.render(np.concatenate([batch[20:], batch[:20]])), np.concatenate([images[20:], images[:20]]))
    same(encoding.render(batch[:0]), images[:0])


def test_draw_gives_the_same_images_as_a_tensor_of_its_own_on_the_device(encoding: Encoding) -> None:
    batch = grown(encoding)
    batch.flags.writeable = False
    for some in (batch, batch[::-3], batch[:0]):
        images = encoding.draw(some, "cpu")
        assert (images.dtype, images.device.type) == (torch.uint8, "cpu")
        same(images.numpy(), encoding.render(some))
        assert not np.shares_memory(images.numpy(), batch)
    encoding.draw(batch, torch.device("cpu")).zero_()
    same(batch, grown(encoding))


def test_another_size_is_rendered_or_raises_a_genome_error(encoding: Encoding) -> None:
    batch = grown(encoding)
    if encoding.name == "direct":
        with pytest.raises(GenomeError, match="cannot be rendered at 40x50"):
            encoding.render(batch, (40, 50))
    else:
        assert encoding.render(batch, (40, 50)).shape == (30, encoding.channels, 40, 50)


def test_bytes_are_the_genome(encoding: Encoding) -> None:
    batch = grown(encoding)
    blobs = [encoding.pack(g) for g in batch]
    assert all(type(blob) is bytes for blob in blobs)
    same(encoding.unpack(blobs), batch)
    assert [encoding.pack(g) for g in encoding.unpack(blobs)] == blobs
    same(encoding.unpack([]), batch[:0])


def test_text_is_the_genome_in_plain_lists_strings_and_numbers(encoding: Encoding) -> None:
    batch = np.concatenate([grown(encoding), grown(encoding)[:3]])
    texts = [json.dumps(encoding.to_json(g), allow_nan=False) for g in batch]
    assert texts[30:] == texts[:3]
    assert len(set(texts)) == len({encoding.pack(g) for g in batch})
    for i, text in enumerate(texts):
        again = encoding.from_json(json.loads(text))
        same(again, batch[i : i + 1])
        assert json.dumps(encoding.to_json(again[0])) == text


@pytest.mark.parametrize("blob", [b"", b"\0", b"\0" * 3, b"\xff" * 50])
def test_invalid_bytes_raise_a_genome_error(encoding: Encoding, blob: bytes) -> None:
    with pytest.raises(GenomeError):
        encoding.unpack([blob])
    with pytest.raises(GenomeError):
        encoding.unpack([encoding.pack(grown(encoding)[0]), blob])


@pytest.mark.parametrize("data", [None, [], {}, "text", 3, {"format": "evofool.other"}, {"format": None, "version": 1}])
def test_an_invalid_text_raises_a_genome_error(encoding: Encoding, data: Any) -> None:
    with pytest.raises(GenomeError, match="format"):
        encoding.from_json(data)


def test_a_text_without_one_of_its_keys_raises_a_genome_error(encoding: Encoding) -> None:
    text = encoding.to_json(grown(encoding)[0])
    for key in text:
        with pytest.raises(
            GenomeError, match='"pixels" is missing' if (encoding.name, key) == ("direct", "pixels") else key
        ):
            encoding.from_json({k: v for k, v in text.items() if k != key})


def test_the_text_of_an_encoding_of_another_kind_is_refused() -> None:
    names = [
        "direct",
        "direct, colour, not square",
        "cppn, default",
        "cppn, rgb",
        "cppn, hsv",
        "cppn, nguyen2015",
        "canvas",
        "latent",
    ]
    texts = {name: ENCODINGS[name]().to_json(grown(ENCODINGS[name]())[0]) for name in names}
    for reader in names:
        for writer in names:
            if reader != writer:
                with pytest.raises(GenomeError):
                    ENCODINGS[reader]().from_json(texts[writer])


def test_a_genome_error_is_a_value_error() -> None:
    assert issubclass(GenomeError, ValueError)


def test_the_package_never_imports_evofool() -> None:
    files = sorted(Path(genomes.__file__).parent.rglob("*.py"))
    assert len(files) > 10
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: a relative import"
                imported = [node.module or ""]
            else:
                continue
            assert not [name for name in imported if name.split(".")[0] == "evofool"], file


@pytest.mark.parametrize("name", ENCODINGS)
def test_an_empty_batch_is_a_batch(name: str) -> None:
    encoding = ENCODINGS[name]()
    none = encoding.random(0, Key(0, 0))
    assert none.shape == (0, *encoding.shape)
    same(encoding.vary(none, none, Key(0, 0)), none)
