"""One benchmark of features and one of joins: both sides agree, and a difference stops the comparison."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from benchmarks import features_vs_duckdb, join_vs_duckdb
from benchmarks.answers import check_features
from benchmarks.join_data import FIRST, JoinSize, check_joined
from benchmarks.logs import AS_OF, LogSize, open_site
from tests.support.benchmark_lines import check_line
from userrep.features.build import build_features

pytestmark = pytest.mark.default

LOG = LogSize(events=1500, users=40, items=30, days=8)
JOIN = JoinSize(labels=300, users=40, snapshots=3, dim=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


def test_features_are_those_of_duckdb(spark: SparkSession, root: Path) -> None:
    line = features_vs_duckdb.measure(spark, LOG, root, 1)
    check_line(line, "features_vs_duckdb", ("events", "users", "items", "days"), root)


def test_features_that_differ_in_one_value_are_not_compared(spark: SparkSession, root: Path) -> None:
    with open_site(spark, LOG, root) as site:
        build_features(site.tables, site.config, site.versions, [AS_OF])
        peer = site.folder / "duckdb"
        features_vs_duckdb.duckdb_features(
            f"read_parquet({site.tile_files()!r}, hive_partitioning = true)", site.items, peer
        )
        check_features(site, peer)
        file = next(file for file in sorted(peer.iterdir()) if pq.ParquetFile(file).metadata.num_rows)
        rows = pq.ParquetFile(file).read()
        for name in ("num_events_7d", "has_content_30d", "weekday_180d", "pooled"):
            values = rows[name].to_pylist()
            values[0] = _changed(values[0])
            column = pa.array(values, rows.schema.field(name).type)
            pq.write_table(rows.set_column(rows.column_names.index(name), name, column), file)
            with pytest.raises(AssertionError, match=f"{name} differs from the peer's"):
                check_features(site, peer)


def _changed(value: Any) -> Any:
    if isinstance(value, list):
        return [value[0] + 3e-6, *value[1:]]
    if isinstance(value, bytes):
        vectors = np.frombuffer(value, "<f4").copy()
        vectors[-1] += 3e-6
        return vectors.tobytes()
    return not value if isinstance(value, bool) else value + 1


def test_a_join_is_that_of_duckdb(spark: SparkSession, root: Path) -> None:
    line = join_vs_duckdb.measure(spark, JOIN, root, 1)
    check_line(line, "join_vs_duckdb", ("labels", "users", "snapshots", "dim"), root)


def test_joins_that_differ_in_a_label_a_date_or_a_bit_are_not_compared(spark: SparkSession, tmp_path: Path) -> None:
    vectors = np.random.default_rng(3).standard_normal((4, 2)).astype(np.float32)
    ours = pa.table({
        "label_id": [1, 2, 3, 4],
        "as_of": pa.array([FIRST, FIRST, None, FIRST], pa.date32()),
        "embedding": pa.array([*map(list, vectors[:2]), None, list(vectors[3])], pa.list_(pa.float32())),
    })  # fmt: skip
    one_bit = vectors.copy()
    one_bit.view(np.uint32)[1, 1] ^= 1
    other_vectors = pa.array([list(one_bit[0]), list(one_bit[1]), None, list(one_bit[3])], pa.list_(pa.float32()))
    other_dates = pc.if_else(pc.equal(ours["label_id"], 4), pa.scalar(FIRST.replace(day=8)), ours["as_of"])
    folders = {
        "ours": ours,
        "same": ours.take([3, 0, 2, 1]),
        "label": ours.slice(1),
        "date": ours.set_column(1, "as_of", other_dates),
        "bit": ours.set_column(2, "embedding", other_vectors),
    }
    for name, rows in folders.items():
        (tmp_path / name).mkdir()
        pq.write_table(rows, tmp_path / name / "rows.parquet")
    check_joined(spark, tmp_path / "ours", tmp_path / "same")
    for name in ("label", "date", "bit"):
        with pytest.raises(AssertionError, match="contents differ"):
            check_joined(spark, tmp_path / "ours", tmp_path / name)
