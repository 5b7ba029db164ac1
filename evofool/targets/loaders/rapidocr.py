"""The orientation of a line of text: PaddleOCR's classifier in the PyPI package rapidocr-onnxruntime, a black box."""

from evofool.targets.classifier import Target
from evofool.targets.loaders.onnx import from_file
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.spec import Spec
from evofool.targets.weights import packaged

_PACKAGE = "rapidocr-onnxruntime"


def load(spec: Spec) -> Target:
    """rapidocr-orientation: the package's ONNX file, ch_ppocr_mobile_v2.0_cls_infer.onnx, run by onnxruntime.

    Images are 192 pixels wide and 48 high, which the package does not resize. Labels: the angle by which the text is turned.
    """
    needs = f"pip install 'evofool[ocr]' (or onnxruntime, and {_PACKAGE} with --no-deps, since only its file is read)"
    path = packaged(_PACKAGE, "_cls_infer.onnx", spec.head, needs)
    default = Preprocessing(mean=(0.5,), std=(0.5,), order="BGR")
    return from_file(spec, path, default, (48, 192), ("0 degrees", "180 degrees"))
