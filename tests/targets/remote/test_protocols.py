"""The Open Inference Protocol, MLflow's, and templates of other requests, each against a server of exactly that form."""

import json
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from evofool import scores as score
from evofool.errors import TargetError
from evofool.targets import is_black_box, needs_trust, refuse_black_box, stored_target, target
from evofool.targets.redaction import public_name
from evofool.targets.remote.black_box import BlackBox
from evofool.targets.remote.entries import labels_of
from evofool.targets.remote.other_protocol import other_protocol
from evofool.targets.remote.template import found_at
from tests.targets.remote.protocol_servers import open_inference, picture, scores, softmax, stub
from tests.targets.remote.scripted_server import images_of

GREY, COLOUR = (1, 4, 4), (3, 4, 5)


def tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def metadata(datatype: str, *shape: int, classes: int = 3) -> dict[str, Any]:
    return {"inputs": [tensor("x", datatype, *shape)], "outputs": [tensor("y", "FP32", -1, classes)]}


# --- the Open Inference Protocol


@pytest.mark.parametrize(
    ("described", "options", "shape", "sent"),
    [
        (metadata("FP32", -1, 1, 4, 4), "", GREY, lambda x: x / 255),
        (metadata("FP32", -1, 3, 4, 5), "mean=0.5&std=0.25", COLOUR, lambda x: (x / 255 - 0.5) / 0.25),
        (metadata("FP64", -1, 4, 5, 3), "scale=1&order=BGR", COLOUR, lambda x: x[:, ::-1].transpose(0, 2, 3, 1)),
        (metadata("UINT8", -1, 4, 4), "", GREY, lambda x: x),
        (metadata("INT64", -1, 16), "size=4", GREY, lambda x: x),
        (metadata("FP32", -1, 60), "size=4x5&scale=16/255", COLOUR, lambda x: x * 16 / 255),
        (metadata("FP32", -1, 3, -1, -1), "size=4x5&scale=1", COLOUR, lambda x: x),
        (None, "size=4&channels=1&layout=flat&scale=1", GREY, lambda x: x),
        (None, "size=4x5&layout=nhwc&datatype=uint8", COLOUR, lambda x: x.transpose(0, 2, 3, 1)),
    ],
    ids=["nchw", "mean", "nhwc-bgr", "nhw-pixels", "flat-pixels", "flat-colour", "any-size", "silent", "silent-nhwc"],
)
def test_images_are_sent_as_the_metadata_and_the_options_say(
    described: dict[str, Any] | None, options: str, shape: tuple[int, int, int], sent: Any
) -> None:
    images = images_of(5, shape=shape)
    with stub(open_inference(described, lambda x: {"y": scores(x)})) as server:
        remote = target(f"kserve://{server.address}/v2/models/m?{options}")
        assert (remote.shape, remote.labels) == (shape, ("0", "1", "2"))
        expected = scores(sent(images.astype(np.float64)))
        assert remote.logits(images) == pytest.approx(expected, abs=1e-4 * np.abs(expected).max())
        assert remote.details["outputs"] == "logits"
        (_, path, body) = server.asked[-1]
        assert path == "/v2/models/m/infer"
        assert body["inputs"][0]["name"] == ("x" if described else "input-0")


def test_probabilities_labels_and_one_of_several_outputs(tmp_path: Path) -> None:
    labels = {"parameters": {"labels": ["ant", "bee", "cat"]}}
    described = metadata("FP32", 1, 1, 4, 4) | labels
    described["outputs"].append(tensor("probabilities", "FP32", -1, 3))
    images = images_of(4)
    with stub(open_inference(described, lambda x: {"y": scores(x), "probabilities": softmax(scores(x))})) as server:
        url = f"kserve://{server.address}/v2/models/m"
        with pytest.raises(TargetError, match=r"has several outputs, y, probabilities; say which one \(output=y\)"):
            target(url)
        remote = target(f"{url}?output=probabilities")
        assert remote.labels == ("ant", "bee", "cat")
        assert remote.details["outputs"] == "probabilities"
        found = score.log_odds(remote.logits(images))
        assert found == pytest.approx(score.log_odds(scores(images / 255).astype(np.float32)), abs=1e-4)
        assert all(body["inputs"][0]["shape"][0] == 1 for method, _, body in server.asked if method == "POST"), "fixed batch"


def test_one_sigmoid_is_two_classes_and_whole_numbers_are_labels(tmp_path: Path) -> None:
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    images = images_of(6)
    with stub(open_inference(None, lambda x: {"p": softmax(scores(x))[:, :1]})) as server:
        remote = target(f"kserve://{server.address}/v2/models/m?size=4&channels=1")
        assert remote.labels == ("0", "1")
        assert remote.details["notes"][-1].startswith("its one output is taken for the probability of the second")
        expected = softmax(scores(images / 255))[:, 0]
        assert np.exp(remote.logits(images))[:, 1] == pytest.approx(expected, rel=1e-5)

    def classes(method: str, path: str, body: Any) -> tuple[int, Any]:
        best = scores(np.array(body["inputs"])).argmax(axis=1)
        return 200, {"predictions": best.tolist()}

    with stub(classes) as server:
        url = f"mlflow+http://{server.address}/invocations?size=4&channels=1"
        with pytest.raises(TargetError, match="its answers do not show which classes there are; give labels=FILE"):
            target(url)
        remote = target(f"{url}&labels={tmp_path}/three.txt")
        assert remote.top_k == 1
        assert np.array_equal(remote.logits(images).argmax(axis=1), scores(images / 255).argmax(axis=1))


def test_labels_that_do_not_exclude_each_other_are_named_by_an_option() -> None:
    images = images_of(4)
    sigmoids = lambda x: {"y": 1 / (1 + np.exp(-scores(x)))}  # noqa: E731
    with stub(open_inference(metadata("FP64", -1, 1, 4, 4), sigmoids)) as server:
        url = f"kserve://{server.address}/v2/models/m"
        with pytest.raises(TargetError, match="outputs=multilabel-probabilities"):
            target(url)
        remote = target(f"{url}?outputs=multilabel-probabilities")
        assert remote.multilabel
        assert remote.logits(images) == pytest.approx(scores(images / 255), abs=1e-4)


@pytest.mark.parametrize(
    ("described", "options", "message"),
    [
        (metadata("FP32", -1, 3, 4, 3), "", r"has the shape \[-1, 3, 4, 3\]; say what its axes are \(layout=nchw"),
        (metadata("BYTES", -1, 1), "", 'its input "x" is "BYTES"; images are sent as FP16'),
        (metadata("FP32", -1, 2, 3, 4, 5), "", "images have 2 to 4 axes"),
        (metadata("FP32", -1, 15), "size=4&channels=1", r"shape \[-1, 15\], which images of 1 channel\(s\), 4x4 pixels"),
        (metadata("FP32", -1, 1, 4, 4), "size=5", r"its input has the shape \[-1, 1, 4, 4\]"),
        (metadata("FP32", 8, 1, 4, 4), "", "takes exactly 8 images at a time"),
        (metadata("UINT8", -1, 1, 4, 4), "mean=0.5", "mean cannot be set: it is sent whole numbers"),
        (metadata("FP32", -1, 1, 4, 4), "input=z", r"has no input z; there are x \(input=\)"),
        (metadata("FP32", -1, 1, 4, 4), "layout=flat&size=4", r"do not have \(layout flat\); correct size="),
        (metadata("FP32", -1, 1, 4, 4), "layout=hw", 'layout "hw" is none of nchw, nhwc, nhw, flat'),
        (metadata("FP32", -1, 1, 4, 4), "datatype=float", 'datatype "FLOAT" is none of FP16'),
        (metadata("FP32", -1, 1, 4, 4), "crops=10", "crops cannot be set"),
        ({"inputs": [3]}, "", 'its metadata has to have "inputs", a list of objects'),
        (None, "", "the size of its images is not known; give size=224"),
        (metadata("FP32", -1, 1, 4, 4, classes=7), "", 'row 0 of "logits" has 3 numbers, but there are 7 labels'),
    ],
)
def test_metadata_and_options_that_do_not_fit_are_refused(
    described: dict[str, Any] | None, options: str, message: str
) -> None:
    with (
        stub(open_inference(described, lambda x: {"y": scores(x)})) as server,
        pytest.raises(TargetError, match=message),
    ):
        target(f"kserve://{server.address}/v2/models/m?{options}")


def metadata_of(**changed: Any) -> dict[str, Any]:
    """Of an input "x" and an output "y" of three classes; changed: x or y, updates of these, or other keys."""
    found = metadata("FP32", -1, 3, 8, 8)
    for tensors, name in (("inputs", "x"), ("outputs", "y")):
        found[tensors][0] |= changed.pop(name, {})
    return found | changed


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (metadata_of(y={"shape": [-1, 300_000_000]}), r"its output \"y\" has the shape .*; 1,048,576 classes are the most"),
        (metadata_of(y={"shape": [-1, 1 << 40, 1 << 40]}), "1,048,576 classes are the most"),
        (metadata_of(y={"shape": [-1, 10**4000]}), "a shape of whole numbers"),
        (metadata_of(x={"shape": [-1, 3, 40_000, 40_000]}), "has 4,800,000,000 values; 16,777,216 are the most"),
        (metadata_of(x={"datatype": ["FP32"]}), r"has the input .*a datatype that is a text"),
        (metadata_of(y={"datatype": {}}), r"has the output .*a datatype that is a text"),
        (metadata_of(outputs=[tensor("a" * 1000 + str(k), "FP32", -1, 3) for k in range(99)]), r"aaa\.\.\.; say which"),
    ],
)
def test_metadata_that_no_classifier_has_is_refused_before_anything_is_made_of_it(
    described: dict[str, Any], message: str
) -> None:
    with stub(open_inference(described, lambda x: {"y": scores(x)})) as server:
        with pytest.raises(TargetError, match=message):
            target(f"kserve://{server.address}/v2/models/m")
        assert {method for method, _, _ in server.asked} == {"GET"}


@pytest.mark.parametrize("parameters", [[1], "x", {"labels": 1}])
def test_parameters_of_another_form_are_left_out(parameters: Any) -> None:
    with stub(open_inference(metadata_of(parameters=parameters), lambda x: {"y": scores(x)})) as server:
        assert target(f"kserve://{server.address}/v2/models/m").labels == ("0", "1", "2")


@pytest.mark.parametrize("dims", [[-1, 1], [-1], [-1, 1, 1], [-1, -1]])
def test_an_output_of_whole_numbers_is_the_class(dims: list[int], tmp_path: Path) -> None:
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    described, images = metadata_of(y={"datatype": "INT64", "shape": dims}), images_of(4, shape=(3, 8, 8))
    shape = [4, *(abs(n) for n in dims[1:])]

    def answer(method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "GET":
            return 200, {"name": "m", **described}
        best = scores(np.array(body["inputs"][0]["data"]).reshape(4, -1)).argmax(axis=1).tolist()
        return 200, {"outputs": [{"name": "y", "shape": shape, "datatype": "INT64", "data": best}]}

    with stub(answer) as server:
        url = f"kserve://{server.address}/v2/models/m"
        with pytest.raises(TargetError, match="its answers do not show which classes there are; give labels=FILE"):
            target(url)
        remote = target(f"{url}?labels={tmp_path}/three.txt&batch=4")
        assert remote.top_k == 1
        assert np.array_equal(remote.logits(images).argmax(axis=1), scores(images / 255).argmax(axis=1))


def test_axes_of_any_length_leave_the_classes_to_the_answers() -> None:
    with stub(open_inference(metadata_of(y={"shape": [-1, -1, -1]}), lambda x: {"y": scores(x)})) as server:
        assert target(f"kserve://{server.address}/v2/models/m").labels == ("0", "1", "2")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"predictions": [1]}, 'it has to have "outputs"; this is how MLflow and TensorFlow Serving answer'),
        ({"outputs": [{"name": "a"}, {"name": "b"}]}, r"the answer has the outputs a, b; say which one .*\(output=NAME\)"),
        ({"outputs": [{"name": "a", "shape": [4, 9], "data": [1, 2]}]}, r"has the shape \[4, 9\], and \[1, 2\] in it"),
        ({"outputs": [{"name": "a", "shape": [2, 2], "data": [1, 2, 3, 4]}]}, r"has the shape \[2, 2\] for 4 images"),
    ],
)
def test_answers_that_are_wrong_say_what_they_have(answer: Any, message: str) -> None:
    def wrong(method: str, path: str, body: Any) -> tuple[int, Any]:
        return (200, answer) if method == "POST" else (200, {"name": "m", "inputs": [tensor("x", "FP32", -1, 1, 4, 4)]})

    with stub(wrong) as server, pytest.raises(TargetError, match=message):
        target(f"kserve://{server.address}/v2/models/m")


def test_a_server_without_the_model_and_servers_of_other_protocols_are_told_apart() -> None:
    with stub(open_inference(metadata("FP32", -1, 1, 4, 4), lambda x: {"y": scores(x)})) as server:
        with pytest.raises(TargetError, match=r'stub 0.1 has no such model \(HTTP 404: "Model other not found"\)$'):
            target(f"kserve://{server.address}/v2/models/other")
        with pytest.raises(TargetError, match="has to name a model, as in kserve://HOST:PORT/v2/models/NAME"):
            target(f"kserve://{server.address}/")
        with pytest.raises(TargetError, match='this is the Open Inference Protocol: name the server as "kserve://'):
            target(f"http://{server.address}/v2/models/m")
    with (
        stub(lambda method, path, body: (404, {"detail": "Not Found"})) as server,
        pytest.raises(TargetError, match=r'no server of the Open Inference Protocol is there \(HTTP 404: "Not Found"'),
    ):
        target(f"kserve://{server.address}/v2/models/m")
    own = {"format": "evofool.target", "version": 1, "labels": ["a", "b"], "shape": [1, 4, 4], "answers": "logits"}
    with (
        stub(lambda method, path, body: (200, own)) as server,
        pytest.raises(TargetError, match=r"GET gives no metadata of a model; this is evofool's own contract"),
    ):
        target(f"kserve://{server.address}/v2/models/m")


def test_no_protocol_is_advised_that_is_in_use() -> None:
    answers = {
        "own": {"probabilities": [[0.5, 0.5]]},
        "kserve": {"model_name": "m", "outputs": []},
        "mlflow": {"predictions": 1},
    }
    for used in answers:
        assert [kind for kind, answer in answers.items() if not other_protocol(answer, used)] == [used]
    assert [kind for kind, answer in answers.items() if not other_protocol(answer, "template")] == ["mlflow"]


def test_an_option_that_is_wrong_is_named_with_the_url_once() -> None:
    with stub(open_inference(metadata("FP32", -1, 1, 4, 4), lambda x: {"y": scores(x)})) as server:
        url = f"kserve://{server.address}/v2/models/m"
        for options, message in (("layout=x", 'layout "x" is none of'), ("size=9", "its input has the shape")):
            with pytest.raises(TargetError, match=f"^{url}: {message}"):
                target(f"{url}?{options}")


def test_names_that_are_whole_numbers_are_in_their_order() -> None:
    assert labels_of([{"10": 0.5, "9": 0.25, "1": 0.25}]) == ["1", "9", "10"]
    assert labels_of([{"10": 0.5, "9": 0.25, "b": 0.25}]) == ["10", "9", "b"]


@pytest.mark.parametrize("scheme", ["http", "https", "kserve", "kserves", "mlflow+http", "mlflow+https"])
def test_every_server_is_a_black_box_that_needs_trust_and_refuses_workers(scheme: str, tmp_path: Path) -> None:
    spec = f"{scheme}://me:word@host/v2/models/m?key=abc&timeout=9&labels=/home/me/l.txt"
    assert is_black_box(spec)
    assert needs_trust(spec)
    assert public_name(spec) == f"{scheme}://host/v2/models/m?key=...&timeout=9&labels=l.txt"
    shown = re.escape(f"{scheme}://host/v2/models/m?key=...&timeout=9&labels=/home/me/l.txt")
    with pytest.raises(TargetError, match=f"^{shown}: a black box is queried by one process"):
        refuse_black_box(spec)
    with pytest.raises(TargetError, match=f": its target is {shown}, a server to query, and a run may come from anyone"):
        stored_target(spec, tmp_path, trust=False)


def test_a_run_goes_on_from_its_record_when_the_limit_is_reached(tmp_path: Path) -> None:
    images = images_of(5)
    with stub(open_inference(None, lambda x: {"y": scores(x)})) as server:
        url = f"kserve://{server.address}/v2/models/m?size=4&channels=1&max_requests="
        first = target(f"{url}3", tmp_path)
        found = first.logits(images)
        assert len(server.asked) == first.requests == 3, "metadata, one probe of which the classes are learnt, the images"
        again = target(f"{url}3", tmp_path)
        assert again.labels == first.labels
        assert np.array_equal(again.logits(images), found)
        assert len(server.asked) == 3


# --- MLflow


@pytest.mark.parametrize("form", ["rows", "columns"])
def test_mlflow_models_are_asked_by_its_scoring_protocol(form: str) -> None:
    def answer(method: str, path: str, body: Any) -> tuple[int, Any]:
        assert (method, path, body.keys()) == ("POST", "/invocations", {"inputs"})
        p = softmax(scores(np.array(body["inputs"]))).tolist()
        return 200, {"predictions": p if form == "rows" else [{"a": x, "b": y, "c": z} for x, y, z in p]}

    images = images_of(5, shape=COLOUR)
    with stub(answer) as server:
        remote = target(f"mlflow+http://{server.address}/invocations?size=4x5&layout=nhwc&scale=1/128")
        assert remote.labels == (("0", "1", "2") if form == "rows" else ("a", "b", "c"))
        expected = scores(images.transpose(0, 2, 3, 1) / 128)
        assert score.log_odds(remote.logits(images)) == pytest.approx(
            score.log_odds(expected.astype(np.float32)), rel=1e-3, abs=1e-3
        )
        assert remote.queries == 9


def test_mlflow_servers_need_a_size_and_tell_their_errors() -> None:
    refusing = {"error_code": "BAD_REQUEST", "message": "Shape of input is wrong"}
    with stub(lambda method, path, body: (400, refusing)) as server:
        with pytest.raises(TargetError, match=r"does not describe itself .*, so size must be given"):
            target(f"mlflow+http://{server.address}/invocations")
        with pytest.raises(TargetError, match=r'HTTP 400: "Shape of input is wrong"$'):
            target(f"mlflow+http://{server.address}/invocations?size=4")
    with (
        stub(lambda method, path, body: (200, {"outputs": [], "model_name": "m"})) as server,
        pytest.raises(TargetError, match='it has to have "predictions", a list; this is the Open Inference Protocol'),
    ):
        target(f"mlflow+http://{server.address}/invocations?size=4")


# --- templates


def from_template(server: Any, folder: Path, request: Any, answer: str, options: str = "") -> BlackBox:
    (folder / "request.json").write_text(json.dumps(request))
    return cast(
        BlackBox, target(f"http://{server.address}/p?size=4x5&request={folder}/request.json&answer={answer}{options}")
    )


def _top(p: np.ndarray) -> list[dict[str, Any]]:
    return [{"label": "abc"[c], "score": float(p[c])} for c in np.argsort(-p)]


SERVICES: dict[str, tuple[Any, str, Any]] = {
    "tensorflow serving, numbers": (
        {"instances": "{images.hwc}"},
        "predictions",
        lambda body: {"predictions": softmax(scores(np.array(body["instances"]))).tolist()},
    ),
    "tensorflow serving, files": (
        {"signature_name": "s", "instances": {"{each}": {"image_bytes": {"b64": "{image.png}"}}}},
        "predictions",
        lambda body: {
            "predictions": softmax(
                scores(np.stack([picture(each["image_bytes"]["b64"]) for each in body["instances"]]) / 255)
            ).tolist()
        },
    ),
    "torchserve with a JSON envelope": (
        {"instances": {"{each}": {"data": "{image.png}"}}},
        "predictions",
        lambda body: {
            "predictions": [
                {each["label"]: each["score"] for each in _top(softmax(scores(picture(x["data"])[None] / 255))[0])}
                for x in body["instances"]
            ]
        },
    ),
    "hugging face": (
        {"inputs": "{image.png}", "parameters": {"top_k": 3}},
        ".",
        lambda body: _top(softmax(scores(picture(body["inputs"])[None] / 255))[0]),
    ),
    "a data URL": (
        {"model": "m", "image": {"url": "data:image/png;base64,{image.png}"}},
        "choices.0.scores.*.value",
        lambda body: {
            "choices": [
                {
                    "scores": [
                        {"value": v}
                        for v in softmax(scores(picture(body["image"]["url"].partition(",")[2])[None] / 255))[0].tolist()
                    ]
                }
            ]
        },
    ),
}


@pytest.mark.parametrize("service", SERVICES)
def test_services_with_json_of_their_own_are_asked_by_a_template(service: str, tmp_path: Path) -> None:
    request, path, reply = SERVICES[service]
    images = images_of(5, shape=COLOUR)
    with stub(lambda method, path, body: (200, reply(body))) as server:
        remote = from_template(server, tmp_path, request, path)
        assert len(remote.labels) == 3
        expected = score.log_odds(scores(images.transpose(0, 2, 3, 1) / 255).astype(np.float32))
        assert score.log_odds(remote.logits(images)) == pytest.approx(expected, abs=1e-3)
        assert {method for method, _, _ in server.asked} == {"POST"}
        single = "each" not in json.dumps(request) and "images." not in json.dumps(request)
        assert len(server.asked) == (9 if single else 2)
        assert remote.requests == len(server.asked)


def test_a_jpeg_is_sent_where_the_template_says_so_and_the_template_is_part_of_the_target(tmp_path: Path) -> None:
    seen: list[str] = []

    def answer(method: str, path: str, body: Any) -> tuple[int, Any]:
        seen.append(body["x"])
        return 200, {"p": [float(picture(body["x"]).mean() / 255)]}

    with stub(answer) as server:
        remote = from_template(server, tmp_path, {"x": "{image.jpeg}"}, "p.0", "&channels=1")
        assert seen[0].startswith("/9j/"), "a JPEG's first bytes"
        assert np.exp(remote.logits(np.full((1, 1, 4, 5), 255, np.uint8)))[0, 1] == pytest.approx(1)
        other = from_template(server, tmp_path, {"x": "{image.png}"}, "p.0", "&channels=1")
        assert other.fingerprint() != remote.fingerprint()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"x": "images"}, 'has no place for images, such as "{images.png}"'),
        (
            {"x": "{images.gif}"},
            r"has \{images.gif\}; placeholders are \{images.FORM\}, \{image.FORM\} and",
        ),
        ({"x": "{ image.png }"}, "placeholders are"),
        ({"x": "a {image.hwc}"}, "numbers need a text of their own"),
        ({"x": "{image.png}", "y": "{images.png}"}, "has one image in one place and all in another"),
        ({"x": "{image.png}", "y": "{image.jpeg}"}, "has the images in several forms"),
        ({"{each}": "{image.png}", "y": 1}, r"has \{each\}"),
        ({"{each}": "{images.png}"}, "where one image belongs"),
    ],
)
def test_a_file_that_is_no_template_is_refused(request_: Any, message: str, tmp_path: Path) -> None:
    with stub(lambda method, path, body: (200, {})) as server:
        with pytest.raises(TargetError, match=message):
            from_template(server, tmp_path, request_, "a")
        assert server.asked == []


def test_what_is_missing_for_a_template_is_named(tmp_path: Path) -> None:
    with stub(lambda method, path, body: (200, {"outputs": {"p": [0.5, 0.5]}})) as server:
        url = f"http://{server.address}/p?size=4"
        for options, message in (
            ("&answer=a", "answer= is given without request="),
            (f"&request={tmp_path}/none.json", "request= is given without answer="),
            (f"&request={tmp_path}/none.json&answer=a", "none.json cannot be read"),
        ):
            with pytest.raises(TargetError, match=message):
                target(url + options)
        (tmp_path / "bent.json").write_text("{")
        with pytest.raises(TargetError, match=r"bent\.json is not JSON"):
            target(f"{url}&request={tmp_path}/bent.json&answer=a")
        for answer, message in (
            ("outputs.q", r'answer=outputs.q finds nothing at "q": there are "p"$'),
            ("outputs.p.7", r'answer=outputs.p.7 finds nothing at "7": there is \[0.5, 0.5\]$'),
            ("outputs.*", r'finds nothing at "\*"'),
            ("outputs.p", "finds .* for 4 images; it has to be a list with an entry for each"),
        ):
            with pytest.raises(TargetError, match=message):
                from_template(server, tmp_path, {"x": "{images.png}"}, answer)
        for options, message in (("&mean=0.5", "mean cannot be set"), ("&datatype=FP32", "datatype cannot be set")):
            with pytest.raises(TargetError, match=message):
                from_template(server, tmp_path, {"x": "{images.png}"}, "outputs.p", options)


def test_paths_find_names_items_and_every_item() -> None:
    answer = {"a": [{"b": 1}, {"b": 2}], "c": {"0": "x"}}
    assert found_at(answer, ".") == answer
    assert found_at(answer, "a.*.b") == [1, 2]
    assert found_at(answer, "a.1.b") == 2
    assert found_at(answer, "c.0") == "x"
