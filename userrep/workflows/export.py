"""Exports of embeddings, features and item vectors as Parquet folders with a manifest, for readers without Delta."""

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.sql.types import StructType

from userrep.config import Config, Storage
from userrep.errors import UsageError, changed_meanwhile
from userrep.features.layout import exported_form
from userrep.features.ledger import feature_sets, features_table
from userrep.features.preflight import log_days
from userrep.features.spec import FeatureSpec
from userrep.items.versions import lineage_of, version_records, versions_of
from userrep.model.artifact import load_artifact
from userrep.sources.listing import Listings
from userrep.spaces.registry import Space, artifact_folder
from userrep.spaces.snapshots import newest_snapshot
from userrep.store.data_files import matches
from userrep.store.export_files import Part, write_parts, write_parts_here
from userrep.store.export_folder import recorded_folder, write_folder_of_parts
from userrep.store.file_tables import FileTables
from userrep.store.schemas import ITEM_VECTORS, USER_EMBEDDINGS, TableSchema, fields_of
from userrep.store.tables import Tables
from userrep.store.vector_storage import VectorStorage

MOST_ROWS_HERE = 1_000_000  # Spark writes larger exports


def export_embeddings(
    tables: Tables, config: Config, space: Space, as_of: date, out: str, *, storage: Storage = "float32",
    recorded: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Export the newest revision of a snapshot; return the manifest.

    One row per user: user_id string, as_of date, embedding, sorted by user_id. ``storage``: type of the vectors:
    list<float>, list<halffloat>, or list<int8> with a scale per dimension in manifest and column metadata.
    ``recorded``: record the folder, so that ``userrep forget`` erases users there.
    """
    snapshot = newest_snapshot(tables, space.space_id, as_of, why_never=partial(_why_never, config, as_of))
    artifact = load_artifact(artifact_folder(tables, space), space.content_hash)
    rows = ExportedRows(
        USER_EMBEDDINGS,
        snapshot.key,
        snapshot.num_users,
        fields_of("user_id STRING, as_of DATE, embedding ARRAY<FLOAT>"),
        storage=artifact.storage(storage),
    )
    manifest = artifact.manifest
    details = {
        "space_id": space.space_id,
        "snapshot_id": snapshot.snapshot_id,
        "revision": snapshot.revision,
        "available_at": snapshot.available_at,
        "dimension": manifest.model.latent_dim,
        "named_dimensions": manifest.named_dimensions,
        "taste_dimensions": manifest.taste_dimensions,
        "metric": "cosine",
        "storage": storage,
        **({"scales": manifest.int8_scales} if storage == "int8" else {}),
    }
    with recorded_folder(tables, out, "embeddings", as_of, recorded=recorded):
        return _write(tables, rows, out, as_of, what="embeddings", details=details)


def export_features(tables: Tables, config: Config, as_of: date, out: str, *, recorded: bool = True) -> dict[str, Any]:
    """Export the user features of a date, in the configuration's lineage; return the manifest.

    One row per user: user_id, as_of, one column per block, sorted by user_id.
    ``recorded``: record the folder, so that ``userrep forget`` erases users there.

    Raises
    ------
    UsageError
        If the features of this date are not built.
    """
    lineage_id = lineage_of(config)
    built = feature_sets(tables, lineage_id).get(as_of)
    if built is None:
        raise _missing("features", config, as_of)
    spec = FeatureSpec.of(config)
    columns = ", ".join(f"`{name}` {kind}" for name, kind in spec.columns() if name != "is_exact")
    rows = ExportedRows(
        features_table(config, lineage_id),
        {"as_of": as_of},
        built.num_users,
        fields_of(f"user_id STRING, as_of DATE, {columns}"),
        partial(exported_form, spec=spec),
    )
    details = {"lineage_id": lineage_id, "windows_days": config.windows_days, "history_days": config.history_window}
    with recorded_folder(tables, out, "features", as_of, recorded=recorded):
        return _write(tables, rows, out, as_of, what="features", details=details)


def export_item_vectors(tables: Tables, config: Config, as_of: date, out: str) -> dict[str, Any]:
    """Export the item vectors that the features of a date use; return the manifest.

    One row per modality and item: modality, item_id, vector. The export contains no users, so it is not recorded.

    Raises
    ------
    UsageError
        If this version of the item vectors is not built.
    """
    versions = versions_of(tables, config, anchor=as_of)
    lineage_id, valid_from = versions.lineage_id, versions.valid_at(as_of)
    if valid_from not in versions.present:
        raise _missing("item vectors", config, as_of)
    rows = ExportedRows(
        ITEM_VECTORS,
        {"lineage_id": lineage_id, "valid_from": valid_from},
        sum(version_records(tables, lineage_id)[valid_from].num_vectors.values()),
        fields_of("modality STRING, item_id STRING, vector ARRAY<FLOAT>"),
    )
    details = {"lineage_id": lineage_id, "valid_from": valid_from, "fitted_on_events_before": valid_from}
    return _write(tables, rows, out, as_of, what="item-vectors", details=details)


def _missing(what: str, config: Config, as_of: date) -> UsageError:
    cure = _why_never(config, as_of) or f"Run `userrep pipeline --as-of {as_of}` to build them."
    return UsageError(f"no {what} for {as_of}. {cure}")


def _why_never(config: Config, as_of: date) -> str | None:
    """Return why no run can build a date outside the log, if the log's days are known without Spark."""
    first, last = log_days(config, Listings())
    if first and as_of <= first:
        return f"The log starts on {first}. Choose a later date."
    if last and as_of > last + timedelta(days=1):
        return f"The log ends on {last}. Choose {last + timedelta(days=1)} or earlier."
    return None


class ExportedRows(NamedTuple):
    """The rows of an export: those of a partition of a table, in the ``columns`` of the export.

    ``convert`` is applied to batches of the stored rows. ``storage``: type of the vectors in the column ``embedding``,
    if there is one.
    """

    table: TableSchema
    key: Mapping[str, Any]
    num_rows: int
    columns: StructType
    convert: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None
    storage: VectorStorage = VectorStorage()

    @property
    def column_types(self) -> dict[str, str]:
        """The types of the columns in the files, by name."""
        return {field.name: field.dataType.simpleString() for field in self.columns} | self.storage.column_types

    def write(self, tables: Tables, folder: str) -> list[Part]:
        """Write sorted parts into a folder. Up to a million rows of files need no Spark, with the same bytes.

        The rows are those of the moment of this call. Call it after the folder is recorded: an erasure that ended
        before has then removed its users from the table, and a later one finds the folder.

        Raises UserrepError if the rows have expired since the caller has looked them up.
        """
        order = [name for name in ("user_id", "item_id", "modality") if name in self.columns.names]
        if isinstance(tables, FileTables) and self.num_rows <= MOST_ROWS_HERE:
            files = tables.files(self.table, matches([self.key]))
            parts = write_parts_here(files, self._exported, self.columns, folder, order=order, storage=self.storage)
        else:
            rows = tables.read(self.table, [self.key])
            if self.convert is not None:
                rows = rows.mapInArrow(lambda batches: (self._exported(batch, {}) for batch in batches), self.columns)
            parts = write_parts(rows.select(self.columns.names), folder, order=order, storage=self.storage)
        if self.num_rows and not any(part.num_rows for part in parts):
            raise changed_meanwhile(self.table.name)
        return parts

    def _exported(self, batch: pa.RecordBatch, partition: Mapping[str, Any]) -> pa.RecordBatch:
        """Convert a batch of stored rows. ``partition``: values of the columns that a table's files do not have."""
        rows = self.convert(batch) if self.convert else batch
        stored = {name: rows.column(name) for name in self.columns.names if name in rows.schema.names}
        constant = {n: pa.repeat(partition[n], rows.num_rows) for n in self.columns.names if n not in stored}
        return pa.record_batch(stored | constant).select(self.columns.names)


def _write(
    tables: Tables, rows: ExportedRows, out: str, as_of: date, *, what: str, details: dict[str, Any]
) -> dict[str, Any]:
    """Write sorted rows as Parquet parts with a manifest; return the manifest."""
    write = partial(rows.write, tables)
    return write_folder_of_parts(out, what, as_of, columns=rows.column_types, details=details, write=write)
