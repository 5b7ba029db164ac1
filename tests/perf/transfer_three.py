"""Transfer between EfficientNet-Lite0, -Lite1 and SqueezeNet, each at its own threshold.

    python -m tests.perf.transfer_three runs/transfer --images imagenet_samples --squeezenet squeezenet1_0.safetensors

Evolves an archive on each (imagenet-cppn, by margin) for every seed and gives them all to `evofool transfer`, with labelled
real images of the 1000 classes. A quarter of an hour an archive on two cores; what is there is not done again, and a
search that was broken off goes on. From three seeds on the limits are over runs. Writes transfer.json and transfer.svg
into the folder.
"""

import argparse
from pathlib import Path

from evofool.cli.transfer import transfer
from evofool.recipe import load
from evofool.run.run import Run

SQUEEZENET = "torchvision:squeezenet1_0?weights={}&size=227&resize=256&scale=1&mean=123,117,104&std=1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", required=True, help="labelled photographs of the 1000 classes")
    parser.add_argument("--squeezenet", type=Path, required=True, help="SqueezeNet 1.0's weights, trained by Caffe")
    parser.add_argument("--evaluations", type=int, default=30_000, help="of each archive")
    parser.add_argument("--seeds", type=int, default=1, help="archives on each target")
    parser.add_argument("--streams", type=int, default=1, help="chunks classified at once; they change no bit")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    targets = {"lite0": "efficientnet-lite0", "lite1": "efficientnet-lite1"}
    targets["squeezenet"] = SQUEEZENET.format(args.squeezenet.absolute())
    runs = []
    for seed in range(args.seeds):
        for name, spec in targets.items():
            changes = [f"target={spec}", "search.rank=margin", f"search.seed={seed}", f"stop.evaluations={args.evaluations}"]
            runs.append(evolved(args.folder / f"{name}-{seed}", [*changes, f"compute.streams={args.streams}"]))
    outputs = {"json": args.folder / "transfer.json", "plot": args.folder / "transfer.svg"}
    transfer(runs, images=args.images, top=10, **outputs)


def evolved(folder: Path, changes: list[str]) -> Path:
    recipe = load("imagenet-cppn", changes)
    with Run.resume(folder, recipe) if (folder / "run.db").exists() else Run.start(recipe, folder) as run:
        run.advance()
        print(f"{folder.name}: {run.strategy.evaluations:,} evaluations", flush=True)
    return folder


if __name__ == "__main__":
    main()
