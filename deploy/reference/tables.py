"""The reference page on tables: grain, key, columns and writers, from userrep/store/schemas.py."""

from deploy.reference.markdown import MADE, linked, table
from userrep.features.spec import FeatureSpec
from userrep.store import schemas
from userrep.store.data_dictionary import column_meaning
from userrep.store.schemas import TableSchema

_BEGIN = """
userrep keeps Delta tables below `root/tables`, or in `catalog.schema`. Times are UTC. Small tables, the ledgers, name
the valid rows of the large tables, so read large tables through userrep (`read_features`, `join_embeddings`, `userrep
export`). Each section names the jobs that write the table. `pipeline` runs the jobs of the batch, `forget` deletes rows
from all tables, and `maintain_tables` removes files that nothing needs. `DESCRIBE` also shows the meanings of columns.
"""
_FEATURES_SPEC = FeatureSpec(
    windows_days=[7, 30, 180], history_days=360, modalities={"behaviour": 80}, onboarding=True, registered_at=True,
    attributes=["country"], context=["device"],
)  # fmt: skip

_TILES = "`build_activity_tiles`"
_VECTORS = "`train_item_vectors`"
_FEATURES = "`build_user_features`, `daily`"
_SUMS = "`daily`"
_STREAM_READY = "`daily`, if the configuration has a section `stream`"
_SNAPSHOTS = "`embed_users`, `daily`, `backfill`"

# Key columns of each table, and the commands or jobs that add rows. `pipeline` runs the batch jobs; `forget` deletes
# rows from all tables.
KEYS_AND_WRITERS: dict[str, tuple[tuple[str, ...], str]] = {
    "source_files": (("path", "mapping", "event_date"), "each command that reads the log"),
    "source_schemas": (("source", "seen_at"), "each command that reads the log"),
    "user_item_days": (("event_date", "revision", "user_id", "item_id", "event_type"), _TILES),
    "tile_days": (("event_date", "revision"), _TILES),
    "rejected_events": ((), f"{_TILES}, `stream`"),
    "item_index": (("lineage_id", "item_id"), _VECTORS),
    "item_vectors": (("lineage_id", "valid_from", "modality", "item_id"), _VECTORS),
    "item_vector_versions": (("lineage_id", "valid_from"), _VECTORS),
    "user_profiles": (("content_hash", "user_id"), _FEATURES),
    "user_window_sums": (("lineage_id", "generation", "user_id"), _SUMS),
    "sum_generations": (("lineage_id", "generation"), _SUMS),
    "user_openings": (("lineage_id", "as_of", "user_id"), _STREAM_READY),
    "openings": (("lineage_id", "as_of"), _STREAM_READY),
    "feature_sets": (("lineage_id", "as_of"), _FEATURES),
    "training_rows": (("space_id", "split", "shard", "row_key"), "`train_autoencoder`"),
    "registry": (("kind", "name"), "`train_autoencoder`, `publish_snapshot`, `spaces`, `consumers`"),
    "user_embeddings": (("space_id", "as_of", "revision", "user_id"), _SNAPSHOTS),
    "snapshots": (("snapshot_id",), f"{_SNAPSHOTS}; `publish_snapshot` sets the state"),
    "embedding_updates": (("space_id", "as_of", "user_id", "query_id", "batch_id"), "`stream`"),
    "training_sets": (("training_set_id",), "`create_training_set` (docs/how-to/joins.md)"),
    "job_runs": (("run_id", "stage", "started_at"), "every stage and command"),
    "consumer_results": (("space_id", "inputs_hash", "input"), "`train_return_propensity`"),
    "consumer_verdicts": (("verdict_id",), "`spaces compare --consumer`, `nightly`"),
    "space_metrics": (("evaluation_id", "task", "metric", "representation"), "`evaluate`"),
    "snapshot_drift": (("snapshot_id", "metric", "part"), "`monitor_drift`, `daily`"),
    "tombstones": (("user_hash",), "`forget`"),
    "leases": (("job",), "each command or job that changes tables"),
    "erasures": (("request_id", "recorded_at"), "`forget`"),
    "exports": (("path", "exported_at"), "`export`"),
}


def tables_page() -> list[str]:
    """Return the lines of the page: a section for each table."""
    lines = ["# Tables", "", MADE, *_BEGIN.rstrip().splitlines()]
    for schema in schemas.ALL:
        keys, writers = KEYS_AND_WRITERS[schema.name]
        lines += _section(schema, keys, writers, schema.name)
    features = schemas.user_features("LINEAGE", _FEATURES_SPEC.ddl())
    lines += _section(features, ("as_of", "user_id"), "`build_user_features`, `daily`", features.name)
    lines += [
        "",
        "These are the columns for windows of 7, 30 and 180 days with a history of 360 days, one modality of item",
    ]
    lines += [
        "vectors, onboarding picks, registrations, an attribute `country` and a context column. `read_features` and"
    ]
    lines += ["exports have one list of floats per pooled block instead of `pooled`."]
    return lines


def explained(table_name: str, column: str) -> str:
    """Return the meaning of a column. Raises ValueError if it is not in the data dictionary."""
    text = column_meaning(table_name, column)
    if text is None:
        raise ValueError(f"{table_name}.{column}: say in userrep/store/data_dictionary.py what it means.")
    return text


def _section(schema: TableSchema, keys: tuple[str, ...], writers: str, heading: str) -> list[str]:
    grain = " ".join(schema.grain.split())
    facts = [f"Key: {', '.join(f'`{key}`' for key in keys)}." if keys else "Key: none."]
    if schema.partition_by:
        facts.append(f"Partitioned by {', '.join(f'`{name}`' for name in schema.partition_by)}.")
    names = schema.names
    if "user_bucket" in names:
        facts.append("Files are sorted by `user_bucket`.")
    facts.append(f"Written by {linked(writers)}.")
    rows = [
        [f"`{field.name}`", field.dataType.simpleString(), explained(schema.name, field.name)]
        for field in schema.fields()
    ]
    head = ["column", "type", "meaning"]
    return ["", f"## {heading}", "", f"{grain[0].upper()}{grain[1:]}.", "", " ".join(facts), "", *table(head, rows)]
