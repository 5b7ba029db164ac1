"""The classes' names of ImageNet."""

from importlib import resources


def imagenet_labels() -> list[str]:
    """The 1000 names of ILSVRC 2012 in class order, no two the same, as torchvision's weights list them."""
    return resources.files("evofool.targets").joinpath("imagenet.txt").read_text(encoding="utf-8").splitlines()
