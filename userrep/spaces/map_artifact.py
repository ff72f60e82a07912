"""Maps between spaces on disk. A map is stored next to the artifact of its source space; the registry has its hash."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime

import numpy as np

from userrep import config
from userrep.errors import ArtifactError, UsageError
from userrep.ids import checked_name
from userrep.model.frozen_folder import Manifest, read_frozen, sealed, write_frozen
from userrep.model.tensor_file import Tensors
from userrep.spaces.agreement import Agreement
from userrep.spaces.mapping import LinearMap
from userrep.spaces.registry import Space, add_map
from userrep.store.tables import Tables


class MapManifest(Manifest):
    """Description of a map: its two spaces, the as-of dates it was fitted on, and its agreement on held-out users."""

    from_space: config.Name
    from_hash: str
    to_space: config.Name
    to_hash: str
    created_at: datetime
    as_ofs: list[date]
    agreement: dict[str, float]


def has_map(new: Space, old: Space) -> bool:
    """Return whether the registry names a map from ``new`` to ``old``."""
    return old.space_id in dict(new.maps)


def map_folder(tables: Tables, new: Space, old: Space, content_hash: str) -> str:
    """Return the folder of a map from ``new`` to ``old``."""
    parent = f"artifacts/spaces/{new.space_id}/maps/{old.space_id}"
    return f"{tables.artifacts_root}/{parent}/{checked_name(content_hash[:16], 'map')}"


def save_map(
    tables: Tables, new: Space, old: Space, fitted: LinearMap, *, told: Agreement, as_ofs: Sequence[date]
) -> Space:
    """Save a map and name it in the registry, unless the registry names a map between these spaces already.

    The first map is permanent, so that models which read through it keep getting the same vectors. ``told`` is stored
    in the manifest. Returns ``new`` as it is in the registry afterwards.
    """
    manifest = MapManifest(
        from_space=new.space_id,
        from_hash=new.content_hash,
        to_space=old.space_id,
        to_hash=old.content_hash,
        created_at=datetime.now(UTC),
        as_ofs=list(as_ofs),
        agreement=asdict(told),
    )
    tensors = {"weight_ED": fitted.weight_ED, "bias_D": fitted.bias_D}
    manifest = sealed(manifest, tensors)
    write_frozen(map_folder(tables, new, old, manifest.content_hash), manifest, tensors)
    return add_map(tables, new, old, manifest.content_hash)


def load_map(tables: Tables, new: Space, old: Space) -> tuple[MapManifest, LinearMap]:
    """Load the map that the registry names, and check it against the registry and both spaces.

    Raises
    ------
    UsageError
        If the registry names no map between these spaces.
    ArtifactError
        If the map was changed after it was saved, or was fitted on other artifacts than those of these spaces.
    """
    content_hash = dict(new.maps).get(old.space_id)
    if content_hash is None:
        raise UsageError(
            f"space {new.space_id}: no map to the coordinates of space {old.space_id}. "
            f"Fit one with `userrep spaces diff {old.space_id} {new.space_id}`."
        )
    folder, cure = map_folder(tables, new, old, content_hash), "Restore the folder from a copy."
    manifest, tensors = read_frozen(folder, MapManifest, expected_hash=content_hash, cure=cure)
    expected = (new.space_id, new.content_hash, old.space_id, old.content_hash)
    if (manifest.from_space, manifest.from_hash, manifest.to_space, manifest.to_hash) != expected:
        raise ArtifactError(
            f"{folder}: the map from {manifest.from_space} to {manifest.to_space} was fitted on other artifacts. {cure}"
        )
    _check(folder, tensors, cure)
    return manifest, LinearMap(tensors["weight_ED"], tensors["bias_D"])


def _check(folder: str, tensors: Tensors, cure: str) -> None:
    weight, bias = tensors.get("weight_ED"), tensors.get("bias_D")
    fits = weight is not None and bias is not None and weight.ndim == 2 and bias.shape == weight.shape[1:]
    if not fits or not all(np.isfinite(tensor).all() and tensor.dtype == np.float32 for tensor in tensors.values()):
        raise ArtifactError(f"{folder}: the tensors are not a linear map of finite float32 numbers. {cure}")
