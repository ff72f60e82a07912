"""Stream bases: with events of the open days they give the batch's features, and single users are read from them."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from tests.support.builders import AS_OF, config_of
from tests.support.streaming_world import DAY, NewWorld, World
from userrep.errors import UsageError, UserrepError
from userrep.features.build import stored_features
from userrep.features.profiles import refresh_profiles
from userrep.features.sums.stream_base import build_bases, stream_bases, with_files
from userrep.items.versions import Versions, versions_of
from userrep.sources.read import read_source
from userrep.store.bucket_reader import BucketFiles
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.schemas import USER_OPENINGS, TableSchema
from userrep.store.spark_tables import SparkTables
from userrep.streaming.encoding import Encoding, read_base_rows
from userrep.streaming.micro_batches import MicroBatches
from userrep.streaming.record_tiles import Records
from userrep.streaming.records import checked_rows
from userrep.streaming.sources import ARRIVED, ORIGIN
from userrep.workflows.data_stages import build_activity_tiles

pytestmark = pytest.mark.default


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    world = new_world(own_log=True)
    build(world, AS_OF - 2 * DAY)
    return world


def versions(world: World) -> Versions:
    return versions_of(world.tables, world.config, anchor=AS_OF)


def build(world: World, as_of: date, *, open_days: int = 3) -> dict[date, str]:
    profiles = refresh_profiles(world.tables, world.config)
    made = build_bases(world.tables, world.config, versions(world), as_of, open_days=open_days, profiles=profiles)
    return {base.as_of: reason for base, reason in made}


def encoding(world: World, first_day: date | None = None) -> Encoding:
    return MicroBatches(world.tables, world.config, "test", first_day).encoding()


def records_between(world: World, start: date, end: date) -> pa.Table:
    """Return user_id and records of the valid events of some days, as the stream's state has them."""
    log = read_source(world.spark, world.config.events.all_sources["events"], what="events")
    beside = {ORIGIN: F.lit("here"), ARRIVED: F.current_timestamp()}
    arrived = {"events": log.withColumns(beside)}
    rows = checked_rows(arrived, world.config, is_own_source=False, since=start).where("reason IS NULL")
    records = rows.where((F.col("at") >= F.lit(start)) & (F.col("at") < F.lit(end)))
    return records.groupBy("user_id").agg(F.collect_set("record").alias("records")).toArrow()


def in_order(table: pa.Table) -> pa.Table:
    return table.combine_chunks().sort_by("user_id")


def bits(column: pa.ChunkedArray) -> Any:
    """Bring a column to what can be compared bit by bit."""
    values = column.combine_chunks()
    if pa.types.is_floating(values.type):
        return values.to_numpy(zero_copy_only=False).tobytes(), values.null_count
    if pa.types.is_list(values.type):
        flat = values.flatten().to_numpy(zero_copy_only=False)
        return flat.tobytes() if flat.dtype != object else flat.tolist(), values.value_lengths().to_pylist()
    return values.to_pylist()


@pytest.mark.parametrize("num_partitions", [1, 7])
def test_a_stream_base_and_the_open_days_are_the_batch_s_features_to_the_bit(world: World, num_partitions: int) -> None:
    batch = stored_features(world.tables, world.config, versions(world).lineage_id, [AS_OF]).toArrow()
    rows, pinned = records_between(world, AS_OF - 3 * DAY, AS_OF), encoding(world)
    by_user = dict(zip(rows["user_id"].to_pylist(), rows["records"].to_pylist(), strict=True))
    user_ids = batch["user_id"].to_pylist()
    parts = []
    for k in range(num_partitions):
        mine = user_ids[k::num_partitions]
        lists = pa.array([by_user.get(user_id, []) for user_id in mine], rows.schema.field("records").type)
        features, _ = pinned._features(pa.array(mine), Records(lists), pinned.bases[AS_OF])
        parts.append(pa.Table.from_batches([features]))
    streamed = in_order(pa.concat_tables(parts))
    batch = in_order(batch)
    assert batch.num_rows > 300
    assert sum(user_id in by_user for user_id in user_ids) > 100
    for name in batch.column_names:
        assert bits(streamed[name]) == bits(batch[name]), name


def test_what_is_up_to_date_is_not_made_again(world: World) -> None:
    assert build(world, AS_OF - 2 * DAY) == {}
    assert set(stream_bases(world.tables, versions(world).lineage_id)) == {AS_OF - DAY, AS_OF}


def users_and_files(world: World) -> tuple[list[str], BucketFiles]:
    files = encoding(world).bases[AS_OF].files
    users = [user for uri in files.uris for user in pq.read_table(uri, columns=["user_id"])["user_id"].to_pylist()]
    return users, files


@pytest.fixture(scope="module")
def small_groups(world: World, tmp_path_factory: pytest.TempPathFactory) -> BucketFiles:
    """Write a stream base into two files of row groups of 20 users."""
    _, files = users_and_files(world)
    whole = pa.concat_tables([pq.ParquetFile(uri).read() for uri in files.uris]).sort_by("user_bucket")
    folder, half, written = tmp_path_factory.mktemp("groups"), whole.num_rows // 2, []
    for name, rows in (("first.parquet", whole[:half]), ("second.parquet", whole[half:])):
        pq.write_table(rows, folder / name, row_group_size=20)
        buckets = rows["user_bucket"].to_pylist()
        written.append(TableFile(name, 1, rows.num_rows, {}, (buckets[0], buckets[-1]), table_uri=str(folder)))
    return BucketFiles.of(written)


def test_rows_are_those_of_the_users_asked_for(world: World, small_groups: BucketFiles) -> None:
    users, files = users_and_files(world)
    asked = [*users[::3], "nobody", ""]
    for used in (files, small_groups):
        sums, profiles = read_base_rows(used, pa.array(asked), day=0, context=True)
        found = {*sums["user_id"].to_pylist(), *profiles["user_id"].to_pylist()}
        assert found == set(users[::3])
        assert sums.num_rows <= len(found)
        assert len(set(sums["user_id"].to_pylist())) == sums.num_rows
        assert len(set(profiles["user_id"].to_pylist())) == profiles.num_rows
    whole, _ = read_base_rows(files, pa.array(users), day=0, context=True)
    again, _ = read_base_rows(small_groups, pa.array(users), day=0, context=True)
    assert in_order(whole).equals(in_order(again))
    assert "num_by_context" not in read_base_rows(files, pa.array(asked), day=0, context=False)[0].column_names


def add_late_event(world: World, day: date) -> None:
    like = pq.read_schema(next((world.log / "events").rglob("*.parquet")))
    at = datetime(day.year, day.month, day.day, 12)
    row = {"event_id": f"late-{day}", "user_id": "u0000001", "item_id": "i00001", "event_at": at,
           "event_type": "play", "weight": 1.0, "device": "tv"}  # fmt: skip
    file = world.log / "events" / f"ingest_date={AS_OF}" / f"late-{day}.parquet"
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist([row], schema=like), file)
    build_activity_tiles(world.work(AS_OF))


@pytest.mark.full
def test_a_late_day_before_the_open_ones_rebuilds_stream_bases_and_a_late_open_day_does_not(world: World) -> None:
    add_late_event(world, AS_OF - DAY)
    assert build(world, AS_OF - 2 * DAY) == {}
    add_late_event(world, AS_OF - 20 * DAY)
    assert build(world, AS_OF - 2 * DAY) == dict.fromkeys([AS_OF - DAY, AS_OF], "days of the log changed")
    assert build(world, AS_OF - 2 * DAY) == {}


def test_new_users_rebuild_stream_bases(world: World) -> None:
    like = pq.read_schema(next((world.log / "users").glob("*.parquet")))
    row = {"user_id": "newcomer", "registered_at": datetime(2024, 3, 1), "country": "SE", "age_band": "16-24"}
    pq.write_table(pa.Table.from_pylist([row], schema=like), world.log / "users" / "more.parquet")
    assert build(world, AS_OF - 2 * DAY) == dict.fromkeys([AS_OF - DAY, AS_OF], "users or picks changed")
    _, profiles = read_base_rows(encoding(world).bases[AS_OF].files, pa.array(["newcomer"]), day=0, context=True)
    assert profiles["attributes"].to_pylist() == [["SE", "16-24"]]


def test_another_number_of_open_days_rebuilds_stream_bases(world: World) -> None:
    assert build(world, AS_OF - 2 * DAY, open_days=2) == {AS_OF - DAY: "number of open days changed"}
    assert build(world, AS_OF - 2 * DAY) == {AS_OF - DAY: "number of open days changed"}


def test_a_base_whose_rows_another_run_changes_before_they_are_recorded_is_not_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lineage_id, commit = versions(world).lineage_id, FileTables.commit
    before = stream_bases(world.tables, lineage_id)

    def then_another_run(self: FileTables, table: TableSchema, *files: Any, **how: Any) -> None:
        commit(self, table, *files, **how)
        if table is USER_OPENINGS:
            monkeypatch.setattr(FileTables, "commit", commit)
            self.drop_partitions(table, [{"lineage_id": lineage_id, "as_of": AS_OF - DAY}])

    monkeypatch.setattr(FileTables, "commit", then_another_run)
    with pytest.raises(UserrepError, match="user_openings: another run has changed the same rows meanwhile"):
        build(world, AS_OF - 2 * DAY, open_days=2)
    assert stream_bases(world.tables, lineage_id) == before
    assert build(world, AS_OF - 2 * DAY, open_days=2) == {AS_OF - DAY: "number of open days changed"}


def test_old_stream_bases_go(world: World) -> None:
    assert set(build(world, AS_OF)) == {AS_OF + DAY, AS_OF + 2 * DAY}
    lineage_id = versions(world).lineage_id
    assert set(stream_bases(world.tables, lineage_id)) == {AS_OF + timedelta(days=k) for k in range(3)}
    assert set(encoding(world).bases) == {AS_OF + timedelta(days=k) for k in range(3)}
    assert all(used.files.uris for used in encoding(world).bases.values())


def test_a_stream_does_not_encode_dates_with_an_open_day_before_its_own_start(world: World) -> None:
    build(world, AS_OF)
    first_day = AS_OF + timedelta(days=1 - 3)  # of a stream that starts now; the base of AS_OF has one day more
    assert set(encoding(world, first_day).bases) == {AS_OF + DAY, AS_OF + 2 * DAY}
    assert set(encoding(world, first_day - DAY).bases) == {AS_OF, AS_OF + DAY, AS_OF + 2 * DAY}


def test_tables_in_a_catalog_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^stream: needs tables that userrep can read without Spark, .*\. Set root: to a local path"
    ):
        with_files(SparkTables(None, schema="`main`.`users`", artifacts="x"))


def test_a_stream_with_a_catalog_is_refused_with_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"stream: not supported with a catalog: it looks users up in files below root"
    ):
        config_of(tmp_path, root=None, catalog="main", schema="users", stream={}, artifacts="/models")
