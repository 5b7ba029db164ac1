"""Which mistakes in the use of a classifier `targets check --images` finds: a table of mistakes and kinds of target.

Run it from the repository:

    python -m tests.perf.wiring_mistakes                        # a digit network: torch, ONNX, a callable, HTTP
    python -m tests.perf.wiring_mistakes --photographs DIR --target efficientnet-lite0 --images 200
    python -m tests.perf.wiring_mistakes --photographs DIR --target efficientnet-lite0 --kinds torch \\
        --mistakes negatives "pixels on 0 to 1"

Each target is wired wrongly on purpose and checked. "mended": a fault, or a note on how photographs are cut, proposes a spec
whose top-1 is within a point of that of the right one; "caught": there is no such spec; "refused": the target is not loaded;
"MISSED": nothing is said. "nothing to find": the mistake lowers top-1 by less than a point. The last row is wired rightly:
there a fault is a false alarm. An image that a network has answered is not computed again, which changes no answer.
"""

import argparse
import contextlib
import hashlib
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from evofool.errors import EvofoolError
from evofool.export.image_file import file_name
from evofool.targets import Target, target
from evofool.targets.digits import held_out
from evofool.targets.photos import find_photographs, photographs
from evofool.targets.remote.serve import ResponseOptions, serving
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
    "photographs cut without a margin": "resize={side}",
    "negatives": "invert=yes",
    "rows and columns swapped": "transpose=yes",
}
NETWORKS = {"0": "as it is", "1": "rolled by 1", "9": "rolled by -1", "b": "a background class first", "s": "a softmax last"}
OTHERS = {  # network, options of the target, options of the client of a server where they are others
    "classes off by one": ("1", "", ""),
    "classes off by one, the other way": ("9", "", ""),
    "one output more than labels": ("b", "labels={short}", "labels={short}"),
    "background class named last": ("b", "labels={last}", ""),
    "logits stated as probabilities": ("0", "outputs=probabilities", "outputs=probabilities"),
    "probabilities stated as logits": ("s", "outputs=logits", "outputs=logits"),
}

FACTORY = """
import numpy as np, torch
from tests.perf.wiring_mistakes import remembered

class Network(torch.nn.Module):
    shape = {shape}
    def __init__(self, kind):
        super().__init__()
        from evofool.targets import target
        self.network, self.kind = target({spec!r}).network.module, kind
        self.labels = (["background"] if kind == "b" else []) + {labels}
    def forward(self, x):
        if torch.is_grad_enabled() or torch.jit.is_tracing():
            z = self.network(x)
        else:
            z = torch.from_numpy(remembered("torch", x.numpy(), lambda part: self.network(torch.from_numpy(part)).numpy()))
        if self.kind == "b":
            return torch.cat([z.amin(1, keepdim=True) - 1, z], 1)
        return z.softmax(1) if self.kind == "s" else z.roll({{"1": 1, "9": -1}}.get(self.kind, 0), 1)

def callable_of(kind):
    network = Network(kind).eval()
    def call(x):
        with torch.inference_mode():
            return network(torch.from_numpy(np.asarray(x, np.float32))).numpy()
    call.shape, call.labels = network.shape, network.labels
    return call
"""
FACTORIES = """
def torch_{0}(): return Network({0!r})
def callable_{0}(): return callable_of({0!r})
"""
_answers: dict[bytes, np.ndarray] = {}


def remembered(who: str, x: np.ndarray, forward: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """forward(x), of which rows that `who` has answered before are not computed again."""
    keys = [hashlib.blake2b(row.tobytes(), key=who.encode(), digest_size=16).digest() for row in np.ascontiguousarray(x)]
    if new := [k for k, key in enumerate(keys) if key not in _answers]:
        for k, row in zip(new, forward(x[new]), strict=True):
            _answers[keys[k]] = row
    return np.stack([_answers[key] for key in keys])


@contextlib.contextmanager
def remembering_sessions() -> Iterator[None]:
    """onnxruntime's sessions do not compute again what they have answered."""
    import onnxruntime

    session = onnxruntime.InferenceSession

    class Remembering:
        def __init__(self, path: str, *given: Any, **options: Any) -> None:
            self.inner, self.who = session(path, *given, **options), f"onnx {Path(path).name}"

        def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            ((name, x),) = inputs.items()
            return [remembered(self.who, x, lambda part: self.inner.run(outputs, {name: part})[0])]

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    onnxruntime.InferenceSession = Remembering
    try:
        yield
    finally:
        onnxruntime.InferenceSession = session


def network_spec(kind: str, network: str, folder: Path) -> str:
    """The spec of one of NETWORKS as a kind of target, without options but labels."""
    if kind != "onnx":
        return f"python:wired:{'torch' if kind == 'http' else kind}_{network}"
    path, labels = folder / f"net{network}.onnx", folder / f"labels{network}.txt"
    if not path.exists():
        made = target(f"python:wired:torch_{network}")
        assert made.network is not None
        with warnings.catch_warnings(action="ignore"):
            example = torch.zeros(1, *made.shape)
            axes = {"x": {0: "n"}}
            torch.onnx.export(made.network.module, (example,), str(path), dynamo=False, dynamic_axes=axes, input_names=["x"])
        labels.write_text("\n".join(made.labels))
    return f"onnx:{path}?labels={labels}"


def with_options(spec: str, options: str) -> str:
    return f"{spec}{'&' if '?' in spec else '?'}{options}" if options else spec


def top1(made: Target, images: Path) -> float:
    right = seen = 0
    for pictures, classes, _ in photographs(find_photographs(images, made.labels), made):
        right, seen = right + int((made.logits(pictures).argmax(1) == classes).sum()), seen + len(classes)
    return right / seen


def outcome(wrong: Callable[[], str], images: Path, right: float) -> str:
    """What is found in the target of a spec, which is made here, since a server may refuse to serve it."""
    try:
        report = check(target(wrong()), images, speed=False)
    except EvofoolError as error:
        print(f"    {error}", file=sys.stderr)
        return "refused"
    assert report.accuracy is not None
    before = report.accuracy.top1
    said = next((each for each in (*report.faults, *report.notes) if "McNemar" in each), "")
    if not said:
        found = "nothing to find" if before > right - 0.01 else "MISSED"
    elif 'Use "' not in said:
        found = "told in words" if "begin the labels" in said or "leave the first" in said else "caught"
    else:
        proposed = said.partition('. Use "')[2].partition('"')[0]
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
    parser.add_argument("--mistakes", nargs="+", help="only these, by their names in the table")
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
        factory = FACTORY.format(shape=base.shape, labels=list(base.labels), spec=given.target)
        (folder / "wired.py").write_text(factory + "".join(map(FACTORIES.format, NETWORKS)), encoding="utf-8")
        sys.path.insert(0, str(folder))
        files = {"short": base.labels, "last": [*base.labels, "background"]}
        for name, lines in files.items():
            (folder / f"{name}.txt").write_text("\n".join(lines))
        words = {name: str(folder / f"{name}.txt") for name in files} | {"side": str(base.shape[1])}
        usual = base.details["preprocessing"]
        own = "&".join(f"{key}={_text(usual[key])}" for key in ("scale", "mean", "std", "order", "resize", "interpolation"))
        mistakes = {name: ("0", options, "") for name, options in (GREY if base.shape[0] == 1 else COLOUR).items()} | OTHERS
        if given.mistakes:
            mistakes = {name: mistakes[name] for name in given.mistakes}
        print(f"| {given.target}, {given.images} images | {' | '.join(given.kinds)} |\n|---|{'---|' * len(given.kinds)}")
        rows: dict[str, list[str]] = {name: [] for name in (*mistakes, "wired rightly")}
        with remembering_sessions():
            for kind in given.kinds:
                column(kind, mistakes, words, own, folder, images, rows)
        for name, cells in rows.items():
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
        print(f"{time.process_time():,.0f} CPU s", file=sys.stderr)


def column(
    kind: str,
    mistakes: dict[str, tuple[str, str, str]],
    words: dict[str, str],
    own: str,
    folder: Path,
    images: Path,
    rows: dict[str, list[str]],
) -> None:
    """Add a kind of target's cells to the rows. own: the options of the right preprocessing."""

    def served(spec: str, client: str = "", answers: str = "logits") -> str:
        """How a server feeds its network is its own; how photographs are cut is its client's."""
        url = stack.enter_context(serving(target(spec), options=ResponseOptions(answers=answers)))
        return with_options(url, client)

    def wrong(network: str, options: str, client: str) -> str:
        spec = with_options(network_spec(kind, network, folder), own)
        if kind != "http":
            return _changed(spec, options)
        if options == client:  # of a right server
            return served(spec, client, "probabilities" if network == "s" else "logits")
        return served(_changed(spec, options))

    with contextlib.ExitStack() as stack:
        usual = with_options(network_spec(kind, "0", folder), own)
        report = check(target(served(usual) if kind == "http" else usual), images, speed=False)
        assert report.accuracy is not None
        right = report.accuracy.top1
        alarm = "FALSE ALARM" if any("McNemar" in said for said in (*report.faults, *report.notes)) else "no fault"
        rows["wired rightly"].append(f"{alarm} ({right:.3f})")
        for name, (network, options, client) in mistakes.items():
            given = [each.format(**words) for each in (options, client)]
            rows[name].append(outcome(lambda network=network, given=given: wrong(network, *given), images, right))  # type: ignore[misc]
            print(f"  {kind}, {name}: {rows[name][-1]}", file=sys.stderr, flush=True)


def _text(value: object) -> str:
    if value is None:
        return "squeeze"
    return ",".join(map(repr, value)) if isinstance(value, (list, tuple)) else str(value)


def _changed(spec: str, options: str) -> str:
    """The spec with other values of these options."""
    head, _, query = spec.partition("?")
    pairs = dict(pair.split("=", 1) for pair in query.split("&") if pair)
    pairs |= dict(pair.split("=", 1) for pair in options.split("&") if pair)
    return f"{head}?{'&'.join(f'{key}={value}' for key, value in pairs.items())}"


if __name__ == "__main__":
    main()
