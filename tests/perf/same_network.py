"""One network by four ways in: torch, ONNX, python: and HTTP. Are its answers, and the elites, the same?

    python -m tests.perf.same_network --target efficientnet-lite0 --evaluations 2000

Prints, beside torch: the largest difference of log-odds on 64 images (half of them drawn by CPPNs, half noise), and, after a
search ranked in float32 with the same seed, the share of cells that are held by the same birth. Needs onnxscript.
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from evofool.recipe import load
from evofool.run.run import Run
from evofool.scores import log_odds
from evofool.targets import Target
from evofool.targets import target as load_target
from evofool.targets.remote.serve import serving
from genomes import Key

_FACTORY = """
from evofool import target

def network():
    loaded = target({spec!r})
    module = loaded.network.module
    module.shape, module.labels = loaded.shape, loaded.labels
    return module
"""


def fed(target: Target) -> str:
    """A target's preprocessing as options of a spec."""
    p = target.details["preprocessing"]
    numbers = {name: ",".join(map(repr, p[name])) for name in ("mean", "std")}
    return f"scale={p['scale']!r}&mean={numbers['mean']}&std={numbers['std']}&order={p['order']}"


def export(target: Target, path: Path) -> None:
    assert target.network is not None
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            target.network.module,
            (torch.zeros(2, *target.shape),),
            str(path),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="efficientnet-lite0")
    parser.add_argument("--recipe", default="imagenet-cppn")
    parser.add_argument("--evaluations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    own = load_target(args.target)
    recipe = load(
        args.recipe,
        [
            "compute.format=float32",
            f"stop.evaluations={args.evaluations}",
            f"search.seed={args.seed}",
            f"target={args.target}",
        ],
    )
    encoding = recipe.encoding.build(own.shape)
    drawn = encoding.render(encoding.random(32, Key(7, 0)))
    images = np.concatenate([drawn, np.random.default_rng(7).integers(0, 256, (32, *own.shape), np.uint8)])
    expected = log_odds(own.logits(images))

    def found(target: Target, folder: Path) -> np.ndarray:
        with Run.start(recipe, folder, target) as run:
            run.advance()
            return run.archive.birth.copy()

    with tempfile.TemporaryDirectory() as name, serving(load_target(args.target)) as url:
        folder = Path(name)
        export(own, folder / "network.onnx")
        (folder / "people_s_own.py").write_text(_FACTORY.format(spec=args.target))
        sys.path.insert(0, name)
        ways: dict[str, Callable[[], Target]] = {
            "onnx": lambda: load_target(f"onnx:{folder / 'network.onnx'}?size={own.shape[1]}x{own.shape[2]}&{fed(own)}"),
            "python": lambda: load_target(f"python:people_s_own:network?{fed(own)}"),
            "http": lambda: load_target(url),
        }
        births = found(own, folder / "torch")
        print(f"{args.target}, {args.evaluations} evaluations, seed {args.seed}")
        print(f"{'':<8}{'largest difference of log-odds':>32}{'cells held by the same birth':>32}")
        for way, build in ways.items():
            target = build()
            apart = np.abs(log_odds(target.logits(images)) - expected).max()
            same = (found(target, folder / way) == births).mean()
            print(f"{way:<8}{apart:>32.2g}{same:>32.2%}", flush=True)


if __name__ == "__main__":
    main()
