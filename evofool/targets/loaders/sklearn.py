"""A fitted classifier of scikit-learn in a file of skops, which is read without a pickle."""

import warnings
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evofool.errors import TargetError
from evofool.targets.classifier import Forward, Target
from evofool.targets.loaders.formats import format_of, opened
from evofool.targets.loaders.image_input import ImageInput
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.spec import Spec

_MOST_BYTES = 1 << 30  # of a file's content after decompression
_ROWS = 256  # by which decision_function and predict are compared


def load(spec: Spec) -> Target:
    """sklearn:FILE: an estimator with predict_proba, or decision_function, saved by skops.io.dump.

    It gets rows of pixels, float64 (B, C * H * W), 0 to 255 unless options say otherwise; they are grey and square unless
    size= says otherwise. channels_last=yes: rows of (H, W, C). Labels are its classes_. Types that skops does not trust are
    refused and named; trusted=TYPE,TYPE reads them, and then a stored run needs --trust.
    """
    try:
        import sklearn
        import skops
    except ImportError:
        raise TargetError(f"{spec.head}: needs skops: pip install 'evofool[skops]'") from None

    path, content, digest = opened(spec, "sklearn", "skops file")
    if format_of(content) != "sklearn":
        raise TargetError(f"{spec.head}: {path} is not a complete file of skops; save the estimator by skops.io.dump")
    estimator, notes = _estimator(content, path, spec)
    answers, outputs = _answers(estimator, spec)
    pixels = getattr(estimator, "n_features_in_", None)
    images = ImageInput.of(torch.float64, (None, pixels), spec, f"rows of {pixels or '?'} features")
    images = images._replace(last=spec.flag("channels_last"))
    preprocessing, size = spec.preprocessing(Preprocessing(scale=1.0), images.size)
    if outputs == "logits" and len(estimator.classes_) > 2:
        _refuse_other_classes(estimator, answers, images.channels * size[0] * size[1], spec)
    target = Target.probed(
        spec.text,
        _forward(answers, images, preprocessing),
        spec.labels([str(each) for each in estimator.classes_]),
        (images.channels, *size),
        preprocessing,
        spec.options.get("outputs", outputs),
        {
            "weights_sha256": digest,
            "estimator": type(estimator).__name__,
            "channels_last": images.last,
            "file": str(path),
            "file_sha256": digest,
            "backend": f"scikit-learn {sklearn.__version__}, skops {skops.__version__}",
            "device": "cpu",
            **({"notes": notes} if notes else {}),
        },
    )
    target.set_refed(lambda other: _forward(answers, images, other))
    return target


def _estimator(content: bytes, path: Path, spec: Spec) -> tuple[Any, list[str]]:
    """What the file has, and what was warned of."""
    from skops import io

    with zipfile.ZipFile(BytesIO(content)) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > _MOST_BYTES:
        raise TargetError(f"{spec.head}: {path} has {size:,} bytes when decompressed; {_MOST_BYTES:,} are the most")
    trusted = [name for name in spec.options.get("trusted", "").split(",") if name]
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            unknown = sorted({*io.get_untrusted_types(data=content)} - {*trusted})
            found = None if unknown else io.loads(content, trusted=trusted)
    except Exception as error:  # skops's and scikit-learn's errors have no common class
        reason = " ".join(str(error).split())[:300]
        raise TargetError(f"{spec.head}: {path} cannot be read ({type(error).__name__}: {reason})") from None
    if unknown:
        raise TargetError(
            f"{spec.head}: {path} has types that skops does not trust: {', '.join(unknown)}; if you trust the file, "
            f"add trusted={','.join(unknown)}"
        )
    if not hasattr(found, "classes_"):
        raise TargetError(f"{spec.head}: {path} has a {type(found).__name__}; it has to have a fitted classifier")
    return found, list(dict.fromkeys(" ".join(str(each.message).split())[:200] for each in warned))


def _answers(estimator: Any, spec: Spec) -> tuple[Any, str]:
    """The method that returns scores, and what they are."""
    for name, outputs in (("predict_proba", "auto"), ("decision_function", "logits")):
        if hasattr(estimator, name):
            return getattr(estimator, name), outputs
    raise TargetError(
        f"{spec.head}: a {type(estimator).__name__} has neither predict_proba nor decision_function, only classes"
    )


def _refuse_other_classes(estimator: Any, answers: Any, pixels: int, spec: Spec) -> None:
    """TargetError if the largest value is not of the class that predict returns, as with SVC's one-against-one.

    Asked are rows of noise, 0 to 255 and 0 to 1. Values for other numbers of classes are refused later.
    """
    noise = np.random.default_rng(0).uniform(0, 255, (_ROWS // 2, pixels))
    rows = np.concatenate([noise, noise / 255])
    try:
        values, classes = np.asarray(answers(rows)), np.asarray(estimator.predict(rows))
    except Exception as error:  # an estimator may raise any error
        reason = " ".join(str(error).split())[:200]
        raise TargetError(f"{spec.head}: does not take rows of {pixels} pixels ({type(error).__name__}: {reason})") from None
    if values.shape != (len(rows), len(estimator.classes_)):
        return
    if np.any(np.asarray(estimator.classes_)[values.argmax(axis=1)] != classes):
        raise TargetError(
            f"{spec.head}: the largest value of its decision_function is not always of the class that predict returns, "
            'so they are no scores of classes; fit an SVC with decision_function_shape="ovr", or use predict_proba'
        )


def _forward(answers: Any, images: ImageInput, preprocessing: Preprocessing) -> Forward:
    prepare = preprocessing.affine()

    def forward(pixels: np.ndarray) -> np.ndarray:
        rows = images.arranged(prepare(torch.from_numpy(pixels).float())).numpy()
        return np.asarray(answers(rows), np.float32)

    return forward
