"""The tables that each stage reads and writes, and what their columns are computed from, for OpenLineage events."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from userrep.config import Config, Source
from userrep.features.ledger import features_table
from userrep.items.versions import lineage_of
from userrep.store import schemas
from userrep.store.filesystem import absolute
from userrep.store.schemas import TableSchema
from userrep.store.tables import Tables
from userrep.tracking.lineage import StageFacts

_READS_LOG = ("take_inventory", "build_activity_tiles")
_READS_PROFILES = ("build_user_features", "refresh_user_features")
_WRITES = {
    "take_inventory": (schemas.SOURCE_FILES,),
    "build_activity_tiles": (schemas.USER_ITEM_DAYS, schemas.TILE_DAYS, schemas.REJECTED_EVENTS),
    "train_item_vectors": (schemas.ITEM_VECTORS, schemas.ITEM_VECTOR_VERSIONS),
    "build_user_features": (schemas.FEATURE_SETS, schemas.USER_WINDOW_SUMS),
    "refresh_user_features": (schemas.FEATURE_SETS, schemas.USER_WINDOW_SUMS),
    "train_autoencoder": (schemas.TRAINING_ROWS, schemas.REGISTRY),
    "embed_users": (schemas.USER_EMBEDDINGS, schemas.SNAPSHOTS),
    "monitor_drift": (schemas.SNAPSHOT_DRIFT,),
    "publish_snapshot": (schemas.SNAPSHOTS, schemas.REGISTRY),
    "promote": (schemas.REGISTRY,),
    "open_days": (schemas.USER_OPENINGS, schemas.OPENINGS),
    "stream_embeddings": (schemas.EMBEDDING_UPDATES,),
    "evaluate_space": (schemas.SPACE_METRICS,),
    "compare_spaces": (schemas.CONSUMER_VERDICTS, schemas.REGISTRY),
}
_TILES, _PROFILES = schemas.USER_ITEM_DAYS, schemas.USER_PROFILES
# Feature columns by the start of their names, with the columns that they are computed from.
_FEATURES: dict[str, Sequence[tuple[TableSchema, str]]] = {
    "user_id": [(_TILES, "user_id"), (_PROFILES, "user_id")],
    "pooled": [
        (_TILES, "item_id"), (_TILES, "weight"), (_TILES, "last_event_at"), (schemas.ITEM_VECTORS, "vector"),
        (_PROFILES, "pick_items"),
    ],
    "has_": [(_TILES, "item_id"), (schemas.ITEM_VECTORS, "item_id"), (_PROFILES, "pick_items")],
    "num_events_": [(_TILES, "num_events")],
    "weight_": [(_TILES, "weight")],
    "num_active_days_": [(_TILES, "last_event_at")],
    "days_since_last_event": [(_TILES, "last_event_at")],
    "days_since_first_event": [(_TILES, "last_event_at")],
    "days_since_registration": [(_PROFILES, "registered_at")],
    "part_of_day_": [(_TILES, f"num_{part}") for part in ("night", "morning", "afternoon", "evening")],
    "weekday_": [(_TILES, "last_event_at")],
    "num_by_context_": [(_TILES, "num_by_context")],
    "attribute_": [(_PROFILES, "attributes")],
}  # fmt: skip


def stage_facts(
    tables: Tables, config: Config, stage: str, versions: Mapping[str, int], facts: Mapping[str, str], *, ended: bool
) -> StageFacts:
    """Return the description of a stage. ``versions``: of its inputs. ``ended``: also describe what it has written.

    Cost: the version of each table that it has written.
    """
    features = features_table(config, lineage_of(config))
    inputs: dict[str, int | None] = {locate(tables, name): version for name, version in versions.items()}
    if stage in _READS_LOG:
        inputs |= {_location(source): None for source in config.events.all_sources.values()}
    if stage in _READS_PROFILES:
        inputs |= {_location(source): None for source in (config.users, config.onboarding) if source is not None}
    written = [*_WRITES.get(stage, ()), *([features] if stage in _READS_PROFILES else [])] if ended else []
    return StageFacts(
        stage=stage,
        inputs=inputs,
        outputs={locate(tables, table.name): tables.version(table) for table in written if tables.exists(table)},
        columns={locate(tables, table.name): _columns(tables, config, table, features) for table in written},
        facts=facts,
    )


def locate(tables: Tables, name: str) -> str:
    """Return the path or URI of a table, or its name in a catalog."""
    return tables.name(TableSchema(name, "", "")).removeprefix("delta.").replace("`", "")


def _location(source: Source) -> str:
    return source.path if source.format == "table" else absolute(source.path)


def _columns(
    tables: Tables, config: Config, table: TableSchema, features: TableSchema
) -> dict[str, list[tuple[str, str]]]:
    """Return the sources of a table's columns, as far as they are known; of a log, its columns as configured."""
    if table == schemas.USER_ITEM_DAYS:
        columns = defaultdict[str, list[tuple[str, str]]](list)
        for source in config.events.all_sources.values():
            named = source.columns
            mapped = [("user_id", named.user_id), ("item_id", named.item_id), ("event_type", named.event_type)]
            mapped += [("weight", named.weight), ("last_event_at", named.event_at)]
            for column, name in [*mapped, *(("num_by_context", name) for name in named.context)]:
                if name:
                    columns[column].append((_location(source), name))
        return columns
    if table == features:
        return {
            column: [(locate(tables, source.name), name) for source, name in sources]
            for column in features.names
            for start, sources in _FEATURES.items()
            if column.startswith(start)
        }
    if table == schemas.USER_EMBEDDINGS:
        where, names = locate(tables, features.name), features.names
        inputs = [name for name in names if name not in ("as_of", "user_id", "is_exact")]
        return {"user_id": [(where, "user_id")], "embedding": [(where, name) for name in inputs]}
    return {}
