"""The values of secret headers: a server may repeat them anywhere, and they are not shown."""

import json
from typing import Any

import pytest

from evofool.errors import TargetError
from evofool.targets import target
from evofool.targets.remote.credentials import without_secrets
from tests.targets.remote.protocol_servers import stub
from tests.targets.remote.scripted_server import DESCRIPTION, Reply, black_box, fake, images_of

pytest.importorskip("httpx")

KEY = 'se"same-0123/456789-abcdefghij'


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_MINE", f"Bearer {KEY}")


def assert_hidden(text: str) -> None:
    for part in ('se"sam', 'se\\"sam', "0123", "abcdef"):
        assert part not in text


@pytest.mark.parametrize(
    "reply",
    [
        Reply({"error": f"no rights: {KEY}"}, 403),
        *(Reply({"error": "x" * at + KEY}, 403) for at in range(170, 200, 5)),
        Reply({"reason": ["x", KEY]}, 403),
        Reply({"error": " " * 790 + KEY}, 503),
        Reply({"headers": KEY}),
        Reply({KEY: 1}),
        Reply({"logits": [[KEY, 0, 0]]}),
        *(Reply({"logits": [["x" * at + KEY, 0, 0]]}) for at in range(30, 60, 5)),
        Reply(f"<html>{KEY}</html>".encode()),
        Reply(b"x" * 190 + KEY.encode()),
        Reply(json.dumps({"logits": KEY}).replace("/", "\\/").encode() + b"<"),
        Reply(b"", 302, {"Location": f"http://127.0.0.1/{KEY}"}),
        Reply(b"", headers={"Content-Encoding": KEY}),
    ],
)
def test_no_answer_makes_them_visible(reply: Reply) -> None:
    with fake() as server:
        remote = black_box(f"{server.url}?header_env=Authorization:KEY_OF_MINE&retries=0")
        server.script = lambda number, images: reply
        with pytest.raises(TargetError) as caught:
            remote.logits(images_of(1))
        assert_hidden(str(caught.value))


@pytest.mark.parametrize(
    "description",
    [
        Reply(f"<html>{KEY}</html>".encode()),
        {**DESCRIPTION, "version": KEY},
        {**DESCRIPTION, "version": "x" * 50 + KEY},
        {**DESCRIPTION, "labels": [KEY, "b"]},
    ],
)
def test_no_description_makes_them_visible(description: Any) -> None:
    with fake(description=description) as server:
        with pytest.raises(TargetError) as caught:
            black_box(f"{server.url}?header_env=Authorization:KEY_OF_MINE")
        assert_hidden(str(caught.value))


@pytest.mark.parametrize(
    "answer",
    [
        {"name": "m", "inputs": KEY},
        {"name": "m", "inputs": [{"name": KEY}, {"name": "b"}]},
        {"name": "m", "inputs": [], "outputs": [], "predictions": KEY},
        {"name": "m", "inputs": [{"name": KEY, "shape": [-1, 3, 4, 4], "datatype": "FP32"}]},
    ],
)
@pytest.mark.parametrize("scheme", ["kserve", "mlflow+http"])
def test_no_other_protocol_makes_them_visible(answer: Any, scheme: str) -> None:
    with stub(lambda method, path, body: (200, answer)) as server:
        with pytest.raises(TargetError) as caught:
            target(f"{scheme}://{server.address}/v2/models/m?size=4&header_env=x-key:KEY_OF_MINE")
        assert_hidden(str(caught.value))


def test_what_stands_for_a_value_is_short_and_other_text_stays() -> None:
    headers = {"Authorization": "Bearer opensesame", "x-key": "Basic b3Blbg=="}
    assert without_secrets("opensesame, Bearer opensesame; b3Blbg==", headers) == "..., ...; ..."
    assert without_secrets('"open..." and "op..."', headers) == '"..." and "op..."'
    assert without_secrets("open the door", headers) == "open the door"
