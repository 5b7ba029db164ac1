"""The classifiers of torchvision and timm by name: published weights, a user's file, or none (to measure speed)."""

import difflib
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import torch
from torch import nn

from evofool.errors import TargetError
from evofool.targets.classifier import Target
from evofool.targets.labels import imagenet_labels
from evofool.targets.loaders.hub import cache_alone_if_unreachable
from evofool.targets.preprocessing import INTERPOLATIONS, MOST_RESIZE, Preprocessing
from evofool.targets.spec import Spec, data
from evofool.targets.weights import fill, read_weights

UNTRAINED = "untrained: random weights from seed 0, only for measuring speed"

State = dict[str, torch.Tensor]


class _Model(NamedTuple):
    """A library's description of one of its networks."""

    shape: tuple[int, int, int]  # (C, H, W) of its images
    preprocessing: Preprocessing
    build: Callable[..., nn.Module]  # build(), or build(num_classes=K), untrained
    published: Callable[[], Path | nn.Module]  # the downloaded file, or the network with published weights
    labels: Callable[[int], list[str] | None]  # of a network with this number of classes
    translate: Callable[[State], State]  # names of a file's tensors to those of `build`
    backend: str


def load(spec: Spec) -> Target:
    """torchvision:NAME and timm:NAME, with the library's preprocessing and labels for its published weights.

    weights=FILE reads them from a file, which may have another number of classes; weights=random leaves the network
    untrained. If size= differs from the library's, photographs are resized in proportion.
    """
    model = (_torchvision if spec.kind == "torchvision" else _timm)(spec)
    weights, sha256, labels = spec.options.get("weights"), spec.options.get("sha256"), spec.labels()
    build, wanted = partial(_built, model, spec), data(num_classes=len(labels) if labels else None)
    details: dict[str, Any] = {"backend": model.backend}
    # Untrained networks are initialised at random, and so are parts of others before their weights are loaded.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        source = Path(weights) if weights not in (None, "random") else model.published() if weights is None else None
        if isinstance(source, Path):
            state, digest = read_weights(source, spec.head, sha256)
            network = _filled(build, model.translate(state), wanted, source, spec.head)
            details |= {"file": str(source), "file_sha256": digest}
        elif sha256 is not None:
            raise TargetError(f"{spec.head}: sha256 is for a file; give it, {spec.kind}:{spec.name}?weights=FILE")
        elif source is not None:
            network = source
        else:
            network = build(**wanted)
            details["notes"] = [UNTRAINED]
    preprocessing, size = spec.preprocessing(model.preprocessing, model.shape[1:])
    return Target.from_module(
        network,
        spec.labels(model.labels(len(network.state_dict()[_last(network)]))),
        (model.shape[0], *size),
        preprocessing,
        spec.text,
        spec.device,
        spec.outputs,
        details,
    )


def _built(model: _Model, spec: Spec, **settings: Any) -> nn.Module:
    try:
        return model.build(**settings)
    except TargetError:
        raise
    except Exception as error:  # an architecture may raise any error for a size
        height, width = model.shape[1:]
        raise TargetError(
            f"{spec.head}: cannot be built for images of {height}x{width} ({type(error).__name__}: {_first_line(error)})"
        ) from None


def _filled(build: Callable[..., nn.Module], state: State, wanted: dict[str, int], path: Path, who: str) -> nn.Module:
    """The network with a file's weights, and as many classes as the file has."""
    network = build(**wanted)
    last = _last(network)
    if last in state and state[last].ndim and len(state[last]) != len(network.state_dict()[last]):
        network = build(num_classes=len(state[last]))
    return fill(network, state, path, who)


def _last(network: nn.Module) -> str:
    """The name of the last layer's bias or weights, one row per class; in both libraries that layer is the last entry."""
    return next(reversed(network.state_dict()))


# --- torchvision


def _torchvision(spec: Spec) -> _Model:
    import torchvision
    from torchvision import models

    name = _known(spec, models.list_models(module=models))
    weights = models.get_model_weights(name).DEFAULT
    photographs = weights.transforms()
    (side,), (short,) = photographs.crop_size, photographs.resize_size
    size = spec.side((side, side))
    return _Model(
        (3, *size),
        Preprocessing(
            mean=tuple(photographs.mean),
            std=tuple(photographs.std),
            resize=min(round(short * max(size) / side), MOST_RESIZE),
            interpolation=photographs.interpolation.value,
        ),
        partial(models.get_model, name, weights=None, **_settings(name, size, spec)),
        partial(_download, weights.url, spec),
        lambda classes: list(weights.meta["categories"]) if classes == len(weights.meta["categories"]) else None,
        _translate,
        f"torch {torch.__version__}, torchvision {torchvision.__version__}",
    )


def _settings(name: str, size: tuple[int, int], spec: Spec) -> dict[str, Any]:
    """The arguments that torchvision's builders set for pretrained networks."""
    if name in ("googlenet", "inception_v3"):
        # torchvision's weights expect the normalisation of the originals, into which the network converts ImageNet's.
        untrained = spec.options.get("weights") == "random"
        return {"aux_logits": False, "init_weights": False, "transform_input": not untrained}
    if name.startswith("vit_"):
        if size[0] != size[1]:
            raise TargetError(f"{spec.head}: takes square images, not {size[0]}x{size[1]}")
        return {"image_size": size[0]}
    return {"input_size": size} if name == "maxvit_t" else {}


def _translate(state: State) -> State:
    """Without auxiliary heads, which do not affect the output; tensors of densenets' files of 2017 get today's names."""
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): value
        for key, value in state.items()
        if not key.startswith(("aux1.", "aux2.", "AuxLogits."))
    }


def _download(url: str, spec: Spec) -> Path:
    """The file of a URL, downloaded into torch's cache if needed; its name contains the beginning of its SHA-256."""
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=sys.stderr.isatty())
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, RuntimeError) as error:
        raise _unreachable(spec, error) from None
    if (start := re.search(r"-([a-f0-9]{8,})\.", path.name)) and not digest.startswith(start[1]):
        raise TargetError(f"{spec.head}: {path} is damaged, its SHA-256 is {digest}; delete it, and it is downloaded again")
    return path


# --- timm


def _timm(spec: Spec) -> _Model:
    try:
        import timm
        from timm.data import resolve_data_config
    except ImportError:
        raise TargetError(f"{spec.head}: needs timm: pip install 'evofool[timm]'") from None

    name = _known(spec, {*timm.list_models(), *timm.list_models(pretrained=True)})
    published_as = timm.get_pretrained_cfg(name)
    known = published_as.to_dict() if published_as else {}
    config = resolve_data_config(pretrained_cfg=known)
    channels, *side = config["input_size"]
    size = spec.side((side[0], side[1]))
    # The number of weights of such networks depends on the number of patches.
    fixed: dict[str, Any] = {"img_size": size} if known.get("fixed_input_size") and size != tuple(side) else {}
    interpolation = config["interpolation"]

    def build(**settings: Any) -> nn.Module:
        network = timm.create_model(name, **fixed, **settings)
        if not network.num_classes:
            raise TargetError(f"{spec.head}: has no classifier layer; give weights=FILE that has one, and its labels=FILE")
        return network

    def published() -> nn.Module:
        with _weights_only(), cache_alone_if_unreachable():
            try:
                return build(pretrained=True)
            except TargetError:
                raise
            except Exception as error:  # errors of timm, of the hub's client and of its dependencies
                raise _unreachable(spec, error) from None

    return _Model(
        (channels, *size),
        Preprocessing(
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            resize=None if config["crop_mode"] == "squash" else min(int(max(size) / config["crop_pct"]), MOST_RESIZE),
            interpolation=interpolation if interpolation in INTERPOLATIONS else "bicubic",
        ),
        build,
        published,
        _timm_labels,
        lambda state: state,
        f"torch {torch.__version__}, timm {timm.__version__}",
    )


def _timm_labels(classes: int) -> list[str] | None:
    """The names of ImageNet's 1,000 classes, or of a larger set of ImageNet that has this number of classes."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    if classes == 1000:
        return imagenet_labels()
    subset = infer_imagenet_subset({"num_classes": classes})
    return ImageNetInfo(subset).label_descriptions() if subset else None  # type: ignore[return-value]


@contextmanager
def _weights_only() -> Iterator[None]:
    """In this context torch.load reads only tensors, whatever arguments timm passes."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


# --- both


def _known(spec: Spec, names: Iterable[str]) -> str:
    names = sorted(names)
    if spec.name in names:
        return spec.name
    near = difflib.get_close_matches(spec.name, names, 3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"{spec.kind}'s list_models() has the {len(names)} names"
    raise TargetError(f'{spec.head}: {spec.kind} has no classifier "{spec.name}"; {hint}')


def _unreachable(spec: Spec, error: Exception) -> TargetError:
    return TargetError(
        f"{spec.head}: its weights cannot be downloaded ({type(error).__name__}: {_first_line(error)}); "
        f"use {spec.kind}:{spec.name}?weights=FILE"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
