"""A daily run, maintenance and an erasure at once: each ends or is refused, and together they end as in a sequence."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from tests.system.faults.contents import contents, doubled, tables_of
from tests.system.faults.fault_world import NIGHT, World
from tests.system.faults.reader import ReaderWhileUsersLeave
from tests.system.faults.tally import Faults
from userrep.erasure.requests import Erasure
from userrep.errors import UserrepError
from userrep.store.file_tables import FileTables
from userrep.store.schemas import ITEM_INDEX
from userrep.workflows import daily
from userrep.workflows.jobs import run_job

pytestmark = pytest.mark.full

ROUNDS = 3  # of all commands at once, after which none of them is refused any more
FORGOTTEN = ["u0000004", "u0000005"]
COUNTS = {"feature_sets", "sum_generations", "snapshots", "snapshot_drift"}  # of users, before the erasure or after it


def test_rows_that_another_run_changes_meanwhile_are_not_replaced(spark: SparkSession, tmp_path: Path) -> None:
    tables = FileTables(spark, str(tmp_path))
    tables.add(ITEM_INDEX, [{"lineage_id": "l1", "item_id": "a", "item_index": 0}])
    root = str(tmp_path)

    def meanwhile(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        other = [{"lineage_id": "l1", "item_id": "b", "item_index": 0}]
        for batch in batches:
            FileTables(None, root).add(ITEM_INDEX, other, replacing="lineage_id = 'l1'")
            yield batch

    rows = spark.createDataFrame([("l1", "c", 0)], "lineage_id STRING, item_id STRING, item_index INT").coalesce(1)
    rows = rows.mapInArrow(meanwhile, rows.schema)
    with pytest.raises(UserrepError, match="another run has changed the same rows meanwhile"):
        tables.replace(rows, ITEM_INDEX, [{"lineage_id": "l1"}])
    assert [row.item_id for row in tables.ledger(ITEM_INDEX)] == ["b"]


def test_a_daily_run_maintenance_and_an_erasure_at_once_end_as_one_after_the_other(
    spark: SparkSession, trained: World, faults: Faults, tmp_path: Path
) -> None:
    def jobs(world: World) -> list[Callable[[], Any]]:
        work = world.pipeline(spark, NIGHT)
        erasure = Erasure(work.tables, world.config, FORGOTTEN)
        return [
            lambda: daily.daily(work, on_time=True),
            lambda: run_job(work, "maintain_tables"),
            lambda: erasure.run(now=False),
        ]

    def refusal(job: Callable[[], Any]) -> str:
        try:
            job()
        except UserrepError as error:
            return str(error)
        return ""

    in_turn, at_once = trained.copy(tmp_path / "in turn"), trained.copy(tmp_path / "at once")
    for job in jobs(in_turn):
        job()
    with ReaderWhileUsersLeave(at_once.root) as reader, ThreadPoolExecutor(3) as pool:
        for _ in range(ROUNDS):
            refusals = list(pool.map(refusal, jobs(at_once)))
            faults.record("a daily run, maintenance and an erasure at once", f"refusals {refusals}", [])
            if not any(refusals):
                break
    jobs(at_once)[-1]()  # as in every daily run: erases what a run wrote that had read the users before
    assert reader.faults == []
    assert doubled(at_once.root) == []
    wanted, found = (
        {name: of for name, of in contents(world.root).items() if name not in COUNTS} for world in (in_turn, at_once)
    )
    assert found == wanted
    features = [name for name in wanted if name.startswith("user_features_")]
    assert {"user_item_days", "item_vectors", "user_window_sums", "user_embeddings", *features} <= wanted.keys()
    assert {row["user_id"] for row in tables_of(at_once.root)["user_embeddings"]}.isdisjoint(FORGOTTEN)
