"""Immutable folders of tensors and their manifest: ``weights.safetensors`` and ``manifest.json``.

One content hash covers both files. Neither uses pickle, so reading a folder never executes code from it.
"""

import hashlib
import json
from typing import Any, TypeVar

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from userrep.errors import ArtifactError, in_line
from userrep.store.filesystem import read_bytes, write_folder

FORMAT_VERSION = 8
_READ_VERSIONS = (7, FORMAT_VERSION)  # 8 added tastes
WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"
_MAX_HEADER = 1 << 20  # bytes of a safetensors header; a dozen tensors need less than 2 KiB
MAX_MANIFEST = 64 << 20  # bytes; the manifest contains the vocabularies
_MAX_WEIGHTS = 4 << 30  # bytes
Tensors = dict[str, NDArray[np.float32]]


class Manifest(BaseModel):
    """Base of the manifests stored next to tensors. ``content_hash`` covers the weights file and all other fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    content_hash: str = ""


M = TypeVar("M", bound=Manifest)


def sealed(manifest: M, tensors: Tensors) -> M:
    """Return the manifest with the content hash of itself and the tensors."""
    content_hash = _content_hash(tensor_bytes(tensors), manifest.model_dump(mode="json"))
    return manifest.model_copy(update={"content_hash": content_hash})


def write_frozen(folder: str, manifest: M, tensors: Tensors) -> M:
    """Write a folder atomically and return the manifest with its content hash.

    Raises
    ------
    FileExistsError
        If the folder exists.
    """
    manifest = sealed(manifest, tensors)
    write_folder(folder, {WEIGHTS: tensor_bytes(tensors), MANIFEST: manifest.model_dump_json(indent=1).encode()})
    return manifest


def read_frozen(folder: str, kind: type[M], *, expected_hash: str | None, cure: str) -> tuple[M, Tensors]:
    """Read a folder and check its format and content hash. The caller checks tensor names, shapes and values.

    ``expected_hash`` is a content hash recorded elsewhere, which must be the same. Every error message ends with
    ``cure``.

    Raises
    ------
    ArtifactError
        If a file is missing, unreadable or changed. The message is one line.
    """
    manifest, values = read_frozen_manifest(folder, kind, cure=cure)
    weights = _read(folder, WEIGHTS, _MAX_WEIGHTS, cure)
    content_hash = _content_hash(weights, values)
    if content_hash != manifest.content_hash:
        raise ArtifactError(
            f"{folder}: {WEIGHTS} and {MANIFEST} were not written together: the manifest says content hash "
            f"{manifest.content_hash[:12]}, got {content_hash[:12]}. {cure}"
        )
    if expected_hash is not None and expected_hash != content_hash:
        raise ArtifactError(
            f"{folder}: not the expected artifact: expected content hash {expected_hash[:12]}, "
            f"got {content_hash[:12]}. {cure}"
        )
    return manifest, read_tensors(weights, f"{folder}: {WEIGHTS}", cure=cure)


def read_frozen_manifest(folder: str, kind: type[M], *, cure: str) -> tuple[M, dict[str, Any]]:
    """Read only the manifest, and its values as they are in the file.

    The content hash is not checked, since it covers the weights too.

    Raises
    ------
    ArtifactError
        If the manifest is missing or invalid. The message is one line.
    """
    try:
        values = json.loads(_read(folder, MANIFEST, MAX_MANIFEST, cure))
    except (ValueError, RecursionError):  # deeply nested brackets raise RecursionError
        values = None
    if not isinstance(values, dict):
        raise ArtifactError(f"{folder}: {MANIFEST} is truncated or not a JSON object. {cure}")
    version = values.get("format_version")
    if version not in _READ_VERSIONS:
        is_older = isinstance(version, int) and version < FORMAT_VERSION
        fix = "Use the release that wrote it, or train a new space" if is_older else "Upgrade userrep to read it"
        readable = " and ".join(map(str, _READ_VERSIONS))
        raise ArtifactError(f"{folder}: this release reads format_version {readable}, got {version}. {fix}.")
    try:
        return kind.model_validate(values), values
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(in_line(str(part)) for part in fault["loc"])
        reason = " ".join(fault["msg"].removeprefix("Value error, ").splitlines())
        raise ArtifactError(f"{folder}: {MANIFEST} is invalid: {key}: {reason}. {cure}") from None


def _content_hash(weights: bytes, values: dict[str, Any]) -> str:
    """Hash the weights file and all manifest fields except the hash itself."""
    hashed = {key: value for key, value in values.items() if key != "content_hash"}
    canonical = json.dumps(hashed, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(hashlib.sha256(weights).digest() + canonical).hexdigest()


def _read(folder: str, name: str, max_bytes: int, cure: str) -> bytes:
    path = f"{folder}/{name}"
    try:
        return read_bytes(path, max_bytes=max_bytes)
    except ValueError as error:
        raise ArtifactError(f"{error}. {cure}") from None
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}. {cure}") from None


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
