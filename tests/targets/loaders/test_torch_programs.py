"""TorchScript programs and programs of torch.export: the bundled digit network from a file, its gradients and its layers."""

import copy
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from evofool.ascend.hooks import layer_names
from evofool.errors import TargetError
from evofool.explain.layers import last_layer, layer_rows
from evofool.explain.nearest import Features
from evofool.explain.options import ExplanationOptions, checked_parts
from evofool.targets import Target, needs_trust, stored_target, target

DYNAMIC = ({0: torch.export.Dim.DYNAMIC},)


@pytest.fixture(scope="module")
def lenet() -> Target:
    return target("lenet")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, lenet: Target) -> Path:
    """The bundled network in a file of each kind."""
    folder = tmp_path_factory.mktemp("programs")
    assert lenet.network is not None
    network = copy.deepcopy(lenet.network.module).requires_grad_(False).eval()
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
        script = torch.jit.script(network)
        script.save(str(folder / "script.pt"))
        torch.jit.freeze(script).save(str(folder / "frozen.pt"))
        torch.jit.trace(network, torch.zeros(1, 1, 28, 28)).save(str(folder / "trace.pt"))
        for name, batch, shapes in (("free", 2, DYNAMIC), ("one", 1, None), ("three", 3, None)):
            torch.export.save(export(network, torch.zeros(batch, 1, 28, 28), shapes), folder / f"{name}.pt2")
        rows = nn.Sequential(nn.Unflatten(1, (1, 28, 28)), network)
        torch.export.save(export(rows, torch.zeros(2, 784), DYNAMIC), folder / "rows.pt2")
    torch.save(network.state_dict(), folder / "state.pt")
    (folder / "text.pt").write_text("hello")
    return folder


def export(network: nn.Module, example: torch.Tensor, shapes: object) -> torch.export.ExportedProgram:
    return torch.export.export(network, (example,), dynamic_shapes=shapes)  # type: ignore[arg-type]


def images(count: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 1, 28, 28), np.uint8)


SPECS = (
    "torchscript:{}/script.pt?size=28",
    "torchscript:{}/trace.pt?size=28",
    "torchscript:{}/frozen.pt?size=28&channels=1",
    *(f"export:{{}}/{name}.pt2" for name in ("free", "one", "three", "rows")),
)


@pytest.mark.parametrize("spec", SPECS)
def test_a_program_answers_and_has_gradients_as_its_network(files: Path, lenet: Target, spec: str) -> None:
    found = target(spec.format(files))
    assert (found.shape, found.outputs, found.labels) == (lenet.shape, "logits", lenet.labels)
    for count in (1, 2, 7):
        assert found.logits(images(count)) == pytest.approx(lenet.logits(images(count)), abs=1e-4)
    gradients = []
    for each in (found, lenet):
        x = (torch.from_numpy(images(2)) / 255).requires_grad_()
        each.logits_float(x).square().sum().backward()
        assert x.grad is not None
        gradients.append(x.grad)
    assert float((gradients[0] - gradients[1]).abs().max()) < 1e-3 * float(gradients[1].abs().max())


def test_options_set_how_a_program_is_fed(files: Path, lenet: Target) -> None:
    for spec in (f"torchscript:{files}/script.pt?size=28&", f"export:{files}/free.pt2?"):
        found = target(f"{spec}mean=0.5&std=0.25&invert=yes")
        assert found.logits(images()) == pytest.approx(
            target("lenet?mean=0.5&std=0.25&invert=yes").logits(images()), abs=1e-3
        )
        assert found.refed is not None


def test_layers_of_an_exported_program_have_the_names_of_the_network(files: Path, lenet: Target) -> None:
    found = target(f"export:{files}/free.pt2")
    assert [(name, shape) for name, _, shape in layer_rows(found)] == [(name, shape) for name, _, shape in layer_rows(lenet)]
    with torch.no_grad():
        maps = [each.activations(torch.from_numpy(images(3)) / 255, "conv2").numpy() for each in (found, lenet)]
    assert maps[0] == pytest.approx(maps[1], abs=1e-4)


def test_layers_of_an_exported_program_are_torchs_own_so_batch_norms_can_be_folded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding="same", dilation=2, groups=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4, bias=False),
    )
    network[1].running_mean.uniform_(-1, 1)
    network[1].running_var.uniform_(0.5, 2)
    network.eval()
    with warnings.catch_warnings(action="ignore"):
        torch.export.save(export(network, torch.zeros(2, 3, 64, 64), DYNAMIC), tmp_path / "n.pt2")
    found = target(f"export:{tmp_path}/n.pt2")
    kinds = {name: kind for name, kind, _ in layer_rows(found)}
    assert {name: kinds[name] for name in "0136"} == {name: type(network[int(name)]).__name__ for name in "0136"}
    assert last_layer(found) == "6"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels) / 255).numpy()
    assert found.logits(pixels) == pytest.approx(expected, abs=1e-5)
    assert found.logits(pixels, number_format="float32-folded") == pytest.approx(expected, abs=1e-4)
    assert found.network is not None
    folded, fused = found.network.gradient_module(found.shape)
    assert fused == {"0"}
    assert isinstance(folded.get_submodule("1"), nn.Identity)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("torchscript:{}/script.pt?size=28", r"run inside a TorchScript program; torch.export keeps them \(export:FILE\)"),
        ("export:{}/three.pt2", r"exported for a batch of 3 alone; export it with dynamic_shapes=\(\{0: Dim.DYNAMIC\},\)"),
    ],
)
def test_layers_that_cannot_be_read_are_not_listed_and_an_error_says_why(files: Path, spec: str, reason: str) -> None:
    found = target(spec.format(files))
    assert layer_names(found) == []
    assert "inversion" not in checked_parts(found, 3, ExplanationOptions())
    assert "saliency" in checked_parts(found, 3, ExplanationOptions())
    for use in (lambda: layer_rows(found), lambda: Features(found), lambda: Features(found, "fc1")):
        with pytest.raises(TargetError, match=f"its layers cannot be read: .*{reason}"):
            use()


@pytest.mark.parametrize(("spec", "file"), [("torchscript:{}?size=28", "script.pt"), ("export:{}", "free.pt2")])
def test_a_program_is_identified_by_its_file(files: Path, tmp_path: Path, spec: str, file: str) -> None:
    found, copied = target(spec.format(files / file)), target(spec.format(shutil.copy(files / file, tmp_path)))
    assert found.fingerprint() == copied.fingerprint()
    assert len(found.details["file_sha256"]) == 64
    wrong = "0" * 64
    with pytest.raises(TargetError, match=f"has SHA-256 {found.details['file_sha256']}, not {wrong}"):
        target(f"{spec.format(files / file)}{'&' if '?' in spec else '?'}sha256={wrong}")


def test_frozen_programs_with_other_weights_have_other_fingerprints(files: Path, tmp_path: Path) -> None:
    """Their weights are constants, and their state dict is empty."""
    with warnings.catch_warnings(action="ignore"):
        for k in range(2):
            torch.manual_seed(k)
            frozen = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()))
            frozen.save(str(tmp_path / f"{k}.pt"))
    first, second = (target(f"torchscript:{tmp_path}/{k}.pt?size=4") for k in range(2))
    assert first.shape == (3, 4, 4)
    assert first.fingerprint() != second.fingerprint()


def test_loading_a_torchscript_program_runs_its_code_so_a_stored_run_needs_trust(tmp_path: Path) -> None:
    written = tmp_path / "written.pt"

    class Writer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(10, 784))
            self.path = str(written)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) @ self.weight.t()

        @torch.jit.export  # type: ignore[untyped-decorator]
        def __getstate__(self) -> tuple[torch.Tensor, str, bool]:
            return (self.weight, self.path, self.training)

        @torch.jit.export  # type: ignore[untyped-decorator]
        def __setstate__(self, state: tuple[torch.Tensor, str, bool]) -> None:
            torch.save(state[0], state[1])
            self.weight, self.path, self.training = state[0], state[1], state[2]

    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(Writer()).save(str(tmp_path / "n.pt"))
    spec = f"torchscript:{tmp_path}/n.pt?size=28&channels=1"
    with pytest.raises(TargetError, match=r"a file whose loading can run code, and a run may .* --trust"):
        stored_target(spec, tmp_path, trust=False)
    assert not written.exists()
    stored_target(spec, tmp_path, trust=True)
    assert written.exists()


def test_exported_programs_need_trust(files: Path) -> None:
    assert needs_trust(f"export:{files}/free.pt2")
    with pytest.raises(TargetError, match="a file whose loading can run code"):
        stored_target(f"export:{files}/free.pt2", files, trust=False)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20_000])


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200:4_000] = bytes(3_800)
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncated, damaged])
@pytest.mark.parametrize(("spec", "file"), [("torchscript:{}?size=28", "script.pt"), ("export:{}", "free.pt2")])
def test_a_damaged_file_is_one_sentence(
    files: Path, tmp_path: Path, spec: str, file: str, damage: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(files / file, tmp_path)
    damage(tmp_path / file)
    with pytest.raises(TargetError, match=r"is not a complete|cannot be loaded by torch|does not take images|another"):
        target(spec.format(tmp_path / file))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("torchscript:", "torchscript: has no file; write torchscript:FILE"),
        ("export:", "export: has no file; write export:FILE"),
        ("torchscript:{}/script.pt", "the size of its images is not known; give size=224"),
        ("torchscript:{}/script.pt?size=28&channels=3", r"does not take images of shape \(3, 28, 28\)"),
        ("torchscript:{}/text.pt", "text.pt is not a complete TorchScript file"),
        ("torchscript:{}/no.pt?size=28", "there is no TorchScript file .*no.pt"),
        ("export:{}/free.pt2?size=32", "its images cannot be 32x32"),
        ("export:{}/free.pt2?channels=1", 'no option "channels"'),
        ("torchscript:{}/free.pt2?size=28", "is a program of torch.export, not a TorchScript program; export:FILE reads it"),
        ("export:{}/script.pt", "is a TorchScript program, not a program of torch.export; torchscript:FILE reads it"),
        ("export:{}/state.pt", "is a checkpoint of torch.save, not a program of torch.export; a state dict is for weights="),
        ("torchscript:{}/state.pt?size=28", "is a checkpoint of torch.save, not a TorchScript program"),
    ],
)
def test_invalid_specs_and_files(files: Path, spec: str, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        target(spec.format(files))


def test_a_program_for_one_image_may_return_a_tuple_or_a_mapping(files: Path, tmp_path: Path, lenet: Target) -> None:
    class Form(nn.Module):
        def __init__(self, mapping: bool) -> None:
            super().__init__()
            assert lenet.network is not None
            self.network, self.mapping = copy.deepcopy(lenet.network.module).requires_grad_(False), mapping

        def forward(self, x: torch.Tensor) -> object:
            z = self.network(x)
            return {"logits": z, "loss": z.sum()} if self.mapping else (z, x)

    for mapping in (False, True):
        with warnings.catch_warnings(action="ignore"):
            torch.export.save(export(Form(mapping).eval(), torch.zeros(1, 1, 28, 28), None), tmp_path / f"{mapping}.pt2")
        found = target(f"export:{tmp_path}/{mapping}.pt2")
        assert found.logits(images(3)) == pytest.approx(lenet.logits(images(3)), abs=1e-4)


def test_a_program_that_takes_something_else_says_what_it_takes(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return (x + y).flatten(1)

    x = torch.zeros(2, 1, 4, 4)
    with warnings.catch_warnings(action="ignore"):
        torch.export.save(torch.export.export(Two(), (x, x)), tmp_path / "two.pt2")
        torch.export.save(torch.export.export(nn.Flatten(), (x.half(),)), tmp_path / "half.pt2")
    for name in ("two", "half"):
        with pytest.raises(
            TargetError, match=r"takes .*\['2', '1', '4', '4'\]; it has to take one tensor, images in float32"
        ):
            target(f"export:{tmp_path}/{name}.pt2")
