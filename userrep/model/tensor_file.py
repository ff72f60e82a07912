"""Tensors as safetensors files, a format that contains data only and never executes code when it is read."""

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from userrep.errors import ArtifactError

_MAX_HEADER = 1 << 20  # a dozen tensors need less than 2 KiB
Tensors = dict[str, NDArray[np.float32]]


def tensor_bytes(tensors: Tensors) -> bytes:
    """Serialize tensors as the content of a safetensors file."""
    content: bytes = safetensors.numpy.save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
    return content


def read_tensors(content: bytes, path: str, *, cure: str) -> Tensors:
    """Parse the content of a safetensors file. The declared header size is checked before anything is allocated.

    Raises
    ------
    ArtifactError
        If the content is not valid safetensors. The message begins with ``path`` and ends with ``cure``.
    """
    header = int.from_bytes(content[:8], "little")
    if len(content) < 8 or header > min(_MAX_HEADER, len(content) - 8):
        raise ArtifactError(
            f"{path}: not a valid safetensors file, got {len(content)} bytes with a header of {header} bytes. {cure}"
        )
    try:
        tensors: Tensors = safetensors.numpy.load(content)
    except Exception as error:  # the parser has several exception types of its own; all mean an invalid file
        raise ArtifactError(f"{path}: cannot be read as safetensors ({error}). {cure}") from None
    return tensors
