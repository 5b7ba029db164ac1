"""Which mistakes in the use of a classifier `targets check --images` finds: a table of mistakes and kinds of target.

Run it from the repository:

    python -m tests.perf.wiring_mistakes                        # a digit network: torch, ONNX, a callable, HTTP
    python -m tests.perf.wiring_mistakes --photographs DIR --target efficientnet-lite0 --images 200

Each target is wired wrongly on purpose and checked. "mended": the fault proposes a spec whose top-1 is within a point of
that of the right one; "caught": a fault without such a spec; "missed": none. "nothing to find": the mistake lowers top-1 by
less than a point. The last row is wired rightly: there a fault is a false alarm.
"""

import argparse
import contextlib
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from evofool.errors import EvofoolError
from evofool.export.image_file import file_name
from evofool.targets import Target, target
from evofool.targets.digits import held_out
from evofool.targets.photos import find_photographs
from evofool.targets.remote.serve import serving
from evofool.targets.validation import check

GREY = {
    "pixels on 0 to 255": "scale=1",
    "pixels on -1 to 1": "mean=0.5&std=0.5",
    "MNIST's mean": "mean=0.1307&std=0.3081",
    "pixels on 0 to 255, mean 10": "scale=1&mean=10",
    "mean 0.3": "mean=0.3",
    "negatives": "invert=yes",
    "rows and columns swapped": "transpose=yes",
    "negatives on -1 to 1": "invert=yes&mean=0.5&std=0.5",
}
COLOUR = {
    "pixels on 0 to 1": "scale=1/255&mean=0&std=1",
    "pixels on 0 to 255": "scale=1&mean=0&std=1",
    "ImageNet's mean and deviation": "scale=1/255&mean=0.485,0.456,0.406&std=0.229,0.224,0.225",
    "Caffe's mean": "scale=1&mean=123,117,104&std=1",
    "BGR": "order=BGR",
    "BGR on 0 to 1": "order=BGR&scale=1/255&mean=0&std=1",
    "squeezed photographs": "resize=squeeze",
    "negatives": "invert=yes",
    "rows and columns swapped": "transpose=yes",
}
SHIFTS = {"classes off by one": 1, "classes off by one, the other way": -1}

FACTORY = """
import numpy as np, torch
from pathlib import Path

class Shifted(torch.nn.Module):
    shape, labels = {shape}, {labels}
    def __init__(self, by):
        super().__init__()
        from evofool.targets import target
        self.network, self.by = target({spec!r}).network.module, by
    def forward(self, x):
        return self.network(x).roll(self.by, 1)

def torch_0(): return Shifted(0)
def torch_1(): return Shifted(1)
def torch_9(): return Shifted(-1)

def _floats(by):
    network = Shifted(by).eval()
    def call(x):
        with torch.no_grad():
            return network(torch.from_numpy(np.asarray(x, np.float32))).numpy()
    call.shape, call.labels = Shifted.shape, Shifted.labels
    return call

def callable_0(): return _floats(0)
def callable_1(): return _floats(1)
def callable_9(): return _floats(-1)
"""


def specs(kind: str, base: str, folder: Path) -> dict[int, str]:
    """By shift of the classes, the spec of a network as a kind of target, without options."""
    names = {0: "0", 1: "1", -1: "9"}
    if kind != "onnx":
        return {by: f"python:wired:{kind}_{name}" for by, name in names.items()}
    found = {}
    for by, name in names.items():
        made = target(f"python:wired:torch_{name}")
        assert made.network is not None
        path = folder / f"net{name}.onnx"
        with warnings.catch_warnings(action="ignore"):
            example = torch.zeros(1, *made.shape)
            axes = {"x": {0: "n"}}
            torch.onnx.export(made.network.module, (example,), str(path), dynamo=False, dynamic_axes=axes, input_names=["x"])
        labels = folder / "labels.txt"
        labels.write_text("\n".join(made.labels))
        found[by] = f"onnx:{path}?labels={labels}"
    return found


def with_options(spec: str, options: str) -> str:
    return f"{spec}{'&' if '?' in spec else '?'}{options}" if options else spec


def top1(made: Target, images: Path) -> float:
    accuracy = check(made, images, speed=False).accuracy
    return accuracy.top1 if accuracy else 0.0


def outcome(spec: str, images: Path, right: float) -> str:
    report = check(target(spec), images, speed=False)
    assert report.accuracy is not None
    before = report.accuracy.top1
    fault = next((each for each in report.faults if "McNemar" in each), "")
    if not fault:
        found = "nothing to find" if before > right - 0.01 else "MISSED"
    elif 'Use "' not in fault:
        found = "told in words" if "begin the labels" in fault or "leave the first" in fault else "caught"
    else:
        proposed = fault.partition('. Use "')[2].partition('"')[0]
        try:
            found = "mended" if top1(target(proposed), images) > right - 0.01 else "caught"
        except EvofoolError as error:
            found = f"caught ({error})"
    return f"{found} ({before:.3f})"


def digit_photographs(folder: Path, count: int) -> Path:
    images, labels = held_out()
    for c in range(10):
        (folder / str(c)).mkdir(parents=True)
        for k, row in enumerate(np.flatnonzero(labels == c)[: count // 10]):
            Image.fromarray(images[row, 0]).save(folder / str(c) / f"{k}.png")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--target", default="lenet")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--kinds", nargs="+", default=["torch", "onnx", "callable", "http"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = folder / "images"
        base = target(given.target)
        if given.photographs is None:
            digit_photographs(images, given.images)
        else:
            found = find_photographs(given.photographs, base.labels)
            for k in np.linspace(0, len(found) - 1, given.images).astype(int):
                home = images / f"{found[k].class_id:04d}_{file_name(base.labels[found[k].class_id])}"
                home.mkdir(parents=True, exist_ok=True)
                (home / found[k].file.name).symlink_to(found[k].file.absolute())
        (folder / "wired.py").write_text(
            FACTORY.format(shape=base.shape, labels=tuple(base.labels), spec=given.target), encoding="utf-8"
        )
        sys.path.insert(0, str(folder))
        usual = base.details["preprocessing"]
        own = "&".join(f"{key}={_text(usual[key])}" for key in ("scale", "mean", "std", "order", "resize", "interpolation"))
        mistakes = GREY if base.shape[0] == 1 else COLOUR
        print(f"| {given.target}, {given.images} images | {' | '.join(given.kinds)} |\n|---|{'---|' * len(given.kinds)}")
        rows: dict[str, list[str]] = {name: [] for name in (*mistakes, *SHIFTS, "wired rightly")}
        for kind in given.kinds:
            with contextlib.ExitStack() as stack:
                if kind == "http":
                    by_shift = {
                        by: stack.enter_context(serving(target(with_options(spec, own))))
                        for by, spec in specs("torch", given.target, folder).items()
                    }
                else:
                    by_shift = {by: with_options(spec, own) for by, spec in specs(kind, given.target, folder).items()}
                right = top1(target(by_shift[0]), images)
                for name, options in mistakes.items():
                    if kind == "http":  # how the server feeds its network is its own
                        wrong = _changed(with_options("python:wired:torch_0", own), options)
                        served_wrong = stack.enter_context(serving(target(wrong)))
                        rows[name].append(outcome(served_wrong, images, right))
                    else:
                        rows[name].append(outcome(_changed(by_shift[0], options), images, right))
                    print(f"  {kind}, {name}: {rows[name][-1]}", file=sys.stderr, flush=True)
                for name, by in SHIFTS.items():
                    rows[name].append(outcome(by_shift[by], images, right))
                report = check(target(by_shift[0]), images, speed=False)
                alarm = "FALSE ALARM" if any("McNemar" in fault for fault in report.faults) else "no fault"
                rows["wired rightly"].append(f"{alarm} ({right:.3f})")
        for name, cells in rows.items():
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _text(value: object) -> str:
    if value is None:
        return "squeeze"
    return ",".join(map(repr, value)) if isinstance(value, (list, tuple)) else str(value)


def _changed(spec: str, options: str) -> str:
    """The spec with other values of these options."""
    head, _, query = spec.partition("?")
    pairs = dict(pair.split("=", 1) for pair in query.split("&") if pair)
    pairs |= dict(pair.split("=", 1) for pair in options.split("&"))
    return f"{head}?{'&'.join(f'{key}={value}' for key, value in pairs.items())}"


if __name__ == "__main__":
    main()
