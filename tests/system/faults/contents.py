"""The contents of a root without clocks: the same after a kill and a second run as after an undisturbed run."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from pyarrow.fs import FileSelector

from userrep.store.filesystem import file_system

# Columns that differ between equal runs: times, ids of runs, and hashes that a space's time of creation enters.
CLOCKS = {
    "source_schemas": {"seen_at"},
    "tile_days": {"built_at"},
    "item_vector_versions": {"built_at"},
    "feature_sets": {"built_at"},
    "sum_generations": {"built_at"},
    "registry": {"created_at", "changed_at", "registered_at", "last_seen_at", "content_hash"},
    "snapshots": {"computed_at", "inputs_hash"},
    "snapshot_drift": {"measured_at"},
    "training_sets": {"created_at"},
    "consumer_results": {"trained_at", "inputs_hash"},
    "consumer_verdicts": {"verdict_id", "compared_at"},
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
    "consumer_verdicts": ("consumer", "old_space_id", "new_space_id", "verdict"),
    "tombstones": ("user_hash",),
}
UPDATE = ("space_id", "as_of", "user_id", "event_at")
Row = dict[str, Any]
Summary = tuple[int, str]  # number of rows, hash


def tables_of(root: Path | str) -> dict[str, list[Row]]:
    """Read all tables of a folder or a bucket, each as a list of rows."""
    return {name: table.to_pyarrow_table().to_pylist() for name, table in _delta_tables(root).items()}


def _delta_tables(root: Path | str) -> dict[str, DeltaTable]:
    store, folder = file_system(f"{root}/tables")
    names = sorted(info.base_name for info in store.get_file_info(FileSelector(folder, allow_not_found=True)))
    uris = {name: f"{root}/tables/{name}" for name in names}
    return {name: DeltaTable(uri) for name, uri in uris.items() if DeltaTable.is_deltatable(uri)}


def contents(root: Path) -> dict[str, Summary]:
    """Return the number of rows and a hash of each table that is not empty, and a hash of each space's weights."""
    found = {}
    for name, rows in _renumbered(tables_of(root)).items():
        if rows and name not in NOT_COMPARED:
            found[name] = _summary(rows, but=CLOCKS.get(name, set()))
    for weights in sorted((root / "artifacts" / "spaces").glob("[!.]*/[!.]*/weights.safetensors")):
        found[weights.parts[-3]] = 1, _hash(weights.read_bytes())
    return found


def _renumbered(tables: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Number revisions of tiles and generations of sums without gaps; leave out rows of those that no ledger names.

    A run that was killed leaves such rows, and the next run takes another number.
    """
    named = {(row["event_date"], row["revision"]) for row in tables.get("tile_days", [])}
    number = {revision: k for k, revision in enumerate(sorted({0} | {revision for _, revision in named}))}  # 0: streams
    found = dict(tables)
    for name in ("tile_days", "user_item_days"):
        rows = (row for row in tables.get(name, []) if (row["event_date"], row["revision"]) in named)
        found[name] = [row | {"revision": number[row["revision"]]} for row in rows]
    rows = (row for row in tables.get("rejected_events", []) if row["revision"] in number)
    found["rejected_events"] = [row | {"revision": number[row["revision"]]} for row in rows]
    for name in ("sum_generations", "openings"):
        found[name] = [
            row | {"revision_by_day": [(day, number[revision]) for day, revision in row["revision_by_day"]]}
            for row in tables.get(name, [])
        ]
    made = sorted({(row["lineage_id"], row["generation"]) for row in tables.get("sum_generations", [])})
    place = {key: k for k, key in enumerate(made)}
    for name in ("sum_generations", "user_window_sums"):
        rows = (row for row in found.get(name, []) if (row["lineage_id"], row["generation"]) in place)
        found[name] = [row | {"generation": place[row["lineage_id"], row["generation"]]} for row in rows]
    return found


def doubled(root: Path | str) -> list[str]:
    """Name the tables that have two rows with the same key."""
    found = []
    for name, table in _delta_tables(root).items():
        key = KEYS.get("user_features" if name.startswith("user_features_") else name)
        if key:
            columns = table.to_pyarrow_table(columns=list(key)).to_pydict()
            counts = Counter(map(str, zip(*columns.values(), strict=True)))
            twice = [text for text, num in counts.items() if num > 1]
            found += [f"{name}: {len(twice)} keys twice, such as {twice[0]}"] if twice else []
    return found


def visible(root: Path | str) -> dict[str, Summary]:
    """Return what readers of the newest revisions see, without the numbers of revisions and generations.

    Two orders of the same commands may count revisions differently; what a reader gets must be the same.
    """
    tables = tables_of(root)
    days = _newest(tables["tile_days"], ("event_date",), ("revision", "built_at"))
    published = [row for row in tables.get("snapshots", []) if row["state"] == "published"]
    snapshots = _newest(published, ("space_id", "as_of"), ("revision",))
    updates = {tuple(row[name] for name in UPDATE): row for row in tables.get("embedding_updates", [])}
    rows = {
        "tiles": [row for row in tables["user_item_days"] if _is_of(row, days, ("event_date",))],
        "embeddings": [
            row for row in tables.get("user_embeddings", []) if _is_of(row, snapshots, ("space_id", "as_of"))
        ],
        "updates": list(updates.values()),
        **{
            name: of for name, of in tables.items() if name.startswith(("user_features_", "item_vectors", "item_index"))
        },
    }
    but = {"revision", "computed_at", "query_id", "batch_id"}
    return {name: _summary(of, but=but) for name, of in rows.items() if of}


def _newest(rows: list[Row], key: tuple[str, ...], order: tuple[str, ...]) -> dict[tuple[Any, ...], int]:
    """Return the revision of the last row of each key."""
    in_order = sorted(rows, key=lambda row: tuple(row[name] for name in order))
    return {tuple(row[name] for name in key): row["revision"] for row in in_order}


def _is_of(row: Row, revisions: dict[tuple[Any, ...], int], key: tuple[str, ...]) -> bool:
    return revisions.get(tuple(row[name] for name in key)) == row["revision"]


def _summary(rows: list[Row], *, but: set[str]) -> Summary:
    texts = sorted(_text({name: value for name, value in row.items() if name not in but}) for row in rows)
    return len(rows), _hash("\n".join(texts).encode())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _text(value: Any) -> str:
    return json.dumps(
        value, sort_keys=True, default=lambda other: other.hex() if isinstance(other, bytes) else str(other)
    )
