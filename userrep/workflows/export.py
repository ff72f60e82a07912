"""Exports: Parquet folders with a manifest beside the data, for whoever does not read Delta."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.sql import DataFrame

from userrep.config import Config
from userrep.errors import UsageError
from userrep.features.build import feature_sets, features_table, read_features
from userrep.features.layout import in_lists
from userrep.features.spec import FeatureSpec
from userrep.items.versions import made_versions, read_vectors, versions_of
from userrep.logs import to_stderr
from userrep.model.artifact import load_artifact
from userrep.spaces.registry import Space, artifact_folder
from userrep.spaces.snapshots import newest_snapshot
from userrep.store.file_tables import FileTables
from userrep.store.parquet_parts import MANIFEST, StoredRows, write_parts, write_parts_here
from userrep.store.schemas import EXPORTS as EXPORTS_LEDGER
from userrep.store.schemas import ITEM_VECTORS, USER_EMBEDDINGS, TableSchema, fields_of
from userrep.store.storage import (
    absolute,
    check_writable,
    delete_file,
    file_system,
    folder_names,
    names_in_out,
    staged_name,
    write_bytes,
)
from userrep.store.tables import Tables, matches
from userrep.utc import utc_now

_MOST_ROWS_HERE = 1_000_000  # above, Spark writes an export


def check_out(out: str) -> None:
    """Refuse to write into a folder that holds anything but an export, whole or cut off. Nothing is made or changed.

    Raises
    ------
    UsageError
        If the folder has other contents, is a file, or lies where this user may not write.
    """
    names = names_in_out(out)
    names = [name for name in names if not name.startswith(staged_name(MANIFEST))]  # killed before anything else
    foreign = sorted(name for name in names if not _is_of_an_export(name))
    if names and (foreign or MANIFEST not in names):
        found = f" ({', '.join(foreign[:3])})" if foreign else ""
        raise UsageError(f"--out {out}: the folder is not empty and holds no earlier export{found}; name another one.")


def _is_of_an_export(name: str) -> bool:
    return name == MANIFEST or re.fullmatch(r"\.?part-.+\.parquet.*", name) is not None


def export_embeddings(
    tables: Tables, config: Config, space: Space, as_of: date, out: str, *, recorded: bool = True
) -> dict[str, Any]:
    """Write the newest revision of a snapshot: user_id, as_of, embedding. Returns the manifest."""
    snapshot = newest_snapshot(tables, space.space_id, as_of)

    def finish(batch: pa.RecordBatch, values: Mapping[str, Any]) -> pa.RecordBatch:
        return batch.select(["user_id", "embedding"]).add_column(
            1, "as_of", pa.repeat(pa.scalar(values["as_of"]), batch.num_rows)
        )

    rows = _Rows(
        "user_id STRING, as_of DATE, embedding ARRAY<FLOAT>",
        lambda: tables.read(USER_EMBEDDINGS).where(snapshot.where).select("user_id", "as_of", "embedding"),
        _stored(tables, USER_EMBEDDINGS, snapshot.key, finish),
    )
    manifest = load_artifact(artifact_folder(config, space), space.content_hash).manifest
    about = {
        "space_id": space.space_id,
        "snapshot_id": snapshot.snapshot_id,
        "revision": snapshot.revision,
        "available_at": snapshot.available_at,
        "dimension": manifest.model.latent_dim,
        "named_dimensions": manifest.named_dimensions,
        "metric": "cosine",
    }
    _record(tables, out, "embeddings", as_of, recorded=recorded)
    return _write(rows, out, "embeddings", as_of, about, order=["user_id"], num_rows=snapshot.num_users)


def export_features(
    tables: Tables, config: Config, lineage_id: str, as_of: date, out: str, *, recorded: bool = True
) -> dict[str, Any]:
    """Write the user features of a date: user_id, as_of, one column per block. Returns the manifest.

    Raises
    ------
    UsageError
        If they are not built.
    """
    built = feature_sets(tables, lineage_id).get(as_of)
    if built is None:
        raise UsageError(f"no features of {as_of}: `userrep pipeline --as-of {as_of}` builds them.")
    spec = FeatureSpec.of(config)
    columns = {name: kind for name, kind in spec.columns() if name != "is_exact"}

    def finish(batch: pa.RecordBatch, values: Mapping[str, Any]) -> pa.RecordBatch:
        features = in_lists(batch, spec).select(["user_id", *columns])
        return features.add_column(1, "as_of", pa.repeat(pa.scalar(values["as_of"]), batch.num_rows))

    rows = _Rows(
        ", ".join(["user_id STRING, as_of DATE", *(f"`{name}` {kind}" for name, kind in columns.items())]),
        lambda: read_features(tables, config, lineage_id, [as_of]).select("user_id", "as_of", *columns),
        _stored(tables, features_table(config, lineage_id), {"as_of": as_of}, finish),
    )
    about = {"lineage_id": lineage_id, "windows_days": config.windows_days, "history_days": config.history_window}
    _record(tables, out, "features", as_of, recorded=recorded)
    return _write(rows, out, "features", as_of, about, order=["user_id"], num_rows=built.num_users)


def export_item_vectors(tables: Tables, config: Config, lineage_id: str, as_of: date, out: str) -> dict[str, Any]:
    """Write the item vectors that features of a date use: modality, item_id, vector. Returns the manifest.

    There are no users in it, so it is not recorded.

    Raises
    ------
    UsageError
        If the version is not there.
    """
    versions = versions_of(tables, config, anchor=as_of)
    valid_from = versions.valid_at(as_of)
    if valid_from not in versions.present:
        raise UsageError(f"no item vectors for {as_of}: `userrep pipeline --as-of {as_of}` builds them.")

    def finish(batch: pa.RecordBatch, values: Mapping[str, Any]) -> pa.RecordBatch:
        return batch.select(["item_id", "vector"]).add_column(
            0, "modality", pa.repeat(values["modality"], batch.num_rows)
        )

    rows = _Rows(
        "modality STRING, item_id STRING, vector ARRAY<FLOAT>",
        lambda: read_vectors(tables, lineage_id, valid_from).select("modality", "item_id", "vector"),
        _stored(tables, ITEM_VECTORS, {"lineage_id": lineage_id, "valid_from": valid_from}, finish),
    )
    num_vectors = sum(made_versions(tables, lineage_id)[valid_from].num_vectors.values())
    about = {"lineage_id": lineage_id, "valid_from": valid_from, "fitted_on_events_before": valid_from}
    return _write(rows, out, "item-vectors", as_of, about, order=["item_id", "modality"], num_rows=num_vectors)


EXPORTS: dict[str, Callable[..., dict[str, Any]]] = {
    "embeddings": export_embeddings,
    "features": export_features,
    "item-vectors": export_item_vectors,
}


def _record(tables: Tables, out: str, what: str, as_of: date, *, recorded: bool) -> None:
    """Record where rows of users go, before the first does: who is erased is erased there too.

    Raises
    ------
    UsageError
        If the export is to be ``recorded`` and the tables cannot be written to.
    """
    check_out(out)
    if not recorded:
        return to_stderr(f"export: {out} is not recorded; `userrep forget` will not erase users there")
    try:
        check_writable(tables.artifacts_root)
    except UsageError as error:
        raise UsageError(
            f"{error} The export is to be recorded there, so that `userrep forget` erases users in {out}, too; "
            "--unrecorded exports without a record."
        ) from None
    row = {"path": absolute(out.rstrip("/") or "/"), "what": what, "as_of": as_of, "exported_at": utc_now()}
    tables.add(EXPORTS_LEDGER, [row])
    return None


class _Rows(NamedTuple):
    """Rows to export: their columns as DDL, how Spark reads them, and the files that have them, if any may be read."""

    ddl: str
    read: Callable[[], DataFrame]
    stored: StoredRows | None = None


def _stored(
    tables: Tables,
    table: TableSchema,
    key: Mapping[str, Any],
    finish: Callable[[pa.RecordBatch, Mapping[str, Any]], pa.RecordBatch],
) -> StoredRows | None:
    """Name the files of a partition; None where they cannot be read beside Spark."""
    if not isinstance(tables, FileTables):
        return None
    files = tables.files(table, matches([key]))
    return StoredRows([(f"{tables.uri(table)}/{file.path}", file.values) for file in files], finish)


def _write(
    rows: _Rows,
    out: str,
    what: str,
    as_of: date,
    about: dict[str, Any],
    *,
    order: list[str],
    num_rows: int,
) -> dict[str, Any]:
    """Write rows as Parquet, in parts by the first column of ``order``, with a manifest that names each file's SHA-256.

    Up to a million rows of files (``num_rows``) are written by this process, without Spark: the same bytes.

    From before the first file to after the last one the manifest says ``incomplete``: an export that was killed is
    known as one, and the next takes its place. That holds where nothing can be renamed, too.
    """
    check_out(out)
    folder = absolute(out.rstrip("/") or "/")
    files, path = file_system(folder)
    files.create_dir(path, recursive=True)
    begun = {"state": "incomplete", "what": what, "as_of": as_of}
    _write_manifest(folder, begun)
    _delete_others(folder, set())
    columns = fields_of(rows.ddl)
    if rows.stored is not None and num_rows <= _MOST_ROWS_HERE:
        parts = write_parts_here(rows.stored, columns, folder, order=order)
    else:
        parts = write_parts(rows.read(), folder, order=order)
    _delete_others(folder, {part.name for part in parts})  # what a task has left that was run twice
    manifest = {
        **begun,
        "state": "complete",
        "num_rows": sum(part.num_rows for part in parts),
        "columns": {field.name: field.dataType.simpleString() for field in columns},
        **about,
        "exported_at": datetime.now(UTC),
        "sha256": {part.name: part.sha256 for part in parts},
    }
    _write_manifest(folder, manifest)
    return manifest


def _write_manifest(folder: str, manifest: dict[str, Any]) -> None:
    write_bytes(f"{folder}/{MANIFEST}", json.dumps(manifest, indent=1, default=str).encode())


def _delete_others(folder: str, names: set[str]) -> None:
    for name in folder_names(folder):
        if name not in (MANIFEST, *names) and _is_of_an_export(name):
            delete_file(f"{folder}/{name}")
