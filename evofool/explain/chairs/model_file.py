"""The generator as a file, and the one that evofool brings along."""

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch

from evofool.errors import StoreError
from evofool.explain.chairs.generator import ChairGenerator, GeneratorLayout
from evofool.explain.model_file import read_model
from evofool.whole_file import write_whole
from genomes import GenomeError
from genomes.tensor_file import check_tensor, pack_tensors, unpack_tensors

SHIPPED = Path(__file__).parent.parent / "weights" / "chairs.safetensors"
_FORMAT = "evofool.chairs 1"
_AGAIN = "evofool morph chairs A B without --model uses the one that evofool brings along"


@cache
def shipped_generator() -> ChairGenerator:
    """The generator that evofool brings along; `python -m tests.perf.chairs --ship` has trained it."""
    return load_generator(SHIPPED)


def save_generator(generator: ChairGenerator, path: Path) -> None:
    """Write a generator as safetensors, in float16; the same bytes for the same generator.

    StoreError for weights that are not finite in float16.
    """
    tensors = {}
    for name, tensor in generator.state_dict().items():
        with np.errstate(over="ignore"):
            tensors[name] = tensor.detach().cpu().numpy().astype(np.float16)
        if not np.isfinite(tensors[name]).all():
            raise StoreError(f"{path} is not written: the generator's {name} has NaN, infinity or a value beyond float16")
    layout = json.dumps(asdict(generator.layout), sort_keys=True)
    write_whole(path, pack_tensors(tensors, {"format": _FORMAT, "layout": layout}))


def load_generator(path: Path) -> ChairGenerator:
    """Read a generator, in eval mode, without gradients; StoreError for a missing, damaged or foreign file."""
    return read_model(path, _of_bytes, again=_AGAIN)


def _of_bytes(data: bytes) -> ChairGenerator:
    """GenomeError, which begins with a verb, for what is not such a file."""
    tensors, metadata = unpack_tensors(data)
    if metadata.get("format") != _FORMAT:
        raise GenomeError(f'is not a generator of chairs: its format is "{metadata.get("format")}", not "{_FORMAT}"')
    try:
        layout = GeneratorLayout(**json.loads(metadata["layout"]))
        with torch.device("meta"):  # no memory is spent on a layout that the arrays do not fit
            generator = ChairGenerator(layout)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise GenomeError(f"is damaged: its layout cannot be read ({error})") from None
    state = {
        name: torch.from_numpy(check_tensor(tensors, name, tuple(tensor.shape)).astype(np.float32))
        for name, tensor in generator.state_dict().items()
    }
    if not (state["decoder.code_scale"] > 0).all():
        raise GenomeError("is damaged: its decoder.code_scale has values that are not above 0")
    generator.load_state_dict(state, assign=True)
    return generator.eval().requires_grad_(False)
