"""What a benchmark and a gate say of one digit network behind defences that look strong: flags, scores and exit statuses.

    python -m tests.perf.defences OUT     # about 10 minutes on a quiet core: the table of docs/measured.md
    evofool bench --target 'python:tests.perf.defences:hash_noise' --images digits

The network, and those whose gradients are masked, are those of tests.perf.masked_gradients.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from typer.testing import CliRunner

from evofool.cli.app import app
from evofool.targets import Target
from tests.perf import masked_gradients
from tests.perf.masked_gradients import Masked, detached, fifth_power, plain, rounded, temperature, threshold

NOISE = 0.5
"""The standard deviation of added noise, in units of logits."""
ANSWERS, VIEWS = 16, 16
SPECS = {
    **dict.fromkeys(("plain", "threshold", "detached", "rounded", "temperature", "fifth_power"), 1),
    "hash_noise": 1,
    "one_hot": 1,
    f"one_hot?views={VIEWS}": VIEWS,
    "random_noise": 1,
    f"random_noise?average={ANSWERS}": ANSWERS,
}
"""By the part of the spec after the module, how many queries an image takes."""
BUDGETS = (100, 400)  # images
SHOWN = ("gradients masked", "answers change abruptly", "only the top class", "exactly its margin", "are random", "twice")

__all__ = [
    "detached",
    "fifth_power",
    "hash_noise",
    "one_hot",
    "plain",
    "random_noise",
    "rounded",
    "temperature",
    "threshold",
]


class HashNoise(nn.Module):
    """Logits plus noise that is seeded by the bytes of the image. It passes gradients on."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Masked()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = self.network(x)
        seen = (255 * x.detach()).round().to(torch.uint8).numpy()
        seeds = [int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "little") for image in seen]
        draws = [np.random.default_rng(seed).normal(0, NOISE, z.shape[1]) for seed in seeds]
        return z + torch.from_numpy(np.stack(draws).astype(np.float32))


def hash_noise() -> Target:
    return _target("hash_noise", HashNoise())


def random_noise() -> Target:
    return _target("random_noise", Masked(after=lambda z: z + NOISE * torch.randn_like(z)))


def one_hot() -> Target:
    return _target("one_hot", Masked(after=lambda z: nn.functional.one_hot(z.argmax(1), z.shape[1]).float()))


def _target(name: str, network: nn.Module) -> Target:
    return masked_gradients._target(name, network)


def main(out: Path) -> None:
    """Measure each by `evofool bench`, then by `evofool gate`; print what each gives.

    The earlier result of the gate is that of plain; of views, which are compared with views alone, their own.
    """
    results: dict[str, Path] = {}
    for spec, per_image in SPECS.items():
        folder = out / "bench" / spec.replace("?", "-")
        budgets = ",".join(str(budget * per_image) for budget in BUDGETS)
        asked = ["--images", "digits", "--arms", "cppn,apgd", "--budget", budgets, "--seeds", "3", "--workers", "0"]
        code, lines = _run("bench", "--target", _spec(spec), *asked, "--out", str(folder))
        results.update((spec, path) for path in (folder / "results").glob("*.json"))
        rows = _rows(json.loads(results[spec].read_text())) if spec in results else [lines]
        print(f"{spec}: bench exits with {code}", *rows, sep="\n  ", flush=True)
    for spec in SPECS:
        folder = out / "gate" / spec.replace("?", "-")
        earlier = results[spec if "views" in spec else "plain"]
        code, lines = _run("gate", _spec(spec), "--against", str(earlier), "--out", str(folder))
        shown = [line for line in lines.splitlines() if line.startswith(("PASS", "FAIL", "INVALID", "INFO"))]
        print(f"{spec}: gate exits with {code}", *shown, sep="\n  ", flush=True)


def _spec(spec: str) -> str:
    return f"python:tests.perf.defences:{spec}"


def _rows(result: dict[str, Any]) -> list[str]:
    """The flags that matter, and a line for each arm and acceptance score."""
    found = [flag["message"] for flag in result["flags"] if any(text in flag["message"] for text in SHOWN)]
    for arm, row in result["scores"]["arms"].items():
        for score, figures in (row.get("by_score") or {"margin": row}).items():
            q50, share = figures.get("q50") or {}, figures.get("r95")
            at = share[-1] if isinstance(share, list) else share or {}
            limits = [
                f"{key} {values.get('value')} [{values.get('low')}, {values.get('high')}]"
                for key, values in (("fooled", at), ("Q50", q50))
            ]
            found.append(f"{arm} {row.get('gradients', '')} {score}: {'; '.join(limits)}")
    return found


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


if __name__ == "__main__":
    main(Path(sys.argv[1]))
