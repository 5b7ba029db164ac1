"""A classifier with a detector: its margins are as documented, and its file is read strictly."""

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from evofool import scores
from evofool.errors import StoreError, TargetError
from evofool.recipe import parse
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from evofool.targets import Target, needs_trust, refuse_workers, stored_target, target
from evofool.targets.guarded import DETECTORS, DetectorRule, guard, guarded, suspicion
from evofool.targets.photos import drawings
from evofool.targets.pipelines import pipelines
from evofool.targets.preprocessing import Preprocessing

SIDE, K, D, R = 12, 5, 7, 4


class Small(nn.Module):
    def __init__(self, divide: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, D, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.last, self.divide = nn.Linear(D, K), divide

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 30 * self.last(self.body(x)) / self.divide


def base(divide: float = 1.0, **options: Any) -> Target:
    return Target.from_module(Small(divide), None, (1, SIDE, SIDE), Preprocessing(mean=(0.3,)), **options)


def rule(detector: str, scale: float = 2.0, features: int = D) -> DetectorRule:
    draw = torch.Generator().manual_seed(1)
    shapes = {"middle": (features,), "project": (features, R), "means": (3, R)}
    tensors = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    tensors["precision"] = torch.diag(torch.rand(R, generator=draw) + 0.5)
    uses_features = detector == "mahalanobis"
    return DetectorRule(detector, 1.5, -0.5, scale, 0.7, "last" if uses_features else "", tensors if uses_features else {})


def images(n: int = 9, side: int = SIDE, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (n, channels, side, side), np.uint8)


def inside_slowly(r: DetectorRule, logits: np.ndarray, features: np.ndarray) -> np.ndarray:
    """How far each image is inside the threshold, image by image from the definitions."""
    out = []
    for z, f in zip(logits.astype(np.float64) / r.scale / r.temperature, features.astype(np.float64), strict=True):
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        t = {name: tensor.double().numpy() for name, tensor in r.tensors.items()}
        if r.detector == "mahalanobis":
            away = [(f - t["middle"]) @ t["project"] - mean for mean in t["means"]]
            score = min(0.5 * a @ t["precision"] @ a for a in away)
        else:
            score = {"msp": -np.log(p.max() / (1 - p.max())), "max-logit": -z.max(), "energy": -np.log(np.exp(z).sum())}[
                r.detector
            ]
        out.append((r.threshold - score) / (r.threshold - r.median))
    return np.array(out)


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_margin_of_the_highest_class_is_the_smaller_of_the_base_s_margin_and_the_distance_to_the_threshold(
    detector: str,
) -> None:
    unguarded, r = base(), rule(detector)
    assert unguarded.network is not None
    pixels = torch.from_numpy(images()).float() / 255 - 0.3
    body = unguarded.network.module.get_submodule("body")
    features = body(pixels).detach().numpy()
    z = unguarded.logits(images())
    found = guarded(unguarded, r, "g").logits(images())
    inside = inside_slowly(r, z, features)
    np.testing.assert_array_equal(found[:, :K], z / np.float32(r.scale))
    np.testing.assert_allclose(found[:, :K].max(1) - found[:, K], inside, rtol=1e-4, atol=1e-5)
    top = z.argmax(1)
    class_margin = scores.margin(z)[range(len(z)), top] / r.scale
    np.testing.assert_allclose(
        scores.margin(found)[range(len(z)), top], np.minimum(class_margin, inside), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("detector", DETECTORS)
def test_dividing_the_logits_by_four_does_not_change_the_result(detector: str) -> None:
    first, second = (guarded(base(by), rule(detector, 2.3 / by), "g").logits(images()) for by in (1.0, 4.0))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("detector", DETECTORS)
def test_gradients_are_those_of_the_score(detector: str) -> None:
    r = rule(detector)
    tensors = {name: tensor.double() for name, tensor in r.tensors.items()}
    draw = torch.Generator().manual_seed(2)
    z, features = (torch.randn((6, n), generator=draw, dtype=torch.float64, requires_grad=True) for n in (K, D))
    assert torch.autograd.gradcheck(
        lambda z, f: suspicion(detector, z, f, tensors) + 0 * z.sum() + 0 * f.sum(), (z, features)
    )
    x = torch.from_numpy(images()).float().div(255).requires_grad_()
    guarded(base(), r, "g").logits_float(x)[:, K].sum().backward()
    assert x.grad is not None
    assert (x.grad.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("detector", [d for d in DETECTORS if d != "mahalanobis"])
def test_a_guarded_black_box_has_the_logits_of_the_guarded_network(detector: str) -> None:
    unguarded = base()
    box = Target.probed(
        "box", lambda x: unguarded.logits(x), None, unguarded.shape, Preprocessing(), "logits", {"source_sha256": "0"}
    )
    found = guarded(box, rule(detector), "g")
    assert not found.differentiable
    np.testing.assert_allclose(found.logits(images()), guarded(unguarded, rule(detector), "g").logits(images()), rtol=1e-6)


def test_a_network_of_probabilities_is_guarded_by_their_logarithms() -> None:
    soft = Target.from_module(nn.Sequential(Small(30.0), nn.Softmax(1)), None, (1, SIDE, SIDE), Preprocessing(mean=(0.3,)))
    assert soft.outputs == "probabilities"
    found, wanted = (guarded(t, rule("msp", 1.0), "g").logits(images()) for t in (soft, base(30.0)))
    # The softmax takes the same from all logits of an image.
    np.testing.assert_allclose(found - found[:, :1], wanted - wanted[:, :1], rtol=1e-3, atol=1e-4)


def test_concurrent_threads_do_not_mix_their_features() -> None:
    found = guarded(base(), rule("mahalanobis"), "g")
    alone = [found.logits(images(64)[k : k + 1]) for k in range(64)]
    with ThreadPoolExecutor(8) as pool:
        np.testing.assert_array_equal(list(pool.map(lambda k: found.logits(images(64)[k : k + 1]), range(64))), alone)


def test_nothing_is_hooked_on_the_base_and_its_weights_are_shared() -> None:
    unguarded = base()
    assert unguarded.network is not None
    module = unguarded.network.module
    alone = unguarded.logits(images())
    several = [guarded(unguarded, rule("mahalanobis"), "g") for _ in range(3)]
    for found in several:
        found.logits(images())
        assert found.network is not None
        copied = found.network.module
        assert [p.data_ptr() for p in copied.parameters()] == [p.data_ptr() for p in module.parameters()]
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in module.modules())
    np.testing.assert_array_equal(unguarded.logits(images()), alone)
    assert not any(found.network.module._features for found in several if found.network), "no image is kept"


def test_a_module_that_computes_its_weights_is_guarded_too() -> None:
    """Its weight is a tensor that every pass computes again and that cannot be copied."""
    with pytest.warns(FutureWarning):
        module = nn.utils.weight_norm(Small().last)
    net = Small()
    net.last = module
    unguarded = Target.from_module(net, None, (1, SIDE, SIDE), Preprocessing(mean=(0.3,)))
    found = guarded(unguarded, rule("mahalanobis"), "g")
    np.testing.assert_allclose(found.logits(images())[:, :K], unguarded.logits(images()) / 2.0, rtol=1e-6)


def test_a_module_that_cannot_be_copied_can_have_a_detector_of_logits_only() -> None:
    net = Small()
    net.lock = threading.Lock()  # type: ignore[assignment]
    unguarded = Target.from_module(net, None, (1, SIDE, SIDE), Preprocessing(mean=(0.3,)))
    assert guarded(unguarded, rule("energy"), "g").logits(images()).shape == (9, K + 1)
    with pytest.raises(TargetError, match=r"Small cannot be copied \(TypeError: .*, and mahalanobis needs a copy"):
        guarded(unguarded, rule("mahalanobis"), "g")


def test_faster_formats_include_the_detector() -> None:
    torch.manual_seed(0)
    norm = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module = nn.Sequential(norm)
    module.add_module("last", nn.Linear(16, K))
    found = guarded(Target.from_module(module, None, (3, 64, 64)), rule("mahalanobis", features=16), "g")
    reference = found.logits(images(4, 64, 3))
    for number_format in ("float32", "bfloat16"):
        np.testing.assert_allclose(
            found.logits(images(4, 64, 3), number_format=number_format), reference, atol=0.1, rtol=0.05
        )


# -- files


def lenet_rule(detector: str = "energy", **changes: Any) -> Any:
    tensors: Mapping[str, torch.Tensor] = {}
    if detector == "mahalanobis":
        tensors = dict(rule(detector, features=500).tensors)
    return SimpleNamespace(
        rule=DetectorRule(
            **{
                "detector": detector,
                "threshold": -1.0,
                "median": -3.0,
                "scale": 10.0,
                "temperature": 0.5,
                "layer": "fc2" if tensors else "",
                "tensors": tensors,
                **changes,
            }
        )
    )


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_spec_loads_the_written_guard(detector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = lenet_rule(detector)
    monkeypatch.chdir(tmp_path)
    spec = guard(target("lenet"), made, Path("g.safetensors"))
    found = target(spec)
    assert (spec, found.name) == (f"guarded:{tmp_path / 'g.safetensors'}",) * 2
    assert target("guarded:g.safetensors").name == spec, "the spec does not depend on the current folder"
    assert found.labels == (*"0123456789", "rejected")
    refuse_workers(found)
    x = images(4, 28)
    np.testing.assert_array_equal(found.logits(x), guarded(target("lenet"), made.rule, "g").logits(x))
    assert json.dumps(found.description())
    assert found.details["guard"]["threshold"] == -1.0


def test_the_fingerprint_is_that_of_the_base_and_the_detector(tmp_path: Path) -> None:
    def fingerprint(spec: str = "lenet", *args: Any, **changes: Any) -> str:
        return target(guard(target(spec), lenet_rule(*args, **changes), tmp_path / "g.safetensors")).fingerprint()

    moved = {name: tensor * 2 for name, tensor in lenet_rule("mahalanobis").rule.tensors.items()}
    prints = [
        fingerprint(),
        fingerprint("lenet?mean=0.1"),
        fingerprint("lenet", "msp"),
        fingerprint("lenet", "mahalanobis"),
        fingerprint("lenet", "mahalanobis", tensors=moved),
        fingerprint(threshold=-0.5),
        fingerprint(temperature=0.6),
    ]
    assert len({*prints, target("lenet").fingerprint()}) == len(prints) + 1
    assert fingerprint() == prints[0]


def test_a_base_that_has_changed_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    state = target("lenet").network.module.state_dict()  # type: ignore[union-attr]
    save_file(state, weights)
    spec = guard(target(f"lenet?weights={weights}"), lenet_rule(), tmp_path / "g.safetensors")
    target(spec)
    save_file({**state, "fc2.bias": state["fc2.bias"] + 1}, weights)
    with pytest.raises(TargetError, match=r"has changed since .* fit the detector again"):
        target(spec)


@pytest.mark.parametrize(
    ("meta", "tensors", "message"),
    [
        ({"format": "another"}, {}, 'not a guard that this evofool supports: its format is "another"'),
        ({"detector": "odin"}, {}, 'no detector "odin"; there are msp'),
        ({"scale": "0"}, {}, "scale and temperature above 0"),
        ({"scale": "much"}, {}, "could not convert"),
        ({"threshold": "nan"}, {}, "have to be finite"),
        ({"median": "-1.0"}, {}, "is not above the median"),
        ({"extra": "1"}, {}, "not a guard that this evofool supports"),
        ({"layer": "fc1"}, {}, "fitted to 500 features, but there are 800"),
        ({"base": "lenett"}, {}, 'lenett is not a spec .*did you mean "lenet"'),
        ({"base": "https://example.org/"}, {}, "is a server"),
        ({"base": "guarded:/somewhere"}, {}, "is guarded itself"),
        ({"layer": "fc3"}, {}, 'its base has no layer "fc3"'),
        ({}, {"means": None}, "it needs .*means"),
        ({}, {"means": torch.ones(3, R + 1)}, r"means is torch.float32 \(3, 5\); it has to be finite float32 \(C, R\)"),
        ({}, {"middle": torch.full((500,), np.nan)}, "has to be finite float32"),
        ({}, {"middle": torch.zeros(500, dtype=torch.float64)}, "middle is torch.float64"),
        ({}, {"other": torch.zeros(1)}, "has the tensors"),
    ],
)
def test_a_file_with_anything_wrong_is_refused(
    meta: dict[str, str], tensors: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    from safetensors import safe_open

    path = tmp_path / "g.safetensors"
    spec = guard(target("lenet"), lenet_rule("mahalanobis"), path)
    with safe_open(path, "pt") as file:
        written = file.metadata()
    kept = {name: tensor for name, tensor in {**load_file(path), **tensors}.items() if tensor is not None}
    save_file(kept, path, metadata={**written, **meta})
    with pytest.raises(TargetError, match=message):
        target(spec)


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04no", b"\x05\x00\x00\x00\x00\x00\x00\x00{}   "])
def test_another_file_is_refused_and_needs_no_trust(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert not needs_trust(f"guarded:{path}")
    with pytest.raises(
        TargetError, match=r"there is no guard|not a complete safetensors|not a guard that this evofool supports"
    ):
        target(f"guarded:{path}")


def test_a_guard_sees_what_a_pipeline_delivers(tmp_path: Path) -> None:
    spec = guard(target("lenet"), lenet_rule(), tmp_path / "g.safetensors")
    drawn = drawings((1, 28, 28), 3)
    (jpeg,) = pipelines("jpeg:20", "test")
    found = target(f"{spec}?through=jpeg:20")
    assert np.array_equal(found.logits(drawn), target(spec).logits(jpeg(drawn)))
    assert found.differentiable


def test_targets_that_cannot_be_guarded_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    with pytest.raises(TargetError, match="refers to its base by a spec, and mine is not a spec"):
        guard(base(name="mine"), lenet_rule(), path)
    spec = guard(target("lenet"), lenet_rule(), path)
    with pytest.raises(TargetError, match="is guarded itself"):
        guard(target(spec), lenet_rule(), tmp_path / "h.safetensors")
    with pytest.raises(TargetError, match="others belong to the base"):
        target(f"{spec}?device=cpu")
    with pytest.raises(TargetError, match=r"ends in \.safetensors"):
        guard(target("lenet"), lenet_rule(), tmp_path / "g.pt")
    with pytest.raises(StoreError, match="cannot be written"):
        guard(target("lenet"), lenet_rule(), path / "below" / "g.safetensors")
    with pytest.raises(TargetError, match="it needs neither"):
        DetectorRule("energy", 1.0, 0.0, 1.0, 1.0, layer="fc2")


def test_crops_and_features_of_a_black_box_are_refused() -> None:
    many = base()
    many.crops = 10
    with pytest.raises(TargetError, match="leave crops out"):
        guarded(many, rule("energy"), "g")
    few = base()
    few.top_k = 2
    with pytest.raises(TargetError, match="a detector needs all"):
        guarded(few, rule("energy"), "g")
    black_box = base()
    black_box.network = None
    with pytest.raises(TargetError, match="black box"):
        guarded(black_box, rule("mahalanobis"), "g")


def test_a_base_that_has_a_reject_class_keeps_its_label() -> None:
    unguarded = Target.from_module(Small(), ["a", "b", "c", "d", "rejected"], (1, SIDE, SIDE))
    assert guarded(unguarded, rule("energy"), "g").labels[-2:] == ("rejected", "rejected by energy")


def test_a_guard_needs_trust_if_its_base_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "guarded_code.py").write_text(
        "from evofool import target\n"
        "def factory():\n"
        "    made = target('lenet').network.module\n"
        "    made.shape = (1, 28, 28)\n"
        "    return made\n"
    )
    monkeypatch.chdir(tmp_path)
    bundled = guard(target("lenet"), lenet_rule(), tmp_path / "bundled.safetensors")
    user_code = guard(target("python:guarded_code:factory"), lenet_rule(), tmp_path / "user_code.safetensors")
    assert (needs_trust(bundled), needs_trust(user_code)) == (False, True)
    assert stored_target(bundled, tmp_path, trust=False).name == bundled
    with pytest.raises(TargetError, match="--trust"):
        stored_target(user_code, tmp_path, trust=False)
    assert stored_target(user_code, tmp_path, trust=True).name == user_code


def test_a_guarded_target_can_be_searched_and_verified(tmp_path: Path) -> None:
    spec = guard(target("lenet"), lenet_rule("mahalanobis"), tmp_path / "g.safetensors")
    recipe = {"target": spec, "encoding": {"kind": "cppn"}, "search": {"batch": 12, "rank": "margin"}}
    with Run.start(parse({**recipe, "stop": {"evaluations": 120}}, "test"), tmp_path / "run") as run:
        run.advance()
    with StoredRun(tmp_path / "run") as stored:
        assert {e.label for e in stored.elites()} <= {*"0123456789", "rejected"}
        assert not verify(stored).faults
