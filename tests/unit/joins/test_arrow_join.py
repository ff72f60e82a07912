"""Joins with Spark, of Arrow labels, and into files: the same cases through all three, against brute force."""

import random
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from tests.support.builders import session_in
from tests.support.embedding_tables import Oracle, Vector, add_spaces, publish, snapshot
from tests.unit.inference.test_model import saved
from tests.unit.joins.test_join import random_ledger, written_by_tasks
from userrep.errors import UsageError
from userrep.joins import arrow_join
from userrep.joins.arrow_join import StoredVectors, join_table, joined_in_order
from userrep.joins.join import join_embeddings
from userrep.joins.ledger import usable_sources
from userrep.joins.options import InSampleWarning, JoinOptions
from userrep.joins.read_vectors import NO_STEP
from userrep.joins.statuses import SPACE_ID
from userrep.joins.training_files import write_joined
from userrep.spaces.registry import find_space, mark_ready, promote, retire
from userrep.spaces.snapshots import record_snapshots
from userrep.store.arrow import listed
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import TableWriter
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.vector_storage import VectorStorage
from userrep.store.xxhash import bucket_of

pytestmark = pytest.mark.default

DAY, NOON = date(2024, 5, 1), datetime(2024, 5, 1, 12)
HOUR = timedelta(hours=1)
Labels = Sequence[tuple[int, str | None, datetime | None]]
Joined = list[tuple[int, str, str | None, date | None, Vector | None]]
Join = Callable[..., pa.Table]


@pytest.fixture
def tables(spark: SparkSession, tmp_path: Path) -> FileTables:
    tables = FileTables(spark, str(tmp_path))
    add_spaces(tables, "s001-a", "s002-b")
    return tables


@pytest.fixture(params=["spark", "arrow", "files"])
def join(
    request: pytest.FixtureRequest, spark: SparkSession, tables: FileTables, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Join]:
    """Return a function that joins labels (n, user_id, label_at) with s001-a by one of the three engines.

    The session is in another time zone than UTC.
    """

    def joined(rows: Labels, *, space: str = "s001-a", **options: Any) -> pa.Table:
        chosen = JoinOptions(**options)
        types = [pa.int32(), pa.string(), pa.timestamp("us", "UTC")]
        names = ["n", chosen.user, chosen.time]
        columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
        labels = pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=names)
        if request.param == "arrow":
            return join_table(labels, tables=tables, sources=usable_sources(tables, space), options=chosen)
        frame = spark.createDataFrame(labels)
        found = join_embeddings(frame, tables=tables, space=space, options=chosen)
        assert found.schema[chosen.output].metadata == {SPACE_ID: space}
        if request.param == "spark" or not rows:
            return found.toArrow()
        folder = str(tmp_path_factory.mktemp("joined"))
        parts = write_joined(frame, folder, tables=tables, sources=usable_sources(tables, space), options=chosen)
        assert sum(part.num_rows for part in parts) == pq.read_table(folder).num_rows
        return pq.read_table(folder)

    with session_in(spark, "Europe/Berlin"):
        yield joined


def told(joined: pa.Table, output: str = "embedding") -> Joined:
    columns = (joined[name].to_pylist() for name in ("n", f"{output}_status", "snapshot_id", "as_of", output))
    return sorted(zip(*columns, strict=True), key=lambda row: (row[0], row[1]))


@pytest.mark.parametrize("seed", [1, 2])
def test_labels_of_random_ledgers_get_what_brute_force_finds(
    join: Join, tables: FileTables, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow_join, "_MOST_NUMBERS", 7 * 4096)
    chance = random.Random(seed)
    vectors = random_ledger(chance)
    publish(tables, vectors)
    as_ofs = {made.snapshot_id: made.as_of for made in vectors}
    edges = [made.available_at for made in vectors if made.available_at]
    times = [chance.choice(edges) + chance.choice([-1, 0, 1]) * timedelta.resolution for _ in range(150)]
    times += [datetime(2024, 4, 29) + chance.random() * timedelta(days=16) for _ in range(150)]
    rows = [(n, chance.choice(["u1", "u2", "u3", "u4", "new", None]), at) for n, at in enumerate(times)]
    rows += [(len(rows), "u1", None), (len(rows) + 1, None, None)]
    for availability, max_age_days in (("ledger", None), ("as_of", 1)):
        oracle = Oracle(vectors, (), availability, max_age_days)
        wanted = [(n, *oracle(user, at)) for n, user, at in rows]
        found = told(join(rows, availability=availability, max_age_days=max_age_days))
        assert [(n, status, name, vector) for n, status, name, _, vector in found] == wanted
        assert [as_of for *_, as_of, _ in found] == [as_ofs.get(name or "") for _, _, name, _ in wanted]


ROWS: Labels = [(1, "u1", NOON), (2, "u1", NOON - timedelta(seconds=1)), (3, "u1", NOON + 9 * HOUR), (4, "new", NOON),
                (5, None, NOON), (6, "u1", None), (1, "u1", NOON)]  # fmt: skip


def publish_two_revisions(tables: FileTables) -> None:
    publish(
        tables,
        {
            snapshot(DAY, 1, NOON): {"u1": [0.5]},
            snapshot(DAY, 2, NOON + 9 * HOUR): {"u1": [0.25]},
            snapshot(DAY, 1, NOON, space="s002-b"): {"u1": [9.0]},
        },
    )


def test_every_label_is_kept_once_with_its_status_and_spaces_are_not_mixed(join: Join, tables: FileTables) -> None:
    publish_two_revisions(tables)
    joined = join(ROWS)
    assert joined.column_names == ["n", "user_id", "label_at", "snapshot_id", "as_of", "embedding", "embedding_status"]
    assert told(joined) == [
        (1, "found", "s001-a-20240501-r1", DAY, [0.5]),
        (1, "found", "s001-a-20240501-r1", DAY, [0.5]),
        (2, "no_snapshot_yet", None, None, None),
        (3, "found", "s001-a-20240501-r2", DAY, [0.25]),
        (4, "not_in_snapshot", "s001-a-20240501-r1", DAY, None),
        (5, "null_user", "s001-a-20240501-r1", DAY, None),
        (6, "null_time", None, None, None),
    ]
    assert told(join([])) == []


def test_labels_without_a_user_are_not_looked_up(tables: FileTables, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_two_revisions(tables)
    asked: list[int] = []

    def find_vectors(users: pa.Array, number_N: NDArray[np.int64], files: Sequence[Any]) -> pa.Array:
        asked.extend(number_N)
        return found(users, number_N, files)

    found = arrow_join.find_vectors
    monkeypatch.setattr(arrow_join, "find_vectors", find_vectors)
    labels = pa.table({"user_id": ["u1", None], "label_at": pa.array([NOON, NOON], pa.timestamp("us", "UTC"))})
    join_table(labels, tables=tables, sources=usable_sources(tables, "s001-a"), options=JoinOptions())
    assert asked == [0, NO_STEP]


def test_labels_without_a_vector_are_kept_skipped_or_an_error(join: Join, tables: FileTables) -> None:
    publish_two_revisions(tables)
    assert [n for n, *_ in told(join(ROWS, handle_invalid="skip"))] == [1, 1, 3]
    assert told(join(ROWS, missing="drop")) == told(join(ROWS, handle_invalid="skip"))
    assert told(join(ROWS[:1], handle_invalid="error")) == told(join(ROWS[:1]))
    with pytest.raises(Exception, match=r"a label has no vector \(status not_in_snapshot\)\. Set handleInvalid to"):
        join([ROWS[0], ROWS[3]], handle_invalid="error")


def test_in_sample_labels_are_marked_and_warned_of_or_refused(join: Join, tables: FileTables) -> None:
    for day, in_sample in ((DAY, True), (DAY + timedelta(days=1), False)):
        publish(tables, {snapshot(day, in_sample=in_sample): {"u1": [1.0]}})
    rows = [(1, "u1", NOON), (2, "u2", NOON), (3, "u1", NOON + 24 * HOUR)]
    wanted = "labels: the vectors of 2024-05-01 are in-sample: space s001-a was trained on what users did"
    with pytest.warns(InSampleWarning, match=re.escape(wanted)) as warned:
        found = join(rows)
    assert [(row.category, row.filename) for row in warned] == [(InSampleWarning, __file__)]
    assert [status for _, status, *_ in told(found)] == ["in_sample", "not_in_snapshot", "found"]
    with pytest.raises(UsageError, match=re.escape(wanted)):
        join(rows, in_sample="refuse")
    with warnings.catch_warnings(action="error"):
        join(rows[2:], in_sample="refuse")


def test_columns_may_have_any_names(join: Join, tables: FileTables) -> None:
    publish_two_revisions(tables)
    joined = join(ROWS, user="the.user", time="odd `time`", output="taste")
    assert joined.column_names[1:] == ["the.user", "odd `time`", "snapshot_id", "as_of", "taste", "taste_status"]
    assert told(joined, "taste") == told(join(ROWS))


def test_a_new_user_gets_the_encoders_vector_of_a_user_without_data(
    join: Join, tables: FileTables, tmp_path: Path
) -> None:
    content_hash = saved(tmp_path, space_id="s003-c", is_space=True).content_hash
    add_spaces(tables, "s003-c", content_hash=content_hash)
    publish(tables, {snapshot(DAY, space="s003-c", dim=16): {"u1": [0.5] * 16}})
    rows = [(1, "u1", NOON), (2, "new", NOON), (3, "new", NOON - timedelta(days=9))]
    found = told(join(rows, space="s003-c", missing="new_user"))
    assert [status for _, status, *_ in found] == ["found", "new_user", "no_snapshot_yet"]
    assert (found[0][-1], len(found[1][-1] or []), found[2][-1]) == ([0.5] * 16, 16, None)
    assert [n for n, *_ in told(join(rows, space="s003-c", missing="new_user", handle_invalid="skip"))] == [1, 2]


def test_a_vector_of_another_width_is_an_error(join: Join, tables: FileTables) -> None:
    publish(tables, {snapshot(DAY, dim=2): {"u1": [1.0, 2.0], "short": [1.0]}})
    assert told(join(ROWS[:1]))[0][-1] == [1.0, 2.0]
    with pytest.raises(Exception, match=r"s001-a: a vector must have 2 dimensions, got 1\. Rows.*`userrep backfill`"):
        join([(1, "short", NOON)])


def test_unknown_unpublished_and_retired_spaces_are_refused(join: Join, tables: FileTables) -> None:
    with pytest.raises(UsageError, match="s001-a has no published snapshot"):
        join(ROWS)
    with pytest.raises(UsageError, match="space s009: not in the registry"):
        join(ROWS, space="s009")
    mark_ready(tables, find_space(tables, "s002-b"))
    promote(tables, find_space(tables, "s002-b"))
    retire(tables, find_space(tables, "s001-a"))
    with pytest.raises(UsageError, match=r"s001-a is retired, .* Serving space: s002-b"):
        join(ROWS)


def test_labels_of_several_tables_of_a_task_are_looked_up_in_the_order_of_the_files(tables: FileTables) -> None:
    vectors = {snapshot(DAY + k * 24 * HOUR): {f"u{n}": [float(n + 1000 * k)] for n in range(400)} for k in range(3)}
    publish(tables, vectors)
    chance, num = random.Random(1), 40_000
    users = [f"u{chance.randrange(420)}" for _ in range(num)]
    times = pa.array([NOON + chance.randrange(3) * 24 * HOUR for _ in range(num)], pa.timestamp("us", "UTC"))
    labels = pa.table({"n": range(num), "user_id": users, "label_at": times})
    sources, options = usable_sources(tables, "s001-a"), JoinOptions()
    parts = list(joined_in_order(labels, sources, StoredVectors.of(tables, sources, options), options))
    assert [part.num_rows for part in parts] == [16_384, 16_384, 7_232]
    joined = pa.concat_tables(parts)
    assert joined["as_of"].to_pylist() == sorted(joined["as_of"].to_pylist())
    assert told(joined) == told(join_table(labels, tables=tables, sources=sources, options=options))


@pytest.mark.parametrize("in_order", [True, False])
def test_vectors_are_found_in_any_of_many_row_groups(join: Join, tables: FileTables, in_order: bool) -> None:
    vectors = written_by_tasks(tables, snapshot(DAY), 300, in_order=in_order)
    chance = random.Random(1)
    rows = [(n, chance.choice([f"u{chance.randint(0, 330)}", None, "u7"]), NOON) for n in range(500)]
    assert [vector for *_, vector in told(join(rows))] == [vectors.get(user or "") for _, user, _ in rows]


def test_snapshots_of_different_storage_types_are_joined_as_lists_of_float32(join: Join, tables: FileTables) -> None:
    z_D = np.array([1 / 3, -2.7182817, 40.0], np.float32)
    stored = {  # by day: each as the encoder rounds it, with the scales 1/4, 1/32, 1/2
        1: z_D, 2: z_D.astype(np.float16).astype(np.float32), 3: np.array([0.25, -87 / 32, 40.0], np.float32),
    }  # fmt: skip
    scaled = VectorStorage.of("int8", [0.25, 2.0**-5, 0.5])
    assert np.array_equal(scaled.rounded(z_D[None])[0], stored[3])
    files, since = [], tables.version(USER_EMBEDDINGS)
    for day, vector_D in stored.items():
        writer = TableWriter(tables.target(USER_EMBEDDINGS))
        rows = {"user_bucket": bucket_of(pa.array(["u1"])), "user_id": ["u1"], "embedding": listed(vector_D[None])}
        writer.write(pa.table(rows), snapshot(date(2024, 5, day)).key)
        files += writer.close()
    tables.commit(USER_EMBEDDINGS, files, replacing=lambda _: False, since=since)
    record_snapshots(tables, [snapshot(date(2024, 5, day), dim=3) for day in stored])
    joined = join([(day, "u1", datetime(2024, 5, day, 12)) for day in stored])
    assert joined.schema.field("embedding").type.value_type == pa.float32()
    assert told(joined) == [
        (day, "found", f"s001-a-202405{day:02}-r1", date(2024, 5, day), vector_D.tolist())
        for day, vector_D in stored.items()
    ]
