"""A folder of tensors with their manifest, frozen once written: ``weights.safetensors`` and ``manifest.json``.

One content hash binds the two. Never pickle: what is read is sized, hashed and parsed, and nothing in it can run.
"""

import hashlib
import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from userrep.errors import ArtifactError, in_line
from userrep.model.tensor_file import Tensors, read_tensors, tensor_bytes
from userrep.store.storage import read_bytes, write_folder

FORMAT_VERSION = 6
WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"
_MAX_MANIFEST = 64 << 20  # bytes; vocabularies are in it
_MAX_WEIGHTS = 4 << 30


class Manifest(BaseModel):
    """What tensors are and where they come from. ``content_hash`` covers the weights file and all other fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    content_hash: str = ""


M = TypeVar("M", bound=Manifest)


def sealed(manifest: M, tensors: Tensors) -> M:
    """Return the manifest with the content hash of both."""
    weights = tensor_bytes(tensors)
    return manifest.model_copy(update={"content_hash": _content_hash(weights, manifest.model_dump(mode="json"))})


def write_frozen(folder: str, manifest: M, tensors: Tensors) -> M:
    """Write a folder whole or not at all; return the manifest with its content hash.

    Raises
    ------
    FileExistsError
        If the folder is there already.
    """
    manifest = sealed(manifest, tensors)
    write_folder(folder, {WEIGHTS: tensor_bytes(tensors), MANIFEST: manifest.model_dump_json(indent=1).encode()})
    return manifest


def read_frozen(folder: str, kind: type[M], *, expected_hash: str | None, cure: str) -> tuple[M, Tensors]:
    """Read a folder and check format and hash; what its tensors must be is the caller's to check.

    ``expected_hash``: another record of the content hash, which must be the same. ``cure``: the end of every error.

    Raises
    ------
    ArtifactError
        If anything is not as it was written; one line.
    """
    values = _parsed(folder, _read(folder, MANIFEST, _MAX_MANIFEST, cure), cure)
    manifest = _validated(folder, values, kind, cure)
    weights = _read(folder, WEIGHTS, _MAX_WEIGHTS, cure)
    found = _content_hash(weights, values)
    if found != manifest.content_hash:
        raise ArtifactError(
            f"{folder}: {WEIGHTS} and {MANIFEST} are not the ones written together (content hash {found[:12]}, "
            f"the manifest says {manifest.content_hash[:12]}). {cure}"
        )
    if expected_hash is not None and expected_hash != found:
        raise ArtifactError(
            f"{folder}: another artifact was expected here (content hash {expected_hash[:12]}, found {found[:12]}). "
            f"{cure}"
        )
    return manifest, read_tensors(weights, f"{folder}: {WEIGHTS}", cure=cure)


def read_frozen_manifest(folder: str, kind: type[M], *, cure: str) -> M:
    """Read the manifest alone, without comparing its content hash with the weights.

    Raises
    ------
    ArtifactError
        If it cannot be read; one line.
    """
    return _validated(folder, _parsed(folder, _read(folder, MANIFEST, _MAX_MANIFEST, cure), cure), kind, cure)


def _validated(folder: str, values: dict[str, Any], kind: type[M], cure: str) -> M:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(in_line(str(part)) for part in fault["loc"])
        said = " ".join(fault["msg"].removeprefix("Value error, ").splitlines())
        raise ArtifactError(f"{folder}: {MANIFEST} does not fit: {place}: {said}. {cure}") from None


def _parsed(folder: str, text: bytes, cure: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):  # the latter: of a million brackets
        values = None
    if not isinstance(values, dict):
        raise ArtifactError(f"{folder}: {MANIFEST} is torn, or not JSON. {cure}")
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        is_older = isinstance(version, int) and version < FORMAT_VERSION
        way = "go on with the release that wrote it, or train a new space" if is_older else "upgrade userrep to read it"
        raise ArtifactError(
            f"{folder}: format_version {version} was found, this release reads {FORMAT_VERSION}: {way}."
        )
    return values


def _content_hash(weights: bytes, values: dict[str, Any]) -> str:
    """Hash the weights file and the manifest's fields but the hash."""
    rest = {key: value for key, value in values.items() if key != "content_hash"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(hashlib.sha256(weights).digest() + canonical).hexdigest()


def _read(folder: str, name: str, max_bytes: int, cure: str) -> bytes:
    path = f"{folder}/{name}"
    try:
        return read_bytes(path, max_bytes=max_bytes)
    except ValueError as error:
        raise ArtifactError(f"{error}. {cure}") from None
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}. {cure}") from None
