"""Tensors as safetensors: what is read is sized and parsed, and nothing in it can run."""

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from userrep.errors import ArtifactError

_MAX_HEADER = 1 << 20  # a dozen tensors need less than 2 KiB
Tensors = dict[str, NDArray[np.float32]]


def tensor_bytes(tensors: Tensors) -> bytes:
    """Return tensors as the content of a file."""
    content: bytes = safetensors.numpy.save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
    return content


def read_tensors(content: bytes, path: str, *, cure: str) -> Tensors:
    """Parse a file's content; its header's size is looked at before anyone allocates for it.

    Raises
    ------
    ArtifactError
        If it is no such file, with ``path`` and ``cure``.
    """
    header = int.from_bytes(content[:8], "little")
    if len(content) < 8 or header > min(_MAX_HEADER, len(content) - 8):
        raise ArtifactError(
            f"{path} is no safetensors file of ours: {len(content)} bytes, "
            f"of which the header would be {header}. {cure}"
        )
    try:
        tensors: Tensors = safetensors.numpy.load(content)
    except Exception as error:  # the parser's own kinds; all mean the same here
        raise ArtifactError(f"{path} is not readable as safetensors ({error}). {cure}") from None
    return tensors
