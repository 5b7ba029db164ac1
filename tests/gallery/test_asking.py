"""Images that are drawn or uploaded: what a target says of them, and what is refused."""

import asyncio
import base64
import io
import re
import shutil
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from starlette.types import Message

from evofool.errors import TargetError
from evofool.explain.input_picture import read_picture
from evofool.explain.phrases import confidence_text
from evofool.gallery.asking import MOST_BYTES, Subject, fit, load
from evofool.gallery.security import Tokens
from evofool.images import encode_png, resized
from evofool.recipe import load as recipe
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.scores import log_odds
from evofool.targets import Target
from tests.gallery.server import PORT, client
from tests.gallery.test_pages import runs_of


@pytest.fixture(scope="module")
def asked(root: Path, tokens: Tokens) -> Iterator[TestClient]:
    with client(root, tokens, asking=True) as found:
        yield found


@pytest.fixture(scope="module")
def address(asked: TestClient) -> str:
    return f"/ask?run={runs_of(asked)['digits'].removeprefix('/run/')}"


def ask(gallery: TestClient, tokens: Tokens, address: str, png: Any, **headers: str) -> Any:
    given = {"origin": f"http://127.0.0.1:{PORT}", "x-form-token": tokens.form, "content-type": "image/png"}
    return gallery.post(address, content=png, headers=given | headers)


def png_of(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_an_elite_is_answered_as_it_was_scored(
    asked: TestClient, address: str, root: Path, tokens: Tokens, lenet: Target
) -> None:
    with StoredRun(root / "digits") as run:
        elite = max(run.elites(), key=lambda each: each.row.log_odds)
    answer = ask(asked, tokens, address, elite.row.png).json()
    odds = log_odds(lenet.logits(elite.image[None]))[0]
    assert [c for c, *_ in answer["classes"]] == np.argsort(-odds, kind="stable").tolist()
    assert answer["classes"][0][:3] == [elite.row.class_id, elite.label, confidence_text(odds.max())]
    assert "none was changed" in answer["fitted"]
    assert "pixels" not in answer


def test_what_is_scored_is_the_image_as_it_was_fitted(
    asked: TestClient, address: str, tokens: Tokens, lenet: Target, tmp_path: Path
) -> None:
    """Of another size, in colour and with transparency: the pixels that come back are those that explain would score."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 60, 4), np.uint8), "RGBA")
    png = png_of(picture)
    (tmp_path / "x.png").write_bytes(png)
    answer = ask(asked, tokens, f"{address}&pixels=yes", png).json()
    image, _ = read_picture(tmp_path / "x.png", lenet)
    assert base64.b64decode(answer["pixels"]) == image.tobytes()
    assert answer["classes"][0][2] == confidence_text(log_odds(lenet.logits(image[None]))[0].max())
    assert "60x40" in answer["fitted"]
    assert "transparency blended with white" in answer["fitted"]


def test_a_canvas_of_the_target_s_size_is_not_changed(lenet: Target) -> None:
    """A browser's canvas gives RGBA; opaque grey in it is the grey that is scored."""
    grey = np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8)
    picture = Image.fromarray(grey).convert("RGBA")
    image, how = fit(png_of(picture), lenet)
    assert (image[0] == grey).all()
    assert "none was changed" in how
    coloured = np.random.default_rng(1).integers(0, 256, (3, 28, 28), np.uint8)
    image, how = fit(encode_png(coloured), lenet)
    assert (image == resized(coloured, (1, 28, 28))).all()
    assert "28x28 grey" in how


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"])
@pytest.mark.parametrize("size", [(28, 28), (1, 3), (57, 31), (2000, 1)])
def test_a_png_of_every_mode_is_fitted(lenet: Target, mode: str, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (size[1], size[0]), np.uint8)
    picture = (
        Image.fromarray(pixels.astype(np.uint16) * 200) if mode.startswith("I") else Image.fromarray(pixels).convert(mode)
    )
    image, how = fit(png_of(picture), lenet)
    assert image.shape == (1, 28, 28)
    assert image.dtype == np.uint8
    assert how.endswith(".")
    assert ("none was changed" in how) == (size == (28, 28) and not mode.startswith("I")), how


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def forged(width: int, height: int, before: bytes = b"") -> bytes:
    """A PNG whose header tells a size, without pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + before + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("png", "status", "words"),
    [
        (b"", 400, "not a whole PNG"),
        (b"GIF89a" + bytes(100), 400, "not a whole PNG"),
        (forged(60_000, 60_000), 400, "4,000,000 are the most"),
        (forged(2001, 2000), 400, "4,000,000 are the most"),
        (forged(60_000, 60_000, chunk(b"tEXt", b"a\0b")), 400, "3600000000 pixels"),
        (forged(28, 28), 400, "not a whole PNG"),
        (bytes(256 * 1024 + 1), 413, "256 kB"),
        (iter([bytes(200_000)] * 3), 413, "256 kB"),
    ],
)
def test_what_is_no_small_png_is_refused_in_words(
    asked: TestClient, address: str, tokens: Tokens, png: Any, status: int, words: str
) -> None:
    answer = ask(asked, tokens, address, png)
    assert (answer.status_code, words in answer.text) == (status, True), answer.text
    assert "Traceback" not in answer.text
    assert len(answer.text.splitlines()) == 1


def test_a_body_without_end_is_not_read_on(asked: TestClient, address: str, tokens: Tokens) -> None:
    """Asked without the test client, which reads a whole body itself before the application gets any of it."""
    read, part, status = 0, 65536, []
    headers = {"host": f"127.0.0.1:{PORT}", "origin": f"http://127.0.0.1:{PORT}", "x-form-token": tokens.form}
    headers |= {"content-type": "image/png", "cookie": f"evofool-gallery-{PORT}={tokens.start}"}
    path, _, query = address.partition("?")
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    async def receive() -> Message:
        nonlocal read
        read += part
        assert read < 1 << 24, "read far beyond the limit"
        return {"type": "http.request", "body": bytes(part), "more_body": True}

    async def send(message: Message) -> None:
        status.append(message.get("status"))

    asyncio.run(asked.app(scope, receive, send))
    assert status[0] == 413
    assert read <= MOST_BYTES + part
    assert ask(asked, tokens, address, b"x", **{"content-length": "9" * 30}).status_code == 413


def test_a_question_from_elsewhere_is_refused(asked: TestClient, address: str, tokens: Tokens) -> None:
    png = encode_png(np.zeros((1, 28, 28), np.uint8))
    assert ask(asked, tokens, address, png).status_code == 200
    assert ask(asked, tokens, address, png, origin="http://evil.example").status_code == 403
    assert ask(asked, tokens, address, png, origin=f"http://127.0.0.1:{PORT + 1}").status_code == 403
    assert ask(asked, tokens, address, png, **{"x-form-token": "x"}).status_code == 403
    assert ask(asked, tokens, address, png, **{"content-type": "multipart/form-data"}).status_code == 415
    assert ask(asked, tokens, "/ask", png).status_code == 400
    assert ask(asked, tokens, "/ask?run=../digits", png).status_code == 404
    assert asked.get(address).status_code == 405


def test_without_the_option_nothing_is_asked(gallery: TestClient, address: str, tokens: Tokens) -> None:
    assert "/draw" not in gallery.get("/").text
    assert gallery.get("/draw").status_code == 404
    assert ask(gallery, tokens, address, b"").status_code == 404


def test_the_page_asks_the_target_of_a_run_or_the_one_that_is_named(
    asked: TestClient, root: Path, tokens: Tokens, lenet: Target
) -> None:
    run = runs_of(asked)["digits"].removeprefix("/run/")
    assert f'data-ask="/ask?run={run}"' in asked.get("/draw").text, "the first run's, where none is named"
    page = asked.get(f"/draw?run={run}&cell=3").text
    assert re.search(rf'data-start="/run/{run}/elite/\d+-[0-9a-f]+\.png"', page)
    assert 'data-start=""' in asked.get(f"/draw?run={run}&cell=99999").text
    with client(root, tokens, asking=True, named=lenet) as found:
        page = found.get("/draw").text
        assert 'data-ask="/ask"' in page
        assert "the target of digits" in page
        assert ask(found, tokens, "/ask", encode_png(np.zeros((1, 28, 28), np.uint8))).status_code == 200


def test_one_run_that_cannot_be_asked_hides_no_other(root: Path, tmp_path: Path, tokens: Tokens) -> None:
    """One cannot be opened; the target of another, the first that can, is not found: the page says so beside the others."""
    for name, change in {"a": '"hieroglyphs"', "b": '"onnx:missing.onnx"', "c": ""}.items():
        shutil.copytree(root / "other", tmp_path / name)
        with closing(sqlite3.connect(tmp_path / name / "run.db")) as db, db:
            old = '"lenet"' if name == "b" else '"cppn"'
            if change:
                db.execute("UPDATE meta SET value = replace(value, ?, ?) WHERE key = 'recipe'", (old, change))
            if name == "b":
                target = "UPDATE meta SET value = json_set(value, '$.fingerprint', ?) WHERE key = 'target'"
                assert db.execute(target, ("f" * 64,)).rowcount == 1
    with client(tmp_path, tokens, asking=True) as found:
        answer = found.get("/draw")
        assert answer.status_code == 400
        assert re.search(r"It cannot be asked: .*missing\.onnx", answer.text)
        assert re.findall(r'<option value="[^"]+"[^>]*>the target of (\w+)</option>', answer.text) == ["b", "c"]
        assert 'id="paper"' not in answer.text
        (other,) = re.findall(r'<option value="([^"]+)">the target of c<', answer.text)
        assert found.get(f"/draw?run={other}").status_code == 200


def test_a_server_is_never_asked_without_a_limit() -> None:
    with pytest.raises(TargetError, match="max_requests=100"):
        load(Subject("http://127.0.0.1:9/classify"))
    with pytest.raises(TargetError, match="max_requests"):
        load(Subject("http://127.0.0.1:9/classify?max_requests=none"))


def test_a_run_never_says_what_code_to_import(tmp_path: Path, tokens: Tokens, lenet: Target) -> None:
    with Run.start(recipe("mnist-cppn", ["stop.evaluations=24"]), tmp_path / "run", lenet) as run:
        run.advance()
    with closing(sqlite3.connect(tmp_path / "run" / "run.db")) as db, db:
        db.execute("""UPDATE meta SET value = replace(value, '"lenet"', '"python:os:getcwd"') WHERE key = 'recipe'""")
    with client(tmp_path, tokens, asking=True) as found:
        run_id = runs_of(found)["run"].removeprefix("/run/")
        answer = ask(found, tokens, f"/ask?run={run_id}", encode_png(np.zeros((1, 28, 28), np.uint8)))
        assert answer.status_code == 400
        assert "name it yourself" in answer.text
        assert "no run here" in found.get("/draw").text


def test_a_target_that_has_changed_is_not_asked(root: Path) -> None:
    with pytest.raises(TargetError, match="have changed since"):
        load(Subject("lenet", "0" * 64, root))
