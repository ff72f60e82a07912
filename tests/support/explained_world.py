"""A root with planted tastes, made without Spark: features, vectors, items and tiles of users with four tastes.

Shapes: N users, D dimensions, F inputs, T tastes.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.builders import config_of
from tests.support.embedding_tables import publish, snapshot
from tests.unit.inference.test_model import saved
from userrep.config import Config, Model
from userrep.features.layout import InputLayout, Scaler
from userrep.features.ledger import features_table
from userrep.features.spec import FeatureSpec
from userrep.items.versions import lineage_of
from userrep.spaces.registry import Space, add_candidate, find_space, mark_ready, promote
from userrep.spaces.snapshots import Snapshot
from userrep.store.arrow import packed
from userrep.store.file_tables import FileTables
from userrep.store.schemas import FEATURE_SETS, ITEM_VECTOR_VERSIONS, ITEM_VECTORS, TILE_DAYS, USER_ITEM_DAYS
from userrep.store.xxhash import bucket_of

AS_OF, NUM_USERS, DIM = date(2024, 5, 1), 600, 20
TASTES = ("christmas", "garden", "kitchen", "pirate")
ITEMS = [f"{taste}{k}" for taste in TASTES for k in range(10)]
TEXTS = [f"{'LARGE' if k % 2 else 'SMALL'} {taste.upper()} SET {k}" for taste in TASTES for k in range(10)]
NOW = datetime(2024, 5, 1, 6)


@dataclass(frozen=True)
class World:
    """The planted root. ``taste_N``: each user's taste; a user buys five items of it. ``x_NF``: scaled inputs."""

    config: Config
    tables: FileTables
    space: Space
    snapshot: Snapshot
    layout: InputLayout
    scaler: Scaler
    user_ids: list[str]
    taste_N: np.ndarray
    x_NF: np.ndarray
    z_ND: np.ndarray
    item_vectors: np.ndarray

    def part(self, name: str) -> slice:
        return next(slice(block.start, block.stop) for block in self.layout.blocks if block.name == name)


def explained_world(folder: Path) -> World:
    """Build the root. Users of the first taste are mostly from ``de``, the others mostly from ``uk``."""
    random = np.random.default_rng(11)
    pq.write_table(pa.table({"item": ITEMS, "title": TEXTS}), folder / "items.parquet")
    config = config_of(
        folder, windows_days=[7], history_days=0,
        items={"path": str(folder / "items.parquet"), "columns": {"item_id": "item", "text": "title"}},
        users={"path": str(folder / "users.parquet"), "columns": {"user_id": "user"}, "attributes": ["country"]},
    )  # fmt: skip
    tables, spec, lineage_id = FileTables(None, str(config.root)), FeatureSpec.of(config), lineage_of(config)
    layout = InputLayout.of(spec, {"attribute_country": ["de", "uk", "(other)"]})
    unit = np.repeat(np.eye(4), 10, axis=0) + 0.05 * random.normal(size=(40, 4))
    item_vectors = (np.rint(unit * 2**16) / 2**16).astype(np.float32)
    ids = [f"u{k:04d}" for k in range(NUM_USERS)]
    order = np.argsort(bucket_of(pa.array(ids)), kind="stable")
    user_ids, taste_N = [ids[k] for k in order], order % 4
    picks_N5 = np.array([taste * 10 + random.permutation(10)[:5] for taste in taste_N])
    columns = _features(random, taste_N, item_vectors[picks_N5].mean(axis=1).astype(np.float32))
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    table = features_table(config, lineage_id)
    tables.add(table, [{"as_of": AS_OF, "user_id": id_, **row} for id_, row in zip(user_ids, rows, strict=True)])
    _add_ledgers(tables, lineage_id, user_ids, picks_N5, item_vectors)
    raw_NF = layout.raw(pa.RecordBatch.from_pylist(rows, _schema()))
    center_F, scale_F = np.zeros(layout.width, np.float32), np.ones(layout.width, np.float32)
    inputs = slice(0, layout.blocks[-1].start)
    center_F[inputs], scale_F[inputs] = raw_NF[:, inputs].mean(axis=0), raw_NF[:, inputs].std() + 0.1
    scaler = Scaler(center_F=center_F, scale_F=scale_F)
    x_NF = scaler.apply(layout, raw_NF)
    weight_DF = np.linalg.qr(random.normal(size=(layout.width, DIM)))[0].T.astype(np.float32)
    z_ND = x_NF @ weight_DF.T
    space = add_space(tables, "s001-a", lineage_id, layout, scaler, weight_DF)
    here = publish_vectors(tables, space, user_ids, z_ND)
    promote(tables, space)
    return World(config, tables, find_space(tables, None), here, layout, scaler, user_ids, taste_N, x_NF, z_ND,
                 item_vectors)  # fmt: skip


def add_space(
    tables: FileTables, space_id: str, lineage_id: str, layout: InputLayout, scaler: Scaler, weight_DF: np.ndarray
) -> Space:
    """Register a ready space with a linear encoder."""
    tensors: dict[str, Any] = {
        "encoder_linear.weight": weight_DF, "encoder_linear.bias": np.zeros(len(weight_DF), np.float32),
        "center_F": scaler.center_F, "scale_F": scaler.scale_F,
    }  # fmt: skip
    model = Model(latent_dim=DIM, next_items_weight=0, next_days_weight=0)
    manifest = saved(Path(tables.location), space_id=space_id, layout=layout, model=model, is_space=True, **tensors)
    add_candidate(
        tables, space_id=space_id, lineage_id=lineage_id, trained_until=AS_OF, content_hash=manifest.content_hash
    )
    mark_ready(tables, find_space(tables, space_id))
    return find_space(tables, space_id)


def publish_vectors(tables: FileTables, space: Space, user_ids: list[str], z_ND: np.ndarray) -> Snapshot:
    """Publish a snapshot of these vectors."""
    here = snapshot(AS_OF, space=space.space_id, dim=z_ND.shape[1])
    publish(tables, {here: dict(zip(user_ids, z_ND.tolist(), strict=True))})
    return here


def _features(random: np.random.Generator, taste_N: np.ndarray, pooled_NP: np.ndarray) -> dict[str, list[Any]]:
    num, is_first = len(taste_N), taste_N == 0
    is_german = np.where(is_first, random.uniform(size=num) < 0.8, random.uniform(size=num) < 0.2)
    days = random.integers(0, 7, num)
    return {
        "pooled": packed(pooled_NP).to_pylist(), "has_behaviour_7d": [True] * num,
        "num_events_7d": random.integers(5, 200, num).tolist(), "weight_7d": random.uniform(1, 50, num).tolist(),
        "num_active_days_7d": random.integers(1, 7, num).tolist(), "days_since_last_event": days.astype(float).tolist(),
        "days_since_first_event": random.integers(7, 900, num).astype(float).tolist(),
        "part_of_day_7d": random.dirichlet(np.ones(4), num).tolist(),
        "weekday_7d": random.dirichlet(np.ones(7), num).tolist(),
        "attribute_country": np.where(is_german, "de", "uk").tolist(), "is_exact": [True] * num,
    }  # fmt: skip


def _schema() -> pa.Schema:
    numbers = pa.list_(pa.float32())
    return pa.schema(
        {
            "pooled": pa.binary(), "has_behaviour_7d": pa.bool_(), "num_events_7d": pa.int64(),
            "weight_7d": pa.float64(), "num_active_days_7d": pa.int64(), "days_since_last_event": pa.float64(),
            "days_since_first_event": pa.float64(), "part_of_day_7d": numbers, "weekday_7d": numbers,
            "attribute_country": pa.string(), "is_exact": pa.bool_(),
        }
    )  # fmt: skip


def _add_ledgers(
    tables: FileTables, lineage_id: str, user_ids: list[str], picks_N5: np.ndarray, item_vectors: np.ndarray
) -> None:
    tables.add(
        FEATURE_SETS,
        [{"lineage_id": lineage_id, "as_of": AS_OF, "valid_from": AS_OF, "log_hash": "x", "sides_hash": "x",
          "num_users": len(user_ids), "num_inexact": 0, "built_at": NOW, "begun_by": None}],
    )  # fmt: skip
    buckets = bucket_of(pa.array(ITEMS))
    tables.add(
        ITEM_VECTORS,
        [{"lineage_id": lineage_id, "valid_from": AS_OF, "modality": "behaviour", "item_bucket": int(buckets[k]),
          "item_id": ITEMS[k], "item_index": k, "vector": item_vectors[k].tolist()} for k in np.argsort(buckets)],
    )  # fmt: skip
    version = {"num_items": len(ITEMS), "num_vectors": {"behaviour": len(ITEMS)}, "largest": 2.0, "built_at": NOW}
    tables.add(ITEM_VECTOR_VERSIONS, [{"lineage_id": lineage_id, "valid_from": AS_OF, **version}])
    day, counts = AS_OF - timedelta(days=1), dict.fromkeys(("num_night", "num_morning", "num_afternoon"), 0)
    tables.add(
        USER_ITEM_DAYS,
        [{"event_date": day, "revision": 1, "user_slice": "0-of-1", "user_bucket": bucket, "user_id": id_,
          "item_id": ITEMS[item], "event_type": "event", "num_events": 1, "weight": 1.0, "num_evening": 1, **counts,
          "last_event_at": datetime(2024, 4, 30, 20), "num_by_context": None}
         for id_, bucket, picks in zip(user_ids, bucket_of(pa.array(user_ids)).tolist(), picks_N5, strict=True)
         for item in picks],
    )  # fmt: skip
    num = len(user_ids) * 5
    tables.add(
        TILE_DAYS,
        [{"event_date": day, "revision": 1, "fingerprint": "x", "content": "x", "num_events": num, "num_tiles": num,
          "num_rejected": 0, "num_tiles_by_cell": None, "built_at": NOW}],
    )  # fmt: skip
