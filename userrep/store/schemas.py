"""Schemas of all tables: grain, columns and layout. This module owns the column names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql.types import StructType


PROPERTIES = {  # of all tables
    # Files are read as plain Parquet, without deletion vectors. User ids must not be in the log's statistics.
    "delta.enableDeletionVectors": "false",
    "delta.dataSkippingNumIndexedCols": "0",
}
# For values that hardly repeat, which dictionaries do not make smaller: speed over size.
_SPEED_OVER_SIZE = (("parquet.enable.dictionary", "false"), ("parquet.compression", "lz4_raw"))


@dataclass(frozen=True)
class TableSchema:
    """A Delta table. ``columns``: DDL with the types above, arrays, maps and decimals. ``grain``: what one row is."""

    name: str
    grain: str
    columns: str
    partition_by: tuple[str, ...] = ()
    properties: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [name for name, _ in _columns(self.columns)]

    def fields(self) -> StructType:
        """Return the Spark schema."""
        return fields_of(self.columns)

    def partition(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return the values of a partition by column."""
        return dict(zip(self.partition_by, values, strict=True))


def fields_of(ddl: str) -> StructType:
    """Parse DDL with the supported types. Unlike Spark's own parser, this needs no session."""
    from pyspark.sql.types import StructType

    return StructType.fromJson({"fields": [{"name": name, "type": _json_type(kind)} for name, kind in _columns(ddl)]})


def _columns(ddl: str) -> list[tuple[str, str]]:
    columns = re.split(r",\s*(?![^<(]*[>)])", ddl)  # at commas outside types
    pairs = (column.split(None, 1) for column in columns)
    return [(name.strip("`"), kind) for name, kind in pairs]


def _json_type(kind: str) -> Any:
    """Return a type of DDL in the JSON form of Spark's schemas."""
    if match := re.fullmatch(r"ARRAY<(.+)>", kind):
        return {"type": "array", "elementType": _json_type(match[1]), "containsNull": True}
    if match := re.fullmatch(r"MAP<(\w+),(.+)>", kind):
        key, value = map(_json_type, match.groups())
        return {"type": "map", "keyType": key, "valueType": value, "valueContainsNull": True}
    return {"INT": "integer", "BIGINT": "long"}.get(kind, kind.lower())


SOURCE_FILES = TableSchema(
    "source_files",
    """one row per file of the event log (or range of versions of a Delta log's change feed), column mapping and UTC day
    of the rows (null for rows without a readable time)""",
    """path STRING, size BIGINT, modified_at TIMESTAMP, mapping STRING, event_date DATE, num_rows BIGINT,
    num_rejected BIGINT, checksum DECIMAL(38,0)""",
)

SOURCE_SCHEMAS = TableSchema(
    "source_schemas",
    "one row per source of the log and schema that it has had; the newest schema is the current one",
    "source STRING, columns MAP<STRING,STRING>, seen_at TIMESTAMP",
)

USER_ITEM_DAYS = TableSchema(
    "user_item_days",
    "one row per UTC day, revision of that day, user, item and event type (the activity tiles)",
    """event_date DATE, revision INT, user_slice STRING, user_bucket INT, user_id STRING, item_id STRING,
    event_type STRING, num_events INT, weight DOUBLE, last_event_at TIMESTAMP, num_night INT, num_morning INT,
    num_afternoon INT, num_evening INT, num_by_context MAP<STRING,BIGINT>""",
    ("event_date", "revision", "user_slice"),
    (
        ("parquet.block.size", str(3 * 2**19)),  # about 15,000 rows: tasks hold one row group of each day
        ("parquet.enable.dictionary#user_bucket", "false"),  # nearly all values are distinct
        ("parquet.enable.dictionary#last_event_at", "false"),
    ),
)

TILE_DAYS = TableSchema(
    "tile_days",
    """one row per UTC day and revision of its tiles (null day: rows without a readable time); the highest revision is
    the current one""",
    """event_date DATE, revision INT, fingerprint STRING, content STRING, num_events BIGINT, num_tiles BIGINT,
    num_rejected BIGINT, num_tiles_by_cell MAP<INT,BIGINT>, built_at TIMESTAMP""",
)

REJECTED_EVENTS = TableSchema(
    "rejected_events",
    "one row per malformed row of the log, under its UTC day or, without a readable time, under the processing day",
    "event_date DATE, revision INT, reason STRING, row STRING",
    ("event_date", "revision"),
)

ITEM_INDEX = TableSchema(
    "item_index",
    "one row per item that a lineage of item vectors has seen, with its dense index",
    "lineage_id STRING, item_id STRING, item_index INT",
    ("lineage_id",),
)

ITEM_VECTORS = TableSchema(
    "item_vectors",
    "one row per lineage, version, modality and item; a version valid from V was fitted on events before V only",
    """lineage_id STRING, valid_from DATE, modality STRING, item_bucket INT, item_id STRING, item_index INT,
    vector ARRAY<FLOAT>""",
    ("lineage_id", "valid_from", "modality"),
    (("parquet.block.size", str(2**23)),),  # small, because reads of item ranges round up to whole row groups
)

ITEM_VECTOR_VERSIONS = TableSchema(
    "item_vector_versions",
    "one row per lineage and complete version of item vectors",
    """lineage_id STRING, valid_from DATE, num_items BIGINT, num_vectors MAP<STRING,BIGINT>, largest DOUBLE,
    built_at TIMESTAMP""",
)

USER_PROFILES = TableSchema(
    "user_profiles",
    "one row per content of users table and picks (content_hash) and user in them",
    """content_hash STRING, user_slice STRING, user_bucket INT, user_id STRING, registered_at TIMESTAMP,
    attributes ARRAY<STRING>, pick_items ARRAY<STRING>, picked_at ARRAY<BIGINT>""",
    ("user_slice",),
    (("parquet.block.size", str(2**22)),),
)

USER_WINDOW_SUMS = TableSchema(
    "user_window_sums",
    "one row per lineage, generation and user with an event in any window, with all sums by ring of windows",
    """lineage_id STRING, generation INT, user_slice STRING, user_bucket INT, user_id STRING, sums BINARY,
    active_at ARRAY<BIGINT>, num_by_context MAP<STRING,BIGINT>""",
    ("lineage_id", "generation", "user_slice"),
    (("parquet.block.size", str(2**23)), *_SPEED_OVER_SIZE),
)

SUM_GENERATIONS = TableSchema(
    "sum_generations",
    "one row per lineage and complete generation of its window sums, with the tile revision of each included day",
    """lineage_id STRING, generation INT, as_of DATE, valid_from DATE, revision_by_day MAP<DATE,INT>, num_users BIGINT,
    built_at TIMESTAMP""",
)

USER_OPENINGS = TableSchema(
    "user_openings",
    """one row per lineage, as-of date and user with an event before the date's open days or with a profile (the stream
    base): the sums of these events by ring relative to the date, empty without events, and the profile""",
    """lineage_id STRING, as_of DATE, user_slice STRING, user_bucket INT, user_id STRING, sums BINARY,
    active_at ARRAY<BIGINT>, num_by_context MAP<STRING,BIGINT>, registered_at TIMESTAMP, attributes ARRAY<STRING>,
    pick_items ARRAY<STRING>, picked_at ARRAY<BIGINT>""",
    ("lineage_id", "as_of", "user_slice"),
    (
        ("delta.dataSkippingStatsColumns", "user_bucket"),
        ("parquet.block.size", str(2**18)),  # about 50 rows, because a stream reads single users
        *_SPEED_OVER_SIZE,
    ),
)

OPENINGS = TableSchema(
    "openings",
    "one row per lineage and as-of date whose stream base is complete",
    """lineage_id STRING, as_of DATE, open_from DATE, valid_from DATE, revision_by_day MAP<DATE,INT>,
    sides_hash STRING, num_users BIGINT, table_version BIGINT, built_at TIMESTAMP""",
)

FEATURE_SETS = TableSchema(
    "feature_sets",
    """one row per lineage and as-of date whose user features are built, with their inputs; while begun_by is set, a
    build is replacing these features""",
    """lineage_id STRING, as_of DATE, valid_from DATE, log_hash STRING, sides_hash STRING, num_buckets INT,
    num_users BIGINT, num_inexact BIGINT, built_at TIMESTAMP, begun_by STRING""",
)

TRAINING_ROWS = TableSchema(
    "training_rows",
    "one row per space and (user, as-of date) pair that it is trained or validated on, scaled and in shuffled order",
    "space_id STRING, split STRING, shard INT, row_key BIGINT, x BINARY",
    ("space_id", "split", "shard"),
    (
        ("parquet.block.size", str(2**23)),
        ("parquet.page.size", str(2**17)),  # small, because a reader of many shards holds one page of each
        *_SPEED_OVER_SIZE,
    ),
)

# change_id, here and in LEASES, is not used. It keeps the stored format.
REGISTRY = TableSchema(
    "registry",
    "one row per embedding space or consumer; the columns of the other kind are null",
    """kind STRING, name STRING, change_id STRING,
    state STRING, lineage_id STRING, trained_until DATE, content_hash STRING, created_at TIMESTAMP,
    changed_at TIMESTAMP, last_turn BIGINT, maps MAP<STRING,STRING>,
    owner STRING, registered_at TIMESTAMP, last_seen_at TIMESTAMP, pinned_space_id STRING, ready_for STRING,
    training_set_id STRING, snapshot_ids ARRAY<STRING>""",
)

USER_EMBEDDINGS = TableSchema(
    "user_embeddings",
    "one row per space, as-of date, revision and user",
    "space_id STRING, as_of DATE, revision INT, user_bucket INT, user_id STRING, embedding ARRAY<FLOAT>",
    ("space_id", "as_of", "revision"),
    (
        ("delta.dataSkippingStatsColumns", "user_bucket"),  # joins read only the files of their users
        ("parquet.block.size", str(2**24)),
        *_SPEED_OVER_SIZE,
    ),
)

SNAPSHOTS = TableSchema(
    "snapshots",
    "one row per snapshot: the ledger of what has been published, and when a consumer could have had it",
    """snapshot_id STRING, space_id STRING, as_of DATE, revision INT, state STRING, inputs_hash STRING,
    num_users BIGINT, available_at TIMESTAMP, computed_at TIMESTAMP, gates STRING, in_sample BOOLEAN,
    begun_by STRING""",
)

EMBEDDING_UPDATES = TableSchema(
    "embedding_updates",
    """one row per space, as-of date, user and stream micro-batch that encoded the user; append-only. A snapshot of the
    same as-of date supersedes these rows""",
    """space_id STRING, as_of DATE, user_id STRING, event_at TIMESTAMP, computed_at TIMESTAMP, query_id STRING,
    batch_id BIGINT, is_new BOOLEAN, embedding ARRAY<FLOAT>""",
    ("space_id", "as_of"),
)

SNAPSHOT_DRIFT = TableSchema(
    "snapshot_drift",
    """one row per snapshot, drift metric and part (a dimension or an input; empty for the whole snapshot), relative to
    the previous snapshot""",
    """snapshot_id STRING, space_id STRING, as_of DATE, before_id STRING, metric STRING, part STRING, value DOUBLE,
    outcome STRING, measured_at TIMESTAMP""",
)

TOMBSTONES = TableSchema(
    "tombstones",
    "one row per erased user, with a keyed hash of the id",
    "user_hash BINARY, key_id STRING, erased_at TIMESTAMP",
)

ERASURES = TableSchema(
    "erasures",
    """one row per erasure request and state that it has reached, the newest of which is current: asked, begun (the
    tombstones are written), deleted (older table versions still have the rows until due_at), done""",
    """request_id STRING, state STRING, requested_at TIMESTAMP, due_at TIMESTAMP, num_users BIGINT,
    receipt STRING, recorded_at TIMESTAMP""",
)

EXPORTS = TableSchema(
    "exports",
    "one row per export of user rows, recorded when it starts",
    "path STRING, what STRING, as_of DATE, exported_at TIMESTAMP",
)

TRAINING_SETS = TableSchema(
    "training_sets",
    "one row per training set and what its labels were joined with; retention keeps the snapshots named here",
    """training_set_id STRING, name STRING, consumer STRING, space_id STRING, snapshot_ids ARRAY<STRING>,
    options STRING, first_label_at TIMESTAMP, last_label_at TIMESTAMP, created_at TIMESTAMP""",
)

LEASES = TableSchema(
    "leases",
    "one row per job with a lease, with its current or last holder; released rows go with the next lease of any job",
    """job STRING, lease_id STRING, run_id STRING, host STRING, machine STRING, pid BIGINT, started_at TIMESTAMP,
    ended_at TIMESTAMP, change_id STRING""",
)

COMMAND_END = "end"  # the stage of the row that a command adds once it has succeeded
JOB_RUNS = TableSchema(
    "job_runs",
    "one row per stage of a run, and one with the stage `end` per command that succeeded",
    """run_id STRING, stage STRING, outcome STRING, reason STRING, started_at TIMESTAMP, seconds DOUBLE,
    num_rows BIGINT, inputs STRING, outputs STRING, config_hash STRING, code_hash STRING""",
)

CONSUMER_RESULTS = TableSchema(
    "consumer_results",
    "one row per training of a consumer's model and input of the model; the example consumer writes it",
    """consumer STRING, space_id STRING, inputs_hash STRING, input STRING, dims INT, auc DOUBLE,
    num_train BIGINT, num_test BIGINT, snapshot_ids ARRAY<STRING>, trained_at TIMESTAMP""",
)

CONSUMER_VERDICTS = TableSchema(
    "consumer_verdicts",
    "one row per recorded comparison of two spaces for a consumer, the newest of which is current; append-only",
    """verdict_id STRING, consumer STRING, old_space_id STRING, new_space_id STRING, verdict STRING, metric STRING,
    difference DOUBLE, low DOUBLE, high DOUBLE, num_labels BIGINT, labels STRING, user_column STRING,
    time_column STRING, model STRING, compared_at TIMESTAMP""",
)

SPACE_METRICS = TableSchema(
    "space_metrics",
    "one row per evaluation of a space, task, metric and representation",
    """evaluation_id STRING, space_id STRING, task STRING, metric STRING, representation STRING, value DOUBLE,
    low DOUBLE, high DOUBLE, value_by_seed ARRAY<DOUBLE>, ahead_by DOUBLE, ahead_low DOUBLE, ahead_high DOUBLE,
    share_ahead DOUBLE, num_test BIGINT, content_hash STRING, config_hash STRING, code_hash STRING,
    evaluated_at TIMESTAMP""",
)

ALL = tuple(table for table in list(vars().values()) if isinstance(table, TableSchema))
_REWRITTEN = (REGISTRY, LEASES)  # by each change, and so always one file; compaction would only cause conflicts
LEDGERS = tuple(t for t in ALL if not t.partition_by and t not in _REWRITTEN)  # small: read whole, compacted into one
USER_FEATURES = "user_features_"  # prefix of the names of the feature tables, one per lineage


def user_features(lineage_id: str, columns: str) -> TableSchema:
    """Return the schema of a lineage's user features. ``columns``: DDL of the feature spec."""
    return TableSchema(
        f"{USER_FEATURES}{lineage_id}",
        "one row per as-of date and user; in pooled, blocks whose flag is not set are zero",
        f"as_of DATE, user_id STRING, {columns}",
        ("as_of",),
        (
            ("parquet.block.size", str(2**23)),  # a task that builds many dates holds one row group of each
            *_SPEED_OVER_SIZE,
        ),
    )
