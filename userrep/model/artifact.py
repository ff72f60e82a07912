"""A space's artifact: a folder with ``weights.safetensors`` and ``manifest.json``, bound by one content hash.

Frozen once written. Never pickle: what is read is sized, hashed and parsed, and nothing in it can run.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from userrep import config
from userrep.errors import ArtifactError
from userrep.features.layout import InputLayout, Scaler
from userrep.model.autoencoder import Autoencoder
from userrep.model.tensor_file import Tensors, read_tensors, tensor_bytes
from userrep.storage import read_bytes, write_folder

FORMAT_VERSION = 1
WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"
_MAX_MANIFEST = 64 << 20  # bytes; vocabularies are in it
_MAX_WEIGHTS = 4 << 30
_RESTORE = "Restore the folder from a copy, or train the space anew."


class SpaceManifest(BaseModel):
    """What a space is and where it comes from. ``content_hash`` covers the weights file and all other fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    space_id: config.Name
    created_at: datetime
    lineage_id: config.Name
    trained_until: date
    layout: InputLayout
    model: config.Model
    training: config.Training
    metrics: dict[str, float]
    config_hash: str
    code_hash: str
    content_hash: str = ""


@dataclass(frozen=True)
class Artifact:
    """A space's manifest and tensors, checked."""

    manifest: SpaceManifest
    tensors: Tensors

    @property
    def layout(self) -> InputLayout:
        return self.manifest.layout

    @property
    def scaler(self) -> Scaler:
        return Scaler(center_F=self.tensors["center_F"], scale_F=self.tensors["scale_F"])

    def encoder(self) -> Autoencoder:
        """Return the autoencoder with the space's weights, ready for ``encode``."""
        autoencoder = Autoencoder.of(self.layout.width, self.manifest.model)
        autoencoder.load_state_dict({name: torch.from_numpy(self.tensors[name]) for name in autoencoder.state_dict()})
        return autoencoder.eval().requires_grad_(False)


def tensors_of(weights: bytes, scaler: Scaler, empty_F: NDArray[np.float32]) -> Tensors:
    """Put together what ``save_artifact`` writes, from a training's weights and what its inputs were scaled with."""
    loaded: Tensors = safetensors.numpy.load(weights)
    return loaded | {
        "center_F": scaler.center_F, "scale_F": scaler.scale_F, "empty_F": empty_F,
    }  # fmt: skip


def save_artifact(folder: str, manifest: SpaceManifest, tensors: Tensors) -> SpaceManifest:
    """Write an artifact whole or not at all; return the manifest with its content hash.

    Raises
    ------
    ArtifactError
        If the tensors are not what the manifest's layout and model call for, or the folder is there already.
    """
    _check_tensors(folder, manifest, tensors)
    weights = tensor_bytes(tensors)
    manifest = manifest.model_copy(update={"content_hash": _content_hash(weights, manifest.model_dump(mode="json"))})
    try:
        write_folder(folder, {WEIGHTS: weights, MANIFEST: manifest.model_dump_json(indent=1).encode()})
    except FileExistsError:
        raise ArtifactError(
            f"{folder}: there is an artifact already, and spaces are frozen. Choose another space_id."
        ) from None
    return manifest


def load_artifact(folder: str, expected_hash: str | None = None) -> Artifact:
    """Read an artifact and check it: format, hash, widths, finiteness. ``expected_hash``: the registry's record of it.

    Raises
    ------
    ArtifactError
        If anything is not as it was written; one line, with the cure.
    """
    values = _parsed(folder, _read(folder, MANIFEST, _MAX_MANIFEST))
    try:
        manifest = SpaceManifest.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        said = fault["msg"].removeprefix("Value error, ")
        raise ArtifactError(f"{folder}: {MANIFEST} does not fit: {place}: {said}. {_RESTORE}") from None
    weights = _read(folder, WEIGHTS, _MAX_WEIGHTS)
    found = _content_hash(weights, values)
    if found != manifest.content_hash:
        raise ArtifactError(
            f"{folder}: {WEIGHTS} and {MANIFEST} are not the ones written together (content hash {found[:12]}, "
            f"the manifest says {manifest.content_hash[:12]}). {_RESTORE}"
        )
    if expected_hash is not None and expected_hash != found:
        raise ArtifactError(
            f"{folder}: another artifact was expected here (content hash {expected_hash[:12]}, found {found[:12]}). "
            f"{_RESTORE}"
        )
    tensors = read_tensors(weights, f"{folder}: {WEIGHTS}", cure=_RESTORE)
    _check_tensors(folder, manifest, tensors)
    return Artifact(manifest, tensors)


def _parsed(folder: str, text: bytes) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ArtifactError(f"{folder}: {MANIFEST} is torn, or not JSON. {_RESTORE}")
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{folder}: format_version {version} was found, this release reads {FORMAT_VERSION}: "
            "upgrade userrep to read the space."
        )
    return values


def _content_hash(weights: bytes, values: dict[str, Any]) -> str:
    """Hash the weights file and the manifest's fields but the hash."""
    rest = {key: value for key, value in values.items() if key != "content_hash"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(hashlib.sha256(weights).digest() + canonical).hexdigest()


def _check_tensors(folder: str, manifest: SpaceManifest, tensors: Tensors) -> None:
    width = manifest.layout.width
    wanted = Autoencoder.shapes(width, manifest.model) | dict.fromkeys(("center_F", "scale_F", "empty_F"), (width,))
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    faults = [
        f"{name} {found.get(name, 'missing')}, wanted {wanted.get(name, 'none')}"
        for name in sorted(wanted | found)
        if found.get(name) != wanted.get(name)
    ]
    faults += [f"{name} is {t.dtype}, wanted float32" for name, t in tensors.items() if t.dtype != np.float32]
    if faults:
        raise ArtifactError(f"{folder}: {WEIGHTS} does not fit {MANIFEST}: {'; '.join(faults[:5])}. {_RESTORE}")
    spoilt = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if not (tensors["scale_F"] > 0).all():
        spoilt.append("scale_F (not above zero)")
    if spoilt:
        raise ArtifactError(f"{folder}: not finite numbers in {', '.join(spoilt)}. {_RESTORE}")


def _read(folder: str, name: str, max_bytes: int) -> bytes:
    path = f"{folder}/{name}"
    try:
        return read_bytes(path, max_bytes=max_bytes)
    except ValueError as error:
        raise ArtifactError(f"{error}. {_RESTORE}") from None
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}. {_RESTORE}") from None
