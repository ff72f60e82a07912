"""Tensors as safetensors: they come back as they were, and what is no such file is refused before it is parsed."""

import pickle
import struct

import numpy as np
import pytest
import safetensors.numpy

from userrep.errors import ArtifactError
from userrep.model.frozen_folder import read_tensors, tensor_bytes

pytestmark = pytest.mark.fast


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("a pickle was run",)


def test_tensors_come_back_with_their_shapes_and_numbers() -> None:
    tensors = {"matrix": np.arange(6, dtype=np.float32).reshape(2, 3), "scalar": np.float32([-0.5]),
               "empty": np.zeros((0, 4), np.float32)}  # fmt: skip
    found = read_tensors(tensor_bytes(tensors), "file", cure="")
    assert {name: (tensor.shape, tensor.dtype, tensor.tolist()) for name, tensor in found.items()} == {
        name: (tensor.shape, np.float32, tensor.tolist()) for name, tensor in tensors.items()
    }


def test_a_view_that_is_not_contiguous_is_written_in_its_own_order() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = safetensors.numpy.load(tensor_bytes({"turned": matrix.T, "every second": matrix[:, ::2]}))
    assert found["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["every second"].tolist() == [[0, 2], [3, 5]]


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Bomb()),
        b"",
        b"\x02\0\0",  # too short for the length of a header
        struct.pack("<Q", 3) + b"{}",  # a header one byte longer than the file
        struct.pack("<Q", 1 << 40) + b"{}",  # a header larger than the file
        struct.pack("<Q", 2 << 20) + b" " * (2 << 20),  # a header that fits the file, and none of a few tensors
    ],
)
def test_bytes_that_are_no_safetensors_are_refused_before_they_are_parsed(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors.numpy, "load", lambda _: pytest.fail("these bytes were parsed"))
    with pytest.raises(
        ArtifactError,
        match=r"^w\.safetensors: not a valid safetensors file, got \d+ bytes with a header of \d+ bytes\. Rest",
    ):
        read_tensors(content, "w.safetensors", cure="Restore it.")


@pytest.mark.parametrize("content", [struct.pack("<Q", 8) + b"{{{{{{{{", struct.pack("<Q", 2) + b"[]"])
def test_a_header_that_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"^w\.safetensors: cannot be read as safetensors \(.+\)\. Restore it\.$"):
        read_tensors(content, "w.safetensors", cure="Restore it.")


def test_a_file_that_lost_its_last_byte_is_refused() -> None:
    content = tensor_bytes({"a": np.ones(4, np.float32)})
    with pytest.raises(ArtifactError, match="cannot be read as safetensors"):
        read_tensors(content[:-1], "w.safetensors", cure="Restore it.")
