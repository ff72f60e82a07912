"""Every table of the system: its grain, its columns, how it is laid out. Column names are owned here."""

import re
from dataclasses import dataclass

from pyspark.sql import types as T

PROPERTIES = {  # of all tables
    # Readers of plain Parquet (training) don't see deletion vectors, and user ids stay out of the log's statistics.
    "delta.enableDeletionVectors": "false",
    "delta.dataSkippingNumIndexedCols": "0",
}
_TYPES = {
    kind.simpleString().upper(): kind
    for kind in (
        T.StringType(), T.BinaryType(), T.BooleanType(), T.IntegerType(), T.LongType(), T.FloatType(), T.DoubleType(),
        T.DateType(), T.TimestampType(),
    )
}  # fmt: skip


@dataclass(frozen=True)
class TableSchema:
    """A Delta table. ``columns`` is DDL of the types above, arrays, maps and decimals; ``grain`` says what a row is."""

    name: str
    grain: str
    columns: str
    partition_by: tuple[str, ...] = ()
    properties: tuple[tuple[str, str], ...] = ()

    def fields(self) -> T.StructType:
        """Return the columns as Spark has them."""
        return fields_of(self.columns)


def fields_of(ddl: str) -> T.StructType:
    """Read columns of the types above. Needs no session, as Spark's own reader of DDL does."""
    columns = re.split(r",\s*(?![^<(]*[>)])", ddl)  # at commas that are not within a type
    return T.StructType([T.StructField(*_named(column)) for column in columns])


def _named(column: str) -> tuple[str, T.DataType]:
    name, kind = column.split(None, 1)
    return name.strip("`"), _type(kind)


def _type(text: str) -> T.DataType:
    if found := re.fullmatch(r"ARRAY<(.+)>", text):
        return T.ArrayType(_type(found[1]))
    if found := re.fullmatch(r"MAP<(\w+),(.+)>", text):
        return T.MapType(_type(found[1]), _type(found[2]))
    if found := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", text):
        return T.DecimalType(int(found[1]), int(found[2]))
    return _TYPES[text]


SOURCE_FILES = TableSchema(
    "source_files",
    """one row per file of the event log (or range of versions of a Delta log whose changes were read), meaning of its
    columns, and UTC day of its rows (no day: no readable time)""",
    """path STRING, size BIGINT, modified_at TIMESTAMP, mapping STRING, event_date DATE, num_rows BIGINT,
    num_rejected BIGINT, checksum DECIMAL(38,0)""",
)

SOURCE_SCHEMAS = TableSchema(
    "source_schemas",
    "one row per source of the log and schema that it has had, a column's name to its type; the newest counts",
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
        ("parquet.block.size", str(3 * 2**19)),  # some 15,000 rows: tasks keep one row group of each day
        ("parquet.enable.dictionary#user_bucket", "false"),  # nearly every value is a new one
        ("parquet.enable.dictionary#last_event_at", "false"),
    ),
)

TILE_DAYS = TableSchema(
    "tile_days",
    """one row per UTC day and revision of its tiles: the highest revision counts; fingerprint: of the log's rows or
    files, content: of the tiles; no day: undated rows""",
    """event_date DATE, revision INT, fingerprint STRING, content STRING, num_events BIGINT, num_tiles BIGINT,
    num_rejected BIGINT, num_tiles_by_cell MAP<INT,BIGINT>, built_at TIMESTAMP""",
)

REJECTED_EVENTS = TableSchema(
    "rejected_events",
    "one row per malformed row of the log, under its UTC day (under the day of processing where it has none)",
    "event_date DATE, revision INT, reason STRING, row STRING",
    ("event_date", "revision"),
)

ITEM_INDEX = TableSchema(
    "item_index",
    "one row per item that a lineage of item vectors has met, with its dense number",
    "lineage_id STRING, item_id STRING, item_index INT",
    ("lineage_id",),
)

ITEM_VECTORS = TableSchema(
    "item_vectors",
    "one row per lineage, version, modality and item; a version valid from V has seen events before V only",
    """lineage_id STRING, valid_from DATE, modality STRING, item_bucket INT, item_id STRING, item_index INT,
    vector ARRAY<FLOAT>""",
    ("lineage_id", "valid_from", "modality"),
    (("parquet.block.size", str(2**23)),),  # of a range of item buckets, a row group too much is read of each file
)

ITEM_VECTOR_VERSIONS = TableSchema(
    "item_vector_versions",
    "one row per lineage and version of item vectors that is complete; largest: of all components' absolute values",
    """lineage_id STRING, valid_from DATE, num_items BIGINT, num_vectors MAP<STRING,BIGINT>, largest DOUBLE,
    built_at TIMESTAMP""",
)

USER_PROFILES = TableSchema(
    "user_profiles",
    "one row per user that the users table or the picks name, for one content of these",
    """content_hash STRING, user_slice STRING, user_bucket INT, user_id STRING, registered_at TIMESTAMP,
    attributes ARRAY<STRING>, pick_items ARRAY<STRING>, picked_at ARRAY<BIGINT>""",
    ("user_slice",),
    (("parquet.block.size", str(2**22)),),
)

USER_WINDOW_SUMS = TableSchema(
    "user_window_sums",
    "one row per lineage, generation and user with an event in any window: all sums, by ring of windows",
    """lineage_id STRING, generation INT, user_slice STRING, user_bucket INT, user_id STRING, sums BINARY,
    active_at ARRAY<BIGINT>, num_by_context MAP<STRING,BIGINT>""",
    ("lineage_id", "generation", "user_slice"),
    (
        ("parquet.block.size", str(2**23)),
        ("parquet.enable.dictionary", "false"),
        ("parquet.compression", "lz4_raw"),  # read and written every night: speed before size
    ),
)

SUM_GENERATIONS = TableSchema(
    "sum_generations",
    "one row per lineage and generation of its window sums that is complete: which revision of which day is in them",
    """lineage_id STRING, generation INT, as_of DATE, valid_from DATE, revision_by_day MAP<DATE,INT>, num_users BIGINT,
    built_at TIMESTAMP""",
)

USER_OPENINGS = TableSchema(
    "user_openings",
    """one row per lineage, as-of date and user with an event before the date's open days or with a profile: the sums of
    these events (empty: none), by ring as seen from the date, and the profile""",
    """lineage_id STRING, as_of DATE, user_slice STRING, user_bucket INT, user_id STRING, sums BINARY,
    active_at ARRAY<BIGINT>, num_by_context MAP<STRING,BIGINT>, registered_at TIMESTAMP, attributes ARRAY<STRING>,
    pick_items ARRAY<STRING>, picked_at ARRAY<BIGINT>""",
    ("lineage_id", "as_of", "user_slice"),
    (
        ("delta.dataSkippingStatsColumns", "user_bucket"),
        ("parquet.block.size", str(2**18)),  # a stream reads single users: some fifty rows each time
        ("parquet.enable.dictionary", "false"),
        ("parquet.compression", "lz4_raw"),
    ),
)

OPENINGS = TableSchema(
    "openings",
    """one row per lineage and as-of date whose opening sums are complete. open_from: the first day not in the sums;
    valid_from: the version of the item vectors; table_version: of user_openings""",
    """lineage_id STRING, as_of DATE, open_from DATE, valid_from DATE, revision_by_day MAP<DATE,INT>,
    sides_hash STRING, num_users BIGINT, table_version BIGINT, built_at TIMESTAMP""",
)

FEATURE_SETS = TableSchema(
    "feature_sets",
    """one row per lineage and as-of date whose user features are built, and what they were built from; or (begun_by)
    whose features a build is about to replace""",
    """lineage_id STRING, as_of DATE, valid_from DATE, log_hash STRING, sides_hash STRING, num_users BIGINT,
    num_inexact BIGINT, built_at TIMESTAMP, begun_by STRING""",
)

TRAINING_ROWS = TableSchema(
    "training_rows",
    """one row per user and as-of date that a space is trained or validated on, scaled, in shuffled order; x: inputs,
    then targets, as little-endian float32""",
    "space_id STRING, split STRING, shard INT, row_key BIGINT, x BINARY",
    ("space_id", "split", "shard"),
    (
        ("parquet.block.size", str(2**23)),
        ("parquet.page.size", str(2**17)),  # a reader of many shards has a page of each open
        ("parquet.enable.dictionary", "false"),
        ("parquet.compression", "lz4_raw"),  # read anew in every epoch: speed before size
    ),
)

REGISTRY = TableSchema(
    "registry",
    """one row per embedding space or consumer (kind: space or consumer), which has the columns of its kind; change_id:
    of the newest change of the whole table, the same in all rows""",
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
        ("delta.dataSkippingStatsColumns", "user_bucket"),  # joins open the files of their users alone
        ("parquet.block.size", str(2**24)),
        ("parquet.enable.dictionary", "false"),  # neither ids nor numbers repeat
        ("parquet.compression", "lz4_raw"),  # numbers hardly get smaller: speed before size
    ),
)

SNAPSHOTS = TableSchema(
    "snapshots",
    "one row per snapshot: the ledger that says what has been published, and since when a consumer could have had it",
    """snapshot_id STRING, space_id STRING, as_of DATE, revision INT, state STRING, inputs_hash STRING,
    num_users BIGINT, available_at TIMESTAMP, computed_at TIMESTAMP, gates STRING, in_sample BOOLEAN,
    begun_by STRING""",
)

EMBEDDING_UPDATES = TableSchema(
    "embedding_updates",
    """one row per space, as-of date, user and batch of a stream that has encoded the user anew; append-only. event_at:
    the newest event in it. is_new: nothing was known of the user when the day was opened. A snapshot of the same as-of
    date is the newer""",
    """space_id STRING, as_of DATE, user_id STRING, event_at TIMESTAMP, computed_at TIMESTAMP, query_id STRING,
    batch_id BIGINT, is_new BOOLEAN, embedding ARRAY<FLOAT>""",
    ("space_id", "as_of"),
)

SNAPSHOT_DRIFT = TableSchema(
    "snapshot_drift",
    """one row per snapshot, metric and part (empty: the whole; else a dimension or an input): how far it moved from the
    snapshot before it; outcome: ok, warn or fail, of wholes""",
    """snapshot_id STRING, space_id STRING, as_of DATE, before_id STRING, metric STRING, part STRING, value DOUBLE,
    outcome STRING, measured_at TIMESTAMP""",
)

TOMBSTONES = TableSchema(
    "tombstones",
    "one row per user who was erased: a keyed hash of the id; key_id tells the key",
    "user_hash BINARY, key_id STRING, erased_at TIMESTAMP",
)

ERASURES = TableSchema(
    "erasures",
    """one row per state that a request to forget users has had, the newest counts: asked, begun (tombstones are up),
    deleted (older versions still hold rows, to be removed after due_at), done. receipt: JSON, without ids""",
    """request_id STRING, state STRING, requested_at TIMESTAMP, due_at TIMESTAMP, num_users BIGINT,
    receipt STRING, recorded_at TIMESTAMP""",
)

EXPORTS = TableSchema(
    "exports",
    "one row per export of rows of users that was begun: where its files are",
    "path STRING, what STRING, as_of DATE, exported_at TIMESTAMP",
)

TRAINING_SETS = TableSchema(
    "training_sets",
    "one row per training set: what its labels were joined with. The snapshots named here are kept",
    """training_set_id STRING, name STRING, consumer STRING, space_id STRING, snapshot_ids ARRAY<STRING>,
    options STRING, first_label_at TIMESTAMP, last_label_at TIMESTAMP, created_at TIMESTAMP""",
)

LEASES = TableSchema(
    "leases",
    """one row per job that has run: who has it, or had it last (ended_at); machine: where the process id means the
    same; change_id: of the newest change of the whole table, the same in all rows""",
    """job STRING, lease_id STRING, run_id STRING, host STRING, machine STRING, pid BIGINT, started_at TIMESTAMP,
    ended_at TIMESTAMP, change_id STRING""",
)

JOB_RUNS = TableSchema(
    "job_runs",
    "one row per stage of a run",
    """run_id STRING, stage STRING, outcome STRING, reason STRING, started_at TIMESTAMP, seconds DOUBLE,
    num_rows BIGINT, inputs STRING, outputs STRING, config_hash STRING, code_hash STRING""",
)

CONSUMER_RESULTS = TableSchema(
    "consumer_results",
    "one row per training of the example consumer and input that it was trained on",
    """consumer STRING, space_id STRING, inputs_hash STRING, input STRING, dims INT, auc DOUBLE,
    num_train BIGINT, num_test BIGINT, snapshot_ids ARRAY<STRING>, trained_at TIMESTAMP""",
)

SPACE_METRICS = TableSchema(
    "space_metrics",
    """one row per evaluation of a space, task, metric and representation; the ends are those of 90 % intervals;
    ahead_by: of the embedding, over this representation (null for itself)""",
    """evaluation_id STRING, space_id STRING, task STRING, metric STRING, representation STRING, value DOUBLE,
    low DOUBLE, high DOUBLE, value_by_seed ARRAY<DOUBLE>, ahead_by DOUBLE, ahead_low DOUBLE, ahead_high DOUBLE,
    share_ahead DOUBLE, num_test BIGINT, content_hash STRING, config_hash STRING, code_hash STRING,
    evaluated_at TIMESTAMP""",
)

ALL = (
    SOURCE_FILES, SOURCE_SCHEMAS, USER_ITEM_DAYS, TILE_DAYS, REJECTED_EVENTS, ITEM_INDEX, ITEM_VECTORS,
    ITEM_VECTOR_VERSIONS, USER_PROFILES, USER_WINDOW_SUMS, SUM_GENERATIONS, USER_OPENINGS, OPENINGS, FEATURE_SETS,
    TRAINING_ROWS, REGISTRY, USER_EMBEDDINGS, SNAPSHOTS, EMBEDDING_UPDATES, TRAINING_SETS, LEASES, JOB_RUNS,
    CONSUMER_RESULTS, SPACE_METRICS, SNAPSHOT_DRIFT, TOMBSTONES, ERASURES, EXPORTS,
)  # fmt: skip


USER_FEATURES = "user_features_"  # begins the names of the tables of features, one for each lineage


def user_features(lineage_id: str, columns: str) -> TableSchema:
    """Return the schema of one lineage's user features; its columns follow from the feature spec."""
    return TableSchema(
        f"{USER_FEATURES}{lineage_id}",
        """one row per as-of date and user; pooled: the vectors of all pooled blocks in the order of their flags, as
        little-endian float32, zeros where a flag is not set""",
        f"as_of DATE, user_id STRING, {columns}",
        ("as_of",),
        (
            ("parquet.block.size", str(2**23)),  # a task that makes many dates holds as much of each
            ("parquet.enable.dictionary", "false"),  # numbers hardly repeat: half the time to write, the same size
            ("parquet.compression", "lz4_raw"),  # written and read every night: speed before size
        ),
    )
