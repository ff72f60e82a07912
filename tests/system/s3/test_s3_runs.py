"""Log, tables and artifacts in an object store that is busy at times: a pipeline, a night, an export, an erasure."""

from datetime import timedelta
from typing import Any

import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from tests.system.s3.conftest import AS_OF, SHARE, Bucket, config_on
from userrep.erasure.requests import Erasure
from userrep.operations.maintenance import maintain_tables
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import list_snapshots
from userrep.store.filesystem import file_system, read_bytes, write_bytes
from userrep.store.open import open_tables
from userrep.store.schemas import REJECTED_EVENTS, USER_EMBEDDINGS
from userrep.store.tables import Tables
from userrep.tiles.build import build_tiles
from userrep.tiles.inventory.inventory import take_inventory
from userrep.tiles.ledger import STREAM_REVISION, read_tiles
from userrep.workflows.export import export_embeddings
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.full


def rows_of(tables: Tables) -> list[Any]:
    return sorted(map(repr, read_tiles(tables, start=None, end=AS_OF).drop("revision").collect()))


def test_tables_are_those_of_a_disk_and_snapshots_are_whole(work: RunContext, tmp_path: Any) -> None:
    on_disk = config_on(work.config.events.all_sources["events"].path.removesuffix("/events"), str(tmp_path))
    tables = open_tables(on_disk, work.spark)
    build_tiles(tables, on_disk, take_inventory(tables, on_disk.events), before=AS_OF)
    assert rows_of(work.tables) == rows_of(tables)
    snapshots = list_snapshots(work.tables, find_space(work.tables, None).space_id)
    assert [snapshot.as_of for snapshot in snapshots][-2:] == [AS_OF, AS_OF + timedelta(days=1)]
    for snapshot in snapshots:
        rows = work.tables.read(USER_EMBEDDINGS, [snapshot.key])
        assert rows.count() == rows.select("user_id").distinct().count() == snapshot.num_users


def test_small_files_that_a_stream_has_left_are_joined(work: RunContext) -> None:
    tables, row = work.tables, {"reason": "x", "row": "{}", "event_date": AS_OF, "revision": STREAM_REVISION}
    rows = work.spark.createDataFrame([row], tables.read(REJECTED_EVENTS).schema)
    tables.append(rows, REJECTED_EVENTS, transaction=("q", 1))
    tables.append(rows, REJECTED_EVENTS, transaction=("q", 1))  # comes again: not written again
    for _ in range(15):
        tables.add(REJECTED_EVENTS, [row])
    of_stream = f"revision = {STREAM_REVISION}"
    num_others = tables.read(REJECTED_EVENTS).where(f"NOT {of_stream}").count()
    assert maintain_tables(tables, work.config)["joined"]["rejected_events"] == 1
    assert len(tables.files(REJECTED_EVENTS, lambda of: of["revision"] == STREAM_REVISION)) == 1
    assert tables.read(REJECTED_EVENTS).where(of_stream).count() == 16
    assert tables.read(REJECTED_EVENTS).where(f"NOT {of_stream}").count() == num_others > 0


def test_a_file_that_is_shorter_than_an_error_s_text_is_read_all_the_same(bucket: Bucket) -> None:
    write_bytes(f"{bucket.uri}/small", b"few bytes")
    with bucket.store.failing(0.2, seed=5):
        assert {read_bytes(f"{bucket.uri}/small", max_bytes=64) for _ in range(30)} == {b"few bytes"}


def test_an_export_is_complete_and_erased_users_are_in_no_file(work: RunContext, bucket: Bucket) -> None:
    tables = work.tables
    user = min(row.user_id for row in tables.read(USER_EMBEDDINGS).where(f"as_of = DATE'{AS_OF}'").collect())
    with bucket.store.failing(SHARE, seed=2):
        manifest = export_embeddings(tables, work.config, find_space(tables, None), AS_OF, f"{bucket.uri}/out")
        receipt = Erasure(tables, work.config, [user]).run(now=True)
    assert manifest["num_rows"] > 20
    assert receipt["num_with_rows"] == 1
    assert receipt["exports"] == {f"{bucket.uri}/out": "1 rows"}
    files, bases = file_system(bucket.uri)[0], [file_system(uri)[1] for uri in (work.config.root, f"{bucket.uri}/out")]
    found = [of for base in bases for of in files.get_file_info(pyarrow.fs.FileSelector(base, recursive=True))]
    parquet = [file.path for file in found if file.path.endswith(".parquet")]
    assert len(parquet) > 20
    naming = [
        path for path in parquet if user in str(pq.read_table(path, filesystem=files, partitioning=None).to_pydict())
    ]
    assert naming == []
