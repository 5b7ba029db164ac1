"""Classifiers of Hugging Face's transformers, from a folder or by name: safetensors only, and no code of theirs."""

import difflib
import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from evofool.errors import TargetError
from evofool.json_text import parse_json
from evofool.targets.classifier import Target
from evofool.targets.loaders.hf_processor import checked, read_feed
from evofool.targets.loaders.hub import reachable
from evofool.targets.spec import Spec

CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "*.safetensors"
ADAPTER = "adapter_config.json"
# Of config.json: what does not change the network.
_NOT_IN_DIGEST = ("_name_or_path", "transformers_version", "_commit_hash")
_OLD_WEIGHTS = ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack")


def load(spec: Spec) -> Target:
    """hf:NAME_OR_DIR: a folder as save_pretrained writes it, or a name on the hub (its cache alone if it is unreachable).

    The network is built by transformers' AutoModelForImageClassification in float32, with the weights in safetensors.
    How images are fed comes from preprocessor_config.json, compared with what transformers' own image processor does; labels
    from id2label. Answers are logits, of labels that do not exclude each other if problem_type says so. Code that comes with
    a model is not run, and quantised weights are refused. sha256= is that of the files that are read, one after another.
    """
    if not spec.name:
        raise TargetError("hf: has no model; write hf:FOLDER or hf:OWNER/NAME")
    try:
        import transformers
    except ImportError:
        raise TargetError(f"{spec.head}: needs transformers: pip install 'evofool[hf]'") from None

    folder = _folder(spec)
    config = _json(folder / CONFIG, spec, f"{folder} has no {CONFIG}, and so is no model of transformers")
    _check_config(config, spec, transformers.__version__)
    if (folder / ADAPTER).exists():
        raise TargetError(
            f"{spec.head}: {folder} has an {ADAPTER}, whose base model is elsewhere; merge it and save it whole"
        )
    said = _json(
        folder / PROCESSOR, spec, f"{folder} has no {PROCESSOR}, which says how images are fed; save_pretrained writes it"
    )
    digest = _digest(folder, spec)
    feed = read_feed(said, config, folder / PROCESSOR, spec)
    with _quiet(transformers):
        network = _network(transformers, folder, spec)
        preprocessing, size, notes = checked(transformers, folder, feed, spec)
    labels = [str(label) for _, label in sorted(network.config.id2label.items())]
    numbered = labels == [f"LABEL_{k}" for k in range(len(labels))]
    return Target.from_module(
        network,
        spec.labels(None if numbered else labels),
        (feed.channels, *size),
        preprocessing,
        spec.text,
        spec.device,
        spec.options.get("outputs", _outputs(config)),
        {
            "architecture": type(network).__name__,
            "config_sha256": hashlib.sha256(json.dumps(_canonical(config), sort_keys=True).encode()).hexdigest(),
            "file": str(folder),
            "file_sha256": digest,
            "backend": f"torch {torch.__version__}, transformers {transformers.__version__}",
            **({"notes": notes} if notes else {}),
        },
    )


def _outputs(config: dict[str, Any]) -> str:
    """What its classifiers return: logits, whose labels may exclude each other or not."""
    return "multilabel-logits" if config.get("problem_type") == "multi_label_classification" else "logits"


# --- files


def _folder(spec: Spec) -> Path:
    """The folder of the model, downloaded into the hub's cache if needed."""
    path = Path(spec.name)
    if path.is_absolute():
        if not path.is_dir():
            raise TargetError(f"{spec.head}: there is no folder {path}")
        return path
    from huggingface_hub import snapshot_download

    online = reachable()
    try:
        return Path(snapshot_download(spec.name, allow_patterns=[CONFIG, PROCESSOR, WEIGHTS], local_files_only=not online))
    except Exception as error:  # errors of the hub's client and of its dependencies
        if not online:
            raise TargetError(
                f"{spec.head}: there is no folder {spec.name}, the hub cannot be reached, and its cache has no such model"
            ) from None
        reason = " ".join(str(error).split())[:200]
        raise TargetError(f"{spec.head}: cannot be downloaded ({type(error).__name__}: {reason})") from None


def _json(path: Path, spec: Spec, missing: str) -> dict[str, Any]:
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TargetError(f"{spec.head}: {missing}") from None
    except (OSError, ValueError) as error:
        raise TargetError(f"{spec.head}: {path} cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise TargetError(f"{spec.head}: {path} is a JSON {type(found).__name__}; it has to be an object")
    return found


def _digest(folder: Path, spec: Spec) -> str:
    """SHA-256 of the contents of config.json, preprocessor_config.json and the weights, in the order of their names."""
    files = sorted(folder.glob(WEIGHTS))
    if not files:
        others = [name for name in _OLD_WEIGHTS if (folder / name).exists()]
        way_out = f"; convert {others[0]} by save_pretrained, evofool does not unpickle files" if others else ""
        raise TargetError(f"{spec.head}: {folder} has no weights in safetensors{way_out}")
    digest = hashlib.sha256()
    for file in (folder / CONFIG, folder / PROCESSOR, *files):
        with file.open("rb") as opened:
            while part := opened.read(1 << 20):
                digest.update(part)
    wanted = spec.options.get("sha256")
    if wanted is not None and digest.hexdigest() != wanted.lower():
        raise TargetError(
            f"{spec.head}: its files have SHA-256 {digest.hexdigest()}, not {wanted}; it is another model, or was changed"
        )
    return digest.hexdigest()


def _check_config(config: dict[str, Any], spec: Spec, version: str) -> None:
    """TargetError for a type of model that transformers does not have as a classifier of images."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as types

    kind = config.get("model_type")
    if kind == "timm_wrapper":
        raise TargetError(f"{spec.head}: is a network of timm; use timm:NAME?weights=FILE with its model.safetensors")
    if not isinstance(kind, str):
        raise TargetError(
            f"{spec.head}: the model_type in its {CONFIG} is a JSON {type(kind).__name__}; it has to be a text"
        )
    if kind not in types:
        near = difflib.get_close_matches(kind, types, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        if "auto_map" in config:
            hint = "; its own code (auto_map) is not run: load it in yours, as python:package.module:factory"
        raise TargetError(f'{spec.head}: transformers {version} has no classifier of images of type "{kind}"{hint}')
    if asked := _implementation(config):
        raise TargetError(
            f"{spec.head}: its {CONFIG} asks for {asked}, which may be code from the hub; remove the entry, or set it to "
            '"eager" or "sdpa"'
        )
    if config.get("problem_type") == "regression":
        raise TargetError(f"{spec.head}: its problem_type is regression: its outputs are no scores of classes")
    if "quantization_config" in config:
        raise TargetError(f"{spec.head}: its weights are quantised; load it in code, as python:package.module:factory")


def _implementation(config: Any) -> str:
    """An entry, at any depth, that names an implementation of layers other than torch's own; "" if there is none."""
    if isinstance(config, list):
        return next(filter(None, map(_implementation, config)), "")
    if not isinstance(config, dict):
        return ""
    for key, value in config.items():
        if key.endswith(("_implementation", "_implementation_internal")) and value not in (None, "eager", "sdpa"):
            return f"{key} {json.dumps(value)[:100]}"
        if key == "use_kernels" and value:
            return key
    return next(filter(None, map(_implementation, config.values())), "")


def _canonical(config: Any) -> Any:
    """config.json without paths and versions."""
    if isinstance(config, list):
        return [*map(_canonical, config)]
    if isinstance(config, dict):
        return {key: _canonical(value) for key, value in config.items() if key not in _NOT_IN_DIGEST}
    return config


def _network(transformers: Any, folder: Path, spec: Spec) -> Any:
    try:
        network, report = transformers.AutoModelForImageClassification.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # errors of transformers, of safetensors and of torch have no common class
        reason = " ".join(str(error).split())[:300]
        raise TargetError(f"{spec.head}: {folder} cannot be loaded ({type(error).__name__}: {reason})") from None
    # transformers draws weights that are missing at random.
    wrong = [f"{name} is missing" for name in sorted(report["missing_keys"])]
    wrong += [f"{each[0]} has another shape" for each in sorted(report["mismatched_keys"])]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise TargetError(f"{spec.head}: {folder} has not all weights of the classifier: {', '.join(wrong[:3])}{more}")
    return network


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """In this context transformers neither prints nor draws progress bars."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
