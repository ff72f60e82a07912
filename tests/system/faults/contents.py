"""The contents of a root without clocks: the same after a kill and a second run as after an undisturbed run."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
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
_SEEN = {"tile_days", "user_item_days", "snapshots", "user_embeddings", "embedding_updates"}
_SEEN_WHOLE = ("user_features_", "item_vectors", "item_index")
Row = dict[str, Any]
Rows = pa.Table | list[Row]
Summary = tuple[int, str]  # number of rows, hash


def tables_of(root: Path | str, *names: str) -> dict[str, list[Row]]:
    """Read tables of a folder or a bucket, all by default, each as a list of rows."""
    return {name: table.to_pylist() for name, table in _read(root, lambda name: not names or name in names).items()}


def _read(root: Path | str, is_wanted: Callable[[str], bool]) -> dict[str, pa.Table]:
    return {name: table.to_pyarrow_table() for name, table in _delta_tables(root, is_wanted).items()}


def _delta_tables(root: Path | str, is_wanted: Callable[[str], bool]) -> dict[str, DeltaTable]:
    store, folder = file_system(f"{root}/tables")
    names = sorted(info.base_name for info in store.get_file_info(FileSelector(folder, allow_not_found=True)))
    uris = {name: f"{root}/tables/{name}" for name in names if is_wanted(name)}
    return {name: DeltaTable(uri) for name, uri in uris.items() if DeltaTable.is_deltatable(uri)}


def _listed(tables: dict[str, pa.Table], name: str) -> list[Row]:
    return tables[name].to_pylist() if name in tables else []


def _key_of(name: str) -> tuple[str, ...]:
    return KEYS.get("user_features" if name.startswith("user_features_") else name, ())


def contents(root: Path) -> dict[str, Summary]:
    """Return the number of rows and a hash of each table that is not empty, and a hash of each space's weights."""
    found = {}
    for name, rows in _renumbered(_read(root, lambda name: name not in NOT_COMPARED)).items():
        if len(rows):
            found[name] = _summary(rows, key=_key_of(name), but=CLOCKS.get(name, set()))
    for weights in sorted((root / "artifacts" / "spaces").glob("[!.]*/[!.]*/weights.safetensors")):
        found[weights.parts[-3]] = 1, _hash(weights.read_bytes())
    return found


def _renumbered(tables: dict[str, pa.Table]) -> dict[str, Rows]:
    """Number revisions of tiles and generations of sums without gaps; leave out rows of those that no ledger names.

    A run that was killed leaves such rows, and the next run takes another number.
    """
    found: dict[str, Rows] = dict(tables)
    days = _listed(tables, "tile_days")
    number = {revision: k for k, revision in enumerate(sorted({0} | {row["revision"] for row in days}))}  # 0: streams
    found["tile_days"] = [row | {"revision": number[row["revision"]]} for row in days]
    rejected = (row for row in _listed(tables, "rejected_events") if row["revision"] in number)
    found["rejected_events"] = [row | {"revision": number[row["revision"]]} for row in rejected]
    if "user_item_days" in tables:
        numbers = {(row["event_date"], row["revision"]): number[row["revision"]] for row in days}
        found["user_item_days"] = _numbered(tables["user_item_days"], ("event_date", "revision"), numbers)
    sums, openings = (
        [
            row | {"revision_by_day": [(day, number[revision]) for day, revision in row["revision_by_day"]]}
            for row in _listed(tables, name)
        ]
        for name in ("sum_generations", "openings")
    )
    place = {key: k for k, key in enumerate(sorted({(row["lineage_id"], row["generation"]) for row in sums}))}
    found["openings"] = openings
    found["sum_generations"] = [row | {"generation": place[row["lineage_id"], row["generation"]]} for row in sums]
    if "user_window_sums" in tables:
        found["user_window_sums"] = _numbered(tables["user_window_sums"], ("lineage_id", "generation"), place)
    return found


def _numbered(rows: pa.Table, key: tuple[str, str], numbers: Mapping[tuple[Any, ...], int]) -> pa.Table:
    """Keep the rows whose key has a number, and put the number into the last column of the key."""
    keys = list(zip(*(rows[name].to_pylist() for name in key), strict=True))
    kept = rows.filter(pa.array([row_key in numbers for row_key in keys], pa.bool_()))
    place = rows.schema.get_field_index(key[-1])
    field = rows.schema.field(place)
    values = pa.array([numbers[row_key] for row_key in keys if row_key in numbers], field.type)
    return kept.set_column(place, field, values)


def doubled(root: Path | str) -> list[str]:
    """Name the tables that have two rows with the same key."""
    found = []
    for name, table in _delta_tables(root, lambda name: bool(_key_of(name))).items():
        twice = _repeated(table.to_pyarrow_table(columns=list(_key_of(name))), _key_of(name))
        found += [f"{name}: {len(twice)} keys twice, such as {twice[0]}"] if twice else []
    return found


def _repeated(rows: pa.Table, key: Sequence[str]) -> list[str]:
    if _is_nested(rows, key):  # Arrow does not group by maps
        counts = Counter(map(str, zip(*(rows[name].to_pylist() for name in key), strict=True)))
        return [text for text, num in counts.items() if num > 1]
    groups = rows.group_by(list(key)).aggregate([([], "count_all")]).filter(pc.field("count_all") > 1)
    return [str(tuple(row.values())) for row in groups.select(list(key)).to_pylist()]


def _is_nested(rows: pa.Table, key: Sequence[str]) -> bool:
    return any(pa.types.is_nested(rows.schema.field(name).type) for name in key)


def visible(root: Path | str) -> dict[str, Summary]:
    """Return what readers of the newest revisions see, without the numbers of revisions and generations.

    Two orders of the same commands may count revisions differently; what a reader gets must be the same.
    """
    tables = _read(root, lambda name: name in _SEEN or name.startswith(_SEEN_WHOLE))
    days = _newest(_listed(tables, "tile_days"), ("event_date",), ("revision", "built_at"))
    published = [row for row in _listed(tables, "snapshots") if row["state"] == "published"]
    snapshots = _newest(published, ("space_id", "as_of"), ("revision",))
    updates = {tuple(row[name] for name in UPDATE): row for row in _listed(tables, "embedding_updates")}
    rows: dict[str, Rows] = {
        "tiles": _rows_of(tables["user_item_days"], days, ("event_date",)),
        "updates": list(updates.values()),
        **{name: of for name, of in tables.items() if name.startswith(_SEEN_WHOLE)},
    }
    if "user_embeddings" in tables:
        rows["embeddings"] = _rows_of(tables["user_embeddings"], snapshots, ("space_id", "as_of"))
    keys = {"tiles": KEYS["user_item_days"], "embeddings": KEYS["user_embeddings"]}
    but = {"revision", "computed_at", "query_id", "batch_id"}
    return {name: _summary(of, key=keys.get(name, _key_of(name)), but=but) for name, of in rows.items() if len(of)}


def _newest(rows: list[Row], key: tuple[str, ...], order: tuple[str, ...]) -> dict[tuple[Any, ...], int]:
    """Return the revision of the last row of each key."""
    in_order = sorted(rows, key=lambda row: tuple(row[name] for name in order))
    return {tuple(row[name] for name in key): row["revision"] for row in in_order}


def _rows_of(rows: pa.Table, revisions: dict[tuple[Any, ...], int], key: tuple[str, ...]) -> pa.Table:
    """Keep the rows of these revisions."""
    keys = zip(*(rows[name].to_pylist() for name in key), strict=True)
    pairs = zip(keys, rows["revision"].to_pylist(), strict=True)
    return rows.filter(pa.array([revisions.get(row_key) == revision for row_key, revision in pairs], pa.bool_()))


def _summary(rows: Rows, *, key: Sequence[str], but: set[str]) -> Summary:
    """Count and hash rows in any order: as Parquet sorted by a unique key, or else as sorted texts, which is slow."""
    if isinstance(rows, pa.Table):
        rows = rows.select(sorted(set(rows.column_names) - but))
        key = [name for name in key if name in rows.column_names]
        if key and not _is_nested(rows, key) and not _repeated(rows, key):
            file = pa.BufferOutputStream()
            in_order = rows.sort_by([(name, "ascending") for name in key]).combine_chunks()
            pq.write_table(in_order, file, compression="none", use_dictionary=False, store_schema=False)
            return rows.num_rows, _hash(file.getvalue().to_pybytes())
        rows = rows.to_pylist()
    texts = sorted(_text({name: value for name, value in row.items() if name not in but}) for row in rows)
    return len(rows), _hash("\n".join(texts).encode())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _text(value: Any) -> str:
    return json.dumps(
        value, sort_keys=True, default=lambda other: other.hex() if isinstance(other, bytes) else str(other)
    )
