"""Arrays and a few texts as the bytes of a safetensors file, and files that are not one."""

import json

import numpy as np

from genomes.encoding import GenomeError

MOST_BYTES = 1 << 30


def pack_tensors(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """A safetensors file; the same bytes for the same arrays and metadata."""
    from safetensors.numpy import save

    data = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, metadata)
    # safetensors writes the metadata in an order that differs from run to run, so write the header again, sorted.
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    return data[:8] + header.ljust(end - 8) + data[end:]


def unpack_tensors(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of a safetensors file.

    GenomeError for other bytes, for incomplete ones and for more than 1 GiB. Its message begins with a verb ("is not a whole
    safetensors file"), so that a caller can put the file's name before it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if len(data) > MOST_BYTES:
        raise GenomeError(f"has {len(data):,} bytes, and a model has at most {MOST_BYTES:,}")
    # A safetensors file may begin with these bytes too, which are then the length of its header, in JSON after 8 bytes.
    if (data[:1] == b"\x80" or data[:2] == b"PK") and data[8:9] != b"{":
        raise GenomeError("is a pickle or a zip, which evofool does not unpack; a model is safetensors")
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise GenomeError(f"is not a whole safetensors file ({error})") from None
    return tensors, header.get("__metadata__", {})


def check_tensor(tensors: dict[str, np.ndarray], name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """The array of this name. None in shape: any number.

    GenomeError, which begins with a verb, where it is missing, has another shape, or has NaN or infinity.
    """
    found = tensors.get(name)
    if found is None:
        raise GenomeError(f"is damaged: it has no {name}")
    if found.ndim != len(shape) or any(ours not in (None, side) for ours, side in zip(shape, found.shape, strict=True)):
        wanted = " x ".join("n" if side is None else str(side) for side in shape)
        raise GenomeError(f"is damaged: {name} is {' x '.join(map(str, found.shape))}, not {wanted}")
    if not np.isfinite(found.astype(np.float32)).all():
        raise GenomeError(f"is damaged: {name} has NaN or infinity")
    return found
