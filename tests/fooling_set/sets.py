"""A tiny set of fooling images, built once for all tests that look at it."""

from pathlib import Path
from typing import Any

from evofool.fooling_set.build import build_set
from evofool.fooling_set.recipe import SetRecipe, parse

FACTORY = """
import torch

class Colours(torch.nn.Module):
    shape = (3, 8, 8)
    labels = ("red", "green", "3")

    def forward(self, x):
        return 4 * x.mean(dim=(2, 3))

def colours():
    return Colours()
"""
"""A network of other labels, all but one, and of another shape than those of digits."""

TINY: dict[str, Any] = {
    "name": "tiny",
    "seeds": 1,
    "groups": [
        {
            "name": "digits",
            "arms": ["cppn", "latent", "noise"],
            "budget": 40,
            "classes": [1, "3"],
            "images": "digits",
            "targets": [{"target": "lenet"}, {"target": "lenet?std=0.5", "name": "other"}],
        },
        {
            "name": "colours",
            "arms": ["noise"],
            "budget": 40,
            "targets": [{"target": "python:set_nets:colours", "name": "colours"}],
        },
    ],
}
CLASSIFIERS = ["lenet", "other", "colours"]


def tiny(**changes: Any) -> SetRecipe:
    return parse({**TINY, **changes}, "here")


def content(folder: Path) -> dict[str, bytes]:
    """By path, the bytes of every file of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def built_in(folder: Path) -> Path:
    outcome = build_set(tiny(), folder)
    assert outcome.index is not None
    return folder
