"""Classifiers by name: `target("lenet")`, `target("torchvision:resnet50?weights=FILE")`. docs/targets.md lists them all."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from evofool.errors import TargetError
from evofool.lazy import lazy
from evofool.targets.kinds import KINDS, SERVERS, THROUGH, Kind, server_kind
from evofool.targets.remote.url import shown_spec
from evofool.targets.spec import parse

if TYPE_CHECKING:
    from evofool.targets.classifier import Target as Target
    from evofool.targets.preprocessing import Preprocessing as Preprocessing
else:
    # These two import torch, and a spec with an error is to be told before that.
    __getattr__ = lazy(__name__, {"Preprocessing": "evofool.targets.preprocessing", "Target": "evofool.targets.classifier"})

__all__ = [
    "KINDS",
    "Kind",
    "Preprocessing",
    "Target",
    "needs_trust",
    "refuse_workers",
    "stored_target",
    "target",
    "trust_reason",
]


def target(spec: str, answers_folder: Path | None = None) -> "Target":
    """The classifier that a spec names: KIND[:NAME][?option=value&...] or a URL. TargetError lists the kinds.

    Its name is the canonical spec, in which paths are absolute. answers_folder is a run's folder, in which a black box has
    stored its answers and its number of requests; they are read before its first request.
    """
    parsed = parse(spec)
    through = None
    if {*THROUGH} & {*parsed.options}:
        from evofool.targets.delivery import deliver, through_of

        through = through_of(parsed)  # before a request is sent
    load = import_module(f"evofool.targets.{KINDS[parsed.kind].loader}").load
    if parsed.kind in SERVERS and answers_folder:
        found = cast("Target", load(parsed, answers_folder))
    else:
        found = cast("Target", load(parsed))
        if answers_folder:
            found.store_in(answers_folder)
    if (answers := parsed.whole("average")) is not None:
        from evofool.targets.averaged import average

        average(found, answers)
    if through is not None:
        deliver(found, through)
    if (count := parsed.whole("views")) is not None:
        from evofool.targets.views import vote

        vote(found, count)
    return found


def check_spec(spec: str) -> None:
    """TargetError for a spec with an error in its grammar, its kind or the names of its options. Nothing is loaded."""
    parse(spec)


def with_files(spec: str, weights: Path, labels: Path) -> str:
    """The canonical spec of the same kind of network with other weights and labels. TargetError for a kind whose weights are
    no file with any number of classes."""
    parsed = parse(spec)
    if "weights" not in (KINDS[parsed.kind].options or ()) or parsed.kind == "lenet-caffe":
        raise TargetError(
            f"{parsed.head}: takes no weights file with another number of classes; lenet, efficientnet-lite, torchvision, "
            "timm, open-nsfw and digit-recognizer do"
        )
    kept = {key: value for key, value in parsed.options.items() if key != "sha256"}
    files = {"weights": str(weights.absolute()), "labels": str(labels.absolute())}
    return replace(parsed, options=kept | files).text


def needs_trust(spec: str) -> bool:
    """Whether a spec of somebody else may be used only if it is trusted; False for an invalid spec."""
    return bool(trust_reason(spec))


def trust_reason(spec: str) -> str:
    """What a spec names that has to be trusted: code to import, a file with code, or a server to query; "" for other specs
    and for invalid ones.

    For a guarded target, the base that its file names decides.
    """
    try:
        parsed = parse(spec)
        if parsed.kind == "guarded":
            from evofool.targets.guarded import base_of

            parsed = parse(base_of(Path(parsed.name)))
        return "types of a file that skops does not trust" if "trusted" in parsed.options else KINDS[parsed.kind].trust
    except TargetError:
        return ""


def is_black_box(spec: str) -> bool:
    """Whether a spec names a server, whose requests are counted. Nothing is sent."""
    return server_kind(spec) is not None


def refuse_black_box(spec: str) -> None:
    """TargetError for a black box with workers: one process has to count its requests."""
    if is_black_box(spec):
        raise TargetError(
            f"{shown_spec(spec)}: a black box is queried by one process, which counts its requests; run it without workers"
        )


def refuse_workers(found: "Target") -> None:
    """TargetError for a target that other processes cannot build: a black box (refuse_black_box), or one without a spec."""
    refuse_black_box(found.name)
    if found.monitor is not None:
        raise TargetError(
            f"{found.name} is watched for changes, which one process does; leave black_box= out, or use --workers 0"
        )
    try:
        parse(found.name)
    except TargetError as error:
        raise TargetError(
            f"workers build their target from its spec, and {found.name} is not a spec; give one, for instance "
            f"python:package.module:factory ({error})"
        ) from None


def stored_target(spec: str, folder: Path, trust: bool, ignore_cache: bool = False) -> "Target":
    """The target of the run in folder, by the spec in its file.

    A run may come from anyone: a spec that names code or a server (trust_reason) needs trust, else TargetError.
    ignore_cache: a black box is queried again for earlier images; these requests are counted for the run too.
    """
    if not trust and (reason := trust_reason(spec)):
        raise TargetError(
            f"{folder}: its target is {shown_spec(spec)}, {reason}, and a run may come from anyone; if you trust it, add "
            "--trust"
        )
    found = target(spec, folder)
    if ignore_cache:
        found.ignore_cache()
    return found
