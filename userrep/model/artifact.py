"""A space's artifact: model weights, input scaler and manifest in a frozen folder."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from userrep import config
from userrep.errors import ArtifactError
from userrep.features.layout import UNKNOWN, InputLayout, Scaler
from userrep.features.targets import TargetLayout
from userrep.model.frozen_folder import (
    MANIFEST,
    WEIGHTS,
    Manifest,
    Tensors,
    read_frozen,
    read_frozen_manifest,
    write_frozen,
)
from userrep.model.self_check import SelfCheck
from userrep.model.weights import num_tastes, propensities_of, weight_shapes
from userrep.store.vector_storage import VectorStorage

if TYPE_CHECKING:
    from userrep.model.autoencoder import Autoencoder

_RESTORE = (
    "Restore the folder from a copy, or train the space again. `userrep spaces show SPACE` prints the path of a space."
)


class SpaceManifest(Manifest):
    """Description and provenance of a space.

    ``metrics`` are those of the epoch whose weights were kept; ``curve`` has the losses of every epoch.
    ``self_check`` is None if the check is switched off or the log is too short for one. ``int8_scales``: by dimension
    (store/vector_storage.py).
    """

    space_id: config.Name
    created_at: datetime
    lineage_id: config.Name
    trained_until: date
    layout: InputLayout
    targets: TargetLayout
    model: config.Model
    training: config.Training
    metrics: dict[str, float]
    int8_scales: list[PositiveFloat] = Field(default_factory=list)
    curve: list[dict[str, float]] = Field(default_factory=list)
    self_check: SelfCheck | None = None
    config_hash: str
    code_hash: str

    @property
    def taste_dimensions(self) -> tuple[int, int]:
        """First dimension of the tastes, and the first one after them; equal without tastes."""
        stop = self.model.latent_dim - len(self.named_dimensions)
        return stop - num_tastes(self.layout, self.targets, self.model), stop

    @property
    def named_dimensions(self) -> dict[str, int]:
        """Index in the embedding of each propensity, the dimensions that have a meaning of their own."""
        names = propensities_of(self.targets, self.model)
        first = self.model.latent_dim - len(names)
        return {f"propensity_{name}": first + k for k, name in enumerate(names)}


@dataclass(frozen=True)
class Artifact:
    """A space's manifest and tensors, validated on load."""

    manifest: SpaceManifest
    tensors: Tensors

    @property
    def layout(self) -> InputLayout:
        return self.manifest.layout

    @property
    def scaler(self) -> Scaler:
        return Scaler(center_F=self.tensors["center_F"], scale_F=self.tensors["scale_F"])

    def inputs(self, features: pa.RecordBatch) -> NDArray[np.float32]:
        """Return the scaled inputs of users, x_BF, as the encoder sees them."""
        return self.scaler.apply(self.layout, self.layout.raw(features))

    def storage(self, name: config.Storage) -> VectorStorage:
        """Return a storage type for the space's vectors."""
        return VectorStorage.of(name, self.manifest.int8_scales)

    def encoder(self) -> "Autoencoder":
        """Return the autoencoder with the space's weights, ready for ``encode``."""
        import torch  # takes 2 s, and much more when many workers start: import it only to run a network

        from userrep.model.autoencoder import Autoencoder

        autoencoder = Autoencoder(self.layout, self.manifest.model, self.manifest.targets)
        autoencoder.load_state_dict({name: torch.from_numpy(self.tensors[name]) for name in autoencoder.state_dict()})
        return autoencoder.eval().requires_grad_(False)


def tensors_of(weights: Tensors, scaler: Scaler, empty_F: NDArray[np.float32]) -> Tensors:
    """Combine an autoencoder's weights, the input scaler and the empty input into the tensors of an artifact."""
    return weights | {"center_F": scaler.center_F, "scale_F": scaler.scale_F, "empty_F": empty_F}


def save_artifact(folder: str, manifest: SpaceManifest, tensors: Tensors) -> SpaceManifest:
    """Write an artifact atomically and return its manifest with the content hash.

    Raises
    ------
    ArtifactError
        If the tensors do not match the layout and model of the manifest, or the folder exists.
    """
    _check_tensors(folder, manifest, tensors)
    try:
        return write_frozen(folder, manifest, tensors)
    except FileExistsError:
        raise ArtifactError(
            f"{folder}: an artifact already exists, and artifacts are never overwritten. Choose another space_id."
        ) from None


def read_space_manifest(folder: str) -> SpaceManifest:
    """Read only the manifest of an artifact. The content hash is not checked, since it covers the weights too.

    Raises ArtifactError if the manifest is missing or invalid.
    """
    return read_frozen_manifest(folder, SpaceManifest, cure=_RESTORE)[0]


def load_artifact(folder: str, expected_hash: str | None = None) -> Artifact:
    """Read an artifact and validate its format, content hash, tensor shapes and values.

    ``expected_hash`` is the content hash that the registry recorded for the space.

    Raises
    ------
    ArtifactError
        If any check fails. The message is one line that ends with the fix.
    """
    manifest, tensors = read_frozen(folder, SpaceManifest, expected_hash=expected_hash, cure=_RESTORE)
    if not _is_consistent(manifest.layout):
        raise ArtifactError(
            f"{folder}: {MANIFEST} is invalid: layout: the blocks do not match the columns and the vocabulary. "
            f"{_RESTORE}"
        )
    if manifest.targets != TargetLayout.of(manifest.layout.spec, manifest.targets.futures):
        raise ArtifactError(
            f"{folder}: {MANIFEST} is invalid: targets: the blocks do not match the futures. {_RESTORE}"
        )
    _check_tensors(folder, manifest, tensors)
    return Artifact(manifest, tensors)


def _is_consistent(layout: InputLayout) -> bool:
    """Return whether the blocks follow from the layout's own columns and vocabulary."""
    try:
        blocks = InputLayout.of(layout.spec, layout.vocabulary, layout.taste_modality).blocks
    except LookupError:  # no window, or a column without a vocabulary
        return False
    vocabularies = (layout.vocabulary[block.name] for block in blocks if block.name in layout.vocabulary)
    return blocks == layout.blocks and all(UNKNOWN in values for values in vocabularies)


def _check_tensors(folder: str, manifest: SpaceManifest, tensors: Tensors) -> None:
    expected = weight_shapes(manifest.layout, manifest.model, manifest.targets)
    expected |= dict.fromkeys(("center_F", "scale_F", "empty_F"), (manifest.layout.width,))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    faults = [
        f"{name}: expected shape {expected.get(name, 'none')}, got {shapes.get(name, 'none')}"
        for name in sorted(expected | shapes)
        if shapes.get(name) != expected.get(name)
    ]
    faults += [f"{name}: expected float32, got {t.dtype}" for name, t in tensors.items() if t.dtype != np.float32]
    if (num_scales := len(manifest.int8_scales)) != manifest.model.latent_dim:
        faults.append(f"int8_scales: expected {manifest.model.latent_dim}, got {num_scales}")
    if faults:
        raise ArtifactError(f"{folder}: {WEIGHTS} does not match {MANIFEST}: {'; '.join(faults[:5])}. {_RESTORE}")
    invalid = [f"{name} (not finite)" for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if not (tensors["scale_F"] > 0).all():
        invalid.append("scale_F (not positive)")
    if invalid:
        raise ArtifactError(f"{folder}: {WEIGHTS} has invalid values in {', '.join(invalid)}. {_RESTORE}")
