"""What a root holds, without the clocks: the same after a kill and a second run as after an undisturbed one."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

# When something was done, under which run's id, and hashes that a space's time of creation is in.
CLOCKS = {
    "source_schemas": {"seen_at"},
    "tile_days": {"built_at"},
    "item_vector_versions": {"built_at"},
    "feature_sets": {"built_at"},
    "sum_generations": {"built_at"},
    "registry": {"change_id", "created_at", "changed_at", "registered_at", "last_seen_at", "content_hash"},
    "snapshots": {"computed_at", "inputs_hash"},
    "snapshot_drift": {"measured_at"},
    "training_sets": {"created_at"},
    "consumer_results": {"trained_at", "inputs_hash"},
    "tombstones": {"user_hash", "key_id", "erased_at"},
}
NOT_COMPARED = {"job_runs", "erasures", "leases"}  # records of attempts
KEYS = {
    "source_files": ("path", "mapping", "event_date"),
    "source_schemas": ("source", "columns"),
    "user_item_days": ("event_date", "revision", "user_id", "item_id", "event_type"),
    "tile_days": ("event_date", "revision"),
    "item_index": ("lineage_id", "item_id"),
    "item_vectors": ("lineage_id", "valid_from", "modality", "item_id"),
    "item_vector_versions": ("lineage_id", "valid_from"),
    "user_profiles": ("content_hash", "user_id"),
    "user_window_sums": ("lineage_id", "generation", "user_id"),
    "sum_generations": ("lineage_id", "generation"),
    "user_features": ("as_of", "user_id"),
    "training_rows": ("space_id", "split", "row_key"),
    "registry": ("kind", "name"),
    "user_embeddings": ("space_id", "as_of", "revision", "user_id"),
    "snapshots": ("snapshot_id",),
    "snapshot_drift": ("snapshot_id", "metric", "part"),
    "training_sets": ("training_set_id",),
    "consumer_results": ("consumer", "space_id", "inputs_hash", "input"),
    "tombstones": ("user_hash",),
}


def tables_of(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Read all tables, each to a list of rows."""
    folders = sorted(path for path in (root / "tables").glob("*") if DeltaTable.is_deltatable(str(path)))
    return {folder.name: DeltaTable(str(folder)).to_pyarrow_table().to_pylist() for folder in folders}


def contents(root: Path) -> dict[str, tuple[int, str]]:
    """Return, of each table that holds anything, the number of rows and a hash of them; of each space, its weights'."""
    found = {}
    for name, rows in tables_of(root).items():
        clocks = CLOCKS.get(name, set())
        texts = sorted(_text({key: value for key, value in row.items() if key not in clocks}) for row in rows)
        if texts and name not in NOT_COMPARED:
            found[name] = len(texts), _hash("\n".join(texts).encode())
    for weights in sorted((root / "artifacts" / "spaces").glob("[!.]*/weights.safetensors")):
        found[weights.parent.name] = 1, _hash(weights.read_bytes())
    return found


def doubled(root: Path) -> list[str]:
    """Say which tables have two rows of one key."""
    found = []
    for name, rows in tables_of(root).items():
        key = KEYS.get("user_features" if name.startswith("user_features_") else name)
        if key:
            twice = [of for of, num in Counter(_text([row[part] for part in key]) for row in rows).items() if num > 1]
            found += [f"{name}: {len(twice)} keys twice, such as {twice[0]}"] if twice else []
    return found


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _text(value: Any) -> str:
    return json.dumps(
        value, sort_keys=True, default=lambda other: other.hex() if isinstance(other, bytes) else str(other)
    )
