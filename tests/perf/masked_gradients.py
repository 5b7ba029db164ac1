"""A digit network, and the same network behind layers that mask its gradients.

    python -m tests.perf.masked_gradients OUT     # about 10 minutes on a quiet core: the table of docs/measured.md
    evofool bench --target 'python:tests.perf.masked_gradients:threshold' --images digits

The network is the first undefended one of bench-digits. It is trained when it is first loaded, in under a minute on one CPU
thread, and kept in runs/masked-gradients/.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from evofool.bench.retraining.training import trained
from evofool.cli.app import app
from evofool.targets.classifier import Target
from evofool.targets.networks import LeNet
from evofool.targets.preprocessing import Preprocessing

FOLDER = Path("runs") / "masked-gradients"
TEMPERATURE = 1e-3
NAMES = (
    *("plain", "threshold", "opaque", "temperature", "exploding", "middle", "detached", "fifth_power"),
    *("detached_logits", "rounded", "cold_logits"),
)
BENCH = ["--images", "digits", "--arms", "cppn,apgd", "--budget", "200,1000", "--seeds", "3", "--workers", "0"]


class Masked(nn.Module):
    """output(network(input))."""

    def __init__(
        self,
        before: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
        after: Callable[[torch.Tensor], torch.Tensor] = lambda z: z,
    ) -> None:
        super().__init__()
        self.network = LeNet()
        self.network.load_state_dict(load_file(trained(FOLDER, "none", 0)))
        self._before, self._after = before, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._after(self.network(self._before(x)))


class Middle(nn.Module):
    """The outputs of the hidden layer are changed: neither the input nor the output is cut."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.network = LeNet()
        self.network.load_state_dict(load_file(trained(FOLDER, "none", 0)))
        self.network.fc1.register_forward_hook(lambda _module, _args, output: change(output))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)  # type: ignore[no-any-return]


def plain() -> Target:
    return _target("plain", Masked())


def threshold() -> Target:
    return _target("threshold", Masked(before=lambda x: (x > 0.5).float()))


def detached() -> Target:
    return _target("detached", Masked(before=lambda x: x.detach()))


def detached_logits() -> Target:
    return _target("detached_logits", Masked(after=lambda z: z.detach()))


def temperature() -> Target:
    """Probabilities, nearly all of which are 0 or 1 in float32."""
    return _target("temperature", Masked(after=lambda z: (z / TEMPERATURE).softmax(1)))


def cold_logits() -> Target:
    return _target("cold_logits", Masked(after=lambda z: z / TEMPERATURE))


def fifth_power() -> Target:
    return _target("fifth_power", Masked(after=lambda z: z**5))


def exploding() -> Target:
    """A ripple of at most a quarter of a grey level, whose derivative is up to 10^5 times that of the image."""
    return _target("exploding", Masked(before=lambda x: x + 1e-3 * torch.sin(1e8 * x)))


def rounded() -> Target:
    return _target("rounded", Masked(after=lambda z: (100 * z).round() / 100))


def middle() -> Target:
    return _target("middle", Middle(lambda h: (4 * h).round() / 4))


def opaque() -> Target:
    """The hidden layer passes through NumPy, which autograd does not see."""
    return _target("opaque", Middle(lambda h: torch.from_numpy(h.detach().numpy().copy())))


def _target(name: str, network: nn.Module) -> Target:
    digits = tuple(str(digit) for digit in range(10))
    return Target.from_module(network.eval(), digits, (1, 28, 28), Preprocessing(scale=1 / 255), name)


def main(out: Path) -> None:
    """Measure each network by `evofool bench`, then by `evofool gate` against the result of plain; print what each gives."""
    results: dict[str, Path] = {}
    for name in NAMES:
        code, _ = _run("bench", "--target", _spec(name), *BENCH, "--out", str(out / name))
        (results[name],) = (out / name / "results").glob("*.json")
        found = json.loads(results[name].read_text())
        print(name, "exits with", code, found.get("gradients"), *[flag["message"] for flag in found["flags"]], sep="\n  ")
        for arm, row in found["scores"]["arms"].items():
            q50, shares = row.get("q50", {}), [f"{at['value']:.2f}" for at in row.get("r95", ())]
            print(
                "   ",
                arm,
                row.get("gradients", ""),
                "Q50",
                *(q50.get(key) for key in ("value", "low", "high")),
                shares,
                flush=True,
            )
    for name in NAMES:
        code, lines = _run("gate", _spec(name), "--against", str(results["plain"]), "--out", str(out / f"gate-{name}"))
        verdicts = [
            line for line in lines.splitlines() if line.startswith(("PASS", "FAIL", "INVALID", "INFO", "Note: grad"))
        ]
        print(name, "gate exits with", code, *verdicts, sep="\n  ", flush=True)


def _spec(name: str) -> str:
    return f"python:tests.perf.masked_gradients:{name}"


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


if __name__ == "__main__":
    main(Path(sys.argv[1]))
