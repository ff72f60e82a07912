"""A space's artifact: its weights and what inputs were scaled with, in a frozen folder."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from userrep import config
from userrep.errors import ArtifactError
from userrep.features.layout import UNKNOWN, InputLayout, Scaler
from userrep.features.targets import TargetLayout
from userrep.model.frozen_folder import MANIFEST, WEIGHTS, Manifest, read_frozen, read_frozen_manifest, write_frozen
from userrep.model.self_check import SelfCheck
from userrep.model.tensor_file import Tensors
from userrep.model.weights import propensities_of, weight_shapes

if TYPE_CHECKING:
    from userrep.model.autoencoder import Autoencoder

_RESTORE = "Restore the folder from a copy, or train the space anew."


class SpaceManifest(Manifest):
    """What a space is and where it comes from. ``metrics``: of the epoch that was kept; ``curve``: losses by epoch.

    ``self_check``: None if it was switched off, or the log had no room for one.
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
    curve: list[dict[str, float]] = Field(default_factory=list)
    self_check: SelfCheck | None = None
    config_hash: str
    code_hash: str

    @property
    def named_dimensions(self) -> dict[str, int]:
        """The dimensions that mean something by themselves, the propensities, with their places in an embedding."""
        names = propensities_of(self.targets, self.model)
        first = self.model.latent_dim - len(names)
        return {f"propensity_{name}": first + k for k, name in enumerate(names)}


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

    def encoder(self) -> "Autoencoder":
        """Return the autoencoder with the space's weights, ready for ``encode``."""
        import torch  # 2 s, and much more when many workers start: only where a network is run

        from userrep.model.autoencoder import Autoencoder

        autoencoder = Autoencoder(self.layout, self.manifest.model, self.manifest.targets)
        autoencoder.load_state_dict({name: torch.from_numpy(self.tensors[name]) for name in autoencoder.state_dict()})
        return autoencoder.eval().requires_grad_(False)


def tensors_of(weights: Tensors, scaler: Scaler, empty_F: NDArray[np.float32]) -> Tensors:
    """Put together what ``save_artifact`` writes: an autoencoder's weights and what its inputs were scaled with."""
    return weights | {
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
    try:
        return write_frozen(folder, manifest, tensors)
    except FileExistsError:
        raise ArtifactError(
            f"{folder}: there is an artifact already, and spaces are frozen. Choose another space_id."
        ) from None


def read_manifest(folder: str) -> SpaceManifest:
    """Read what a space is without its weights, and so without checking that the two belong together.

    Raises ArtifactError if there is no manifest that can be read.
    """
    return read_frozen_manifest(folder, SpaceManifest, cure=_RESTORE)


def load_artifact(folder: str, expected_hash: str | None = None) -> Artifact:
    """Read an artifact and check it: format, hash, widths, finiteness. ``expected_hash``: the registry's record of it.

    Raises
    ------
    ArtifactError
        If anything is not as it was written; one line, with the cure.
    """
    manifest, tensors = read_frozen(folder, SpaceManifest, expected_hash=expected_hash, cure=_RESTORE)
    if not _fits(manifest.layout):
        raise ArtifactError(
            f"{folder}: {MANIFEST} does not fit: layout: its blocks are not those of its columns and vocabulary. "
            f"{_RESTORE}"
        )
    if manifest.targets != TargetLayout.of(manifest.layout.spec, manifest.targets.futures):
        raise ArtifactError(
            f"{folder}: {MANIFEST} does not fit: targets: their blocks are not those of their futures. {_RESTORE}"
        )
    _check_tensors(folder, manifest, tensors)
    return Artifact(manifest, tensors)


def _fits(layout: InputLayout) -> bool:
    """Say whether rows of the layout's columns can be laid out by it."""
    try:
        blocks = InputLayout.of(layout.spec, layout.vocabulary).blocks
    except LookupError:  # a column without its words, no window
        return False
    named = (layout.vocabulary[block.name] for block in blocks if block.name in layout.vocabulary)
    return blocks == layout.blocks and all(UNKNOWN in words for words in named)


def _check_tensors(folder: str, manifest: SpaceManifest, tensors: Tensors) -> None:
    wanted = weight_shapes(manifest.layout, manifest.model, manifest.targets)
    wanted |= dict.fromkeys(("center_F", "scale_F", "empty_F"), (manifest.layout.width,))
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
