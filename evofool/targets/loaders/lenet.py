"""The digit networks: the bundled LeNet, and Caffe's LeNet of 2015 with a user's weights file."""

from importlib import resources
from pathlib import Path

from evofool.errors import TargetError
from evofool.targets.classifier import Target
from evofool.targets.digits import LABELS, NOTHING
from evofool.targets.networks import CaffeLeNet, LeNet
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.spec import Spec, data
from evofool.targets.weights import fill, read_weights


def load(spec: Spec) -> Target:
    """lenet: 28x28 grey digits, pixel / 255, bundled weights (train_lenet.py) unless weights=FILE is given.

    A file with 11 outputs (see bench/retraining/training.py) has the class "nothing" after the digits.

    lenet-caffe: the architecture of Nguyen, Yosinski & Clune (2015), pixel / 256; needs weights=.
    """
    caffe = spec.kind == "lenet-caffe"
    weights = spec.options.get("weights")
    if weights is None and caffe:
        raise TargetError("lenet-caffe: has no bundled weights; name a file, lenet-caffe?weights=FILE.safetensors")
    with resources.as_file(resources.files("evofool.targets") / "weights" / "lenet.safetensors") as bundled:
        path = bundled if weights is None else Path(weights)
        state, digest = read_weights(path, spec.head, spec.options.get("sha256"))
    labels = LABELS
    if not caffe and "fc2.bias" in state and state["fc2.bias"].shape == (len(LABELS) + 1,):
        labels = (*LABELS, NOTHING)
    network = fill(CaffeLeNet() if caffe else LeNet(classes=len(labels)), state, path, spec.head)
    size = spec.side((28, 28))
    if size != (28, 28):
        raise TargetError(f"{spec.head}: its images are 28x28, not {size[0]}x{size[1]}")
    preprocessing, size = spec.preprocessing(Preprocessing(scale=1 / 256 if caffe else 1 / 255), size)
    return Target.from_module(
        network,
        spec.labels(labels),
        (1, *size),
        preprocessing,
        spec.text,
        spec.device,
        spec.outputs,
        data(file=weights, file_sha256=digest),
    )
