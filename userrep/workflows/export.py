"""Exports of embeddings, features and item vectors as Parquet folders with a manifest, for readers without Delta."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.types import StructType

from userrep.config import Config
from userrep.errors import UsageError
from userrep.features.build import feature_sets, features_table, read_features
from userrep.features.layout import exported_form
from userrep.features.spec import FeatureSpec
from userrep.items.versions import read_vectors, version_records, versions_of
from userrep.logs import to_stderr
from userrep.model.artifact import load_artifact
from userrep.spaces.registry import Space, artifact_folder
from userrep.spaces.snapshots import newest_snapshot
from userrep.store.export_files import MANIFEST, Part, StoredRows, write_parts, write_parts_here
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import (
    PARTIAL,
    absolute,
    check_writable,
    delete_file,
    file_system,
    folder_names,
    names_in_out,
    write_bytes,
)
from userrep.store.schemas import EXPORTS as EXPORTS_LEDGER
from userrep.store.schemas import ITEM_VECTORS, USER_EMBEDDINGS, TableSchema, fields_of
from userrep.store.tables import Tables, matches
from userrep.utc import utc_now

_MOST_ROWS_HERE = 1_000_000  # Spark writes larger exports


def check_out(out: str) -> None:
    """Check that a folder is empty, missing, or contains only a complete or interrupted export. Changes nothing.

    Raises
    ------
    UsageError
        If the folder has other contents, is a file, or this user may not write there.
    """
    names = [n for n in names_in_out(out) if not n.startswith(f"{PARTIAL}{MANIFEST}-")]  # left by a kill at the start
    foreign = sorted(name for name in names if not _is_export_file(name))
    if names and (foreign or MANIFEST not in names):
        shown = f" ({', '.join(foreign[:3])})" if foreign else ""
        raise UsageError(
            f"--out {out}: the folder is not empty and is not an earlier export{shown}. Choose another folder."
        )


def _is_export_file(name: str) -> bool:
    return name == MANIFEST or re.fullmatch(r"\.?part-.+\.parquet.*", name) is not None


def export_embeddings(
    tables: Tables, config: Config, space: Space, as_of: date, out: str, *, recorded: bool = True
) -> dict[str, Any]:
    """Export the newest revision of a snapshot; return the manifest.

    One row per user: user_id string, as_of date, embedding list<float>, sorted by user_id.
    ``recorded``: record the folder, so that ``userrep forget`` erases users there.
    """
    snapshot = newest_snapshot(tables, space.space_id, as_of)
    rows = _Rows(
        fields_of("user_id STRING, as_of DATE, embedding ARRAY<FLOAT>"),
        snapshot.num_users,
        lambda: tables.read(USER_EMBEDDINGS).where(snapshot.where),
        _files(tables, USER_EMBEDDINGS, snapshot.key),
    )
    manifest = load_artifact(artifact_folder(config, space), space.content_hash).manifest
    details = {
        "space_id": space.space_id,
        "snapshot_id": snapshot.snapshot_id,
        "revision": snapshot.revision,
        "available_at": snapshot.available_at,
        "dimension": manifest.model.latent_dim,
        "named_dimensions": manifest.named_dimensions,
        "metric": "cosine",
    }
    _record(tables, out, "embeddings", as_of, recorded=recorded)
    return _write(rows, out, "embeddings", as_of, details)


def export_features(
    tables: Tables, config: Config, lineage_id: str, as_of: date, out: str, *, recorded: bool = True
) -> dict[str, Any]:
    """Export the user features of a date; return the manifest.

    One row per user: user_id, as_of, one column per block, sorted by user_id.
    ``recorded``: record the folder, so that ``userrep forget`` erases users there.

    Raises
    ------
    UsageError
        If the features of this date are not built.
    """
    built = feature_sets(tables, lineage_id).get(as_of)
    if built is None:
        raise UsageError(f"no features for {as_of}. Run `userrep pipeline --as-of {as_of}` to build them.")
    spec = FeatureSpec.of(config)
    columns = ", ".join(f"`{name}` {kind}" for name, kind in spec.columns() if name != "is_exact")
    rows = _Rows(
        fields_of(f"user_id STRING, as_of DATE, {columns}"),
        built.num_users,
        lambda: read_features(tables, config, lineage_id, [as_of]),
        _files(tables, features_table(config, lineage_id), {"as_of": as_of}),
        partial(exported_form, spec=spec),
    )
    details = {"lineage_id": lineage_id, "windows_days": config.windows_days, "history_days": config.history_window}
    _record(tables, out, "features", as_of, recorded=recorded)
    return _write(rows, out, "features", as_of, details)


def export_item_vectors(tables: Tables, config: Config, lineage_id: str, as_of: date, out: str) -> dict[str, Any]:
    """Export the item vectors that the features of a date use; return the manifest.

    One row per modality and item: modality, item_id, vector. The export contains no users, so it is not recorded.

    Raises
    ------
    UsageError
        If this version of the item vectors is not built.
    """
    versions = versions_of(tables, config, anchor=as_of)
    valid_from = versions.valid_at(as_of)
    if valid_from not in versions.present:
        raise UsageError(f"no item vectors for {as_of}. Run `userrep pipeline --as-of {as_of}` to build them.")
    rows = _Rows(
        fields_of("modality STRING, item_id STRING, vector ARRAY<FLOAT>"),
        sum(version_records(tables, lineage_id)[valid_from].num_vectors.values()),
        lambda: read_vectors(tables, lineage_id, valid_from),
        _files(tables, ITEM_VECTORS, {"lineage_id": lineage_id, "valid_from": valid_from}),
    )
    details = {"lineage_id": lineage_id, "valid_from": valid_from, "fitted_on_events_before": valid_from}
    return _write(rows, out, "item-vectors", as_of, details)


EXPORTS: dict[str, Callable[..., dict[str, Any]]] = {
    "embeddings": export_embeddings,
    "features": export_features,
    "item-vectors": export_item_vectors,
}


class _Rows(NamedTuple):
    """Rows to export: their columns and number, how Spark reads them, and their files if Spark is not needed.

    ``files``: with their partition values; ``convert`` is applied to a batch of them.
    """

    columns: StructType
    num_rows: int
    read: Callable[[], DataFrame]
    files: list[tuple[str, Mapping[str, Any]]] | None = None
    convert: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda batch: batch

    def write(self, folder: str) -> list[Part]:
        """Write sorted parts into a folder. Up to a million rows of files need no Spark, with the same bytes."""
        order = [name for name in ("user_id", "item_id", "modality") if name in self.columns.names]
        if self.files is not None and self.num_rows <= _MOST_ROWS_HERE:
            return write_parts_here(StoredRows(self.files, self._finish), self.columns, folder, order=order)
        return write_parts(self.read().select(self.columns.names), folder, order=order)

    def _finish(self, batch: pa.RecordBatch, values: Mapping[str, Any]) -> pa.RecordBatch:
        rows = self.convert(batch)
        stored = {name: rows.column(name) for name in self.columns.names if name in rows.schema.names}
        constant = {n: pa.repeat(values[n], rows.num_rows) for n in self.columns.names if n not in stored}
        return pa.record_batch(stored | constant).select(self.columns.names)


def _files(tables: Tables, table: TableSchema, key: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]] | None:
    """Return the files of a partition, or None if the tables cannot be read without Spark."""
    if not isinstance(tables, FileTables):
        return None
    return [(f"{tables.uri(table)}/{file.path}", file.values) for file in tables.files(table, matches([key]))]


def _record(tables: Tables, out: str, what: str, as_of: date, *, recorded: bool) -> None:
    """Record the folder of an export before its first row is written, so that erasure can reach it.

    Raises
    ------
    UsageError
        If ``recorded`` and the tables are not writable.
    """
    check_out(out)
    if not recorded:
        return to_stderr(f"export: {out} is not recorded; `userrep forget` will not erase users there")
    try:
        check_writable(tables.artifacts_root)
    except UsageError as error:
        raise UsageError(
            f"{error} userrep records exports there, so that `userrep forget` also erases users in {out}. "
            "Use --unrecorded to export without a record."
        ) from None
    row = {"path": _folder(out), "what": what, "as_of": as_of, "exported_at": utc_now()}
    tables.add(EXPORTS_LEDGER, [row])
    return None


def _write(rows: _Rows, out: str, what: str, as_of: date, details: dict[str, Any]) -> dict[str, Any]:
    """Write sorted rows as Parquet parts, with a manifest that has the SHA-256 of each file; return the manifest.

    The state in the manifest is ``incomplete`` until the last file is written. The next export therefore recognizes
    and replaces a killed one, also in stores without rename.
    """
    check_out(out)
    folder = _folder(out)
    files, path = file_system(folder)
    files.create_dir(path, recursive=True)
    incomplete = {"state": "incomplete", "what": what, "as_of": as_of}
    _write_manifest(folder, incomplete)
    _delete_others(folder, set())
    parts = rows.write(folder)
    _delete_others(folder, {part.name for part in parts})  # leftovers of tasks that Spark ran twice
    manifest = {
        **incomplete,
        "state": "complete",
        "num_rows": sum(part.num_rows for part in parts),
        "columns": {field.name: field.dataType.simpleString() for field in rows.columns},
        **details,
        "exported_at": datetime.now(UTC),
        "sha256": {part.name: part.sha256 for part in parts},
    }
    _write_manifest(folder, manifest)
    return manifest


def _folder(out: str) -> str:
    return absolute(out.rstrip("/") or "/")


def _write_manifest(folder: str, manifest: dict[str, Any]) -> None:
    write_bytes(f"{folder}/{MANIFEST}", json.dumps(manifest, indent=1, default=str).encode())


def _delete_others(folder: str, names: set[str]) -> None:
    for name in folder_names(folder):
        if name not in (MANIFEST, *names) and _is_export_file(name):
            delete_file(f"{folder}/{name}")
