"""Embeddings from files to files: every row group is of one task, and files have the vectors of their features."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.inference_data import as_stored
from tests.unit.features.test_layout import LAYOUT, SPEC
from tests.unit.inference.test_inference import as_arrow, random_users, same_bits
from tests.unit.inference.test_model import saved
from userrep.inference import embed
from userrep.inference.embed import _tasks, _write_embeddings
from userrep.inference.encoder import Encoder
from userrep.model.artifact import load_artifact
from userrep.store.arrow import stacked
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.schemas import USER_EMBEDDINGS

pytestmark = pytest.mark.fast

D1, D2 = date(2024, 5, 1), date(2024, 5, 2)
NUM_USERS, GROUP = 23, 5
VALUES = {D1: {"space_id": "s1", "as_of": D1, "revision": 3}, D2: {"space_id": "s1", "as_of": D2, "revision": 4}}


def file_of(num_rows: int, name: str = "f") -> TableFile:
    return TableFile(name, 0, num_rows, {"as_of": D1})


# Tasks


@pytest.mark.parametrize("seed", range(20))
def test_every_row_group_is_of_one_task(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(seed)
    monkeypatch.setattr(embed, "_MAX_ROWS", int(random.integers(1, 60)))
    monkeypatch.setattr(embed, "_MIN_ROWS", int(random.integers(1, 30)))
    files = [file_of(int(random.integers(0, 80)), f"f{k}") for k in range(random.integers(0, 6))]
    tasks = _tasks(files, int(random.integers(1, 9)))
    taken = [
        (file, row)
        for task in tasks
        for file, first, stop in task
        for row in range(file.num_rows)
        if first <= row < stop
    ]
    assert sorted(taken) == sorted((file, row) for file in files for row in range(file.num_rows))
    assert all(task for task in tasks)


@pytest.mark.parametrize(
    ("num_rows", "min_tasks", "num_tasks"),
    [
        (0, 4, 0),
        (1, 4, 1),
        (16_384, 4, 1),  # so few that a task more would cost more than it saves
        (16_385, 4, 2),
        (16_384 * 4, 4, 4),
        (200_000, 4, 4),
        (1_000_001, 4, 5),  # no task has more than 250,000
    ],
)
def test_tasks_are_as_many_as_asked_for_unless_they_were_too_small_or_too_large(
    num_rows: int, min_tasks: int, num_tasks: int
) -> None:
    assert len(_tasks([file_of(num_rows)], min_tasks)) == num_tasks


def test_a_task_may_have_parts_of_several_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "_MIN_ROWS", 1)
    first, second = file_of(10, "a"), file_of(20, "b")
    assert _tasks([first, second], 3) == [
        [(first, 0, 10)],
        [(second, 0, 10)],
        [(second, 10, 20)],
    ]
    assert _tasks([first, second], 2) == [
        [(first, 0, 15), (second, -10, 5)],
        [(second, 5, 20)],
    ]


# Files


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("space") / "s1"
    saved(folder, layout=LAYOUT)
    return Encoder(load_artifact(str(folder)))


def users_of(as_of: date) -> list[dict[str, Any]]:
    """Draw users with gaps, but for vectors: of those that are not there, features have zeros."""
    users = random_users(NUM_USERS, seed=as_of.day)
    for block in SPEC.pooled:
        for user in (user for user in users if user[block.column] is None):
            user |= {block.column: [0.0] * block.dim, block.flag: False}
    return users


def write(path: Path, as_of: date) -> TableFile:
    """Write a date's users as their table has them, in row groups of five."""
    rows = pa.Table.from_batches([as_stored(as_arrow(users_of(as_of)), SPEC)]).drop_columns(["as_of"])
    pq.write_table(rows, path, row_group_size=GROUP)
    return TableFile(path.name, 0, NUM_USERS, {"as_of": as_of}, table_uri=str(path.parent))


def read(file: TableFile) -> pa.Table:
    return pq.ParquetFile(file.uri).read()


def test_a_file_has_the_vectors_of_the_row_groups_that_begin_within_a_task_s_rows(
    tmp_path: Path, encoder: Encoder
) -> None:
    tables, features = FileTables(None, str(tmp_path / "root")), write(tmp_path / "features.parquet", D1)
    target, users = tables.target(USER_EMBEDDINGS), users_of(D1)
    wanted_BD, done = encoder.embed(as_arrow(users)), []
    for first, stop, begin, end in ((-3, 4, 0, 5), (4, 10, 5, 10), (10, 16, 10, 20), (16, 99, 20, 23)):
        (file,) = _write_embeddings((features, first, stop), encoder, target, VALUES)
        rows = read(file)
        assert rows["user_id"].to_pylist() == [user["user_id"] for user in users[begin:end]]
        assert same_bits(np.array(stacked(rows["embedding"].combine_chunks(), 16)), wanted_BD[begin:end])
        assert (file.num_rows, file.values) == (end - begin, VALUES[D1])
        buckets = rows["user_bucket"].to_pylist()
        assert file.buckets == (min(buckets), max(buckets))
        done += rows["user_id"].to_pylist()
    assert done == [user["user_id"] for user in users]


def test_a_task_without_a_row_group_of_a_file_writes_nothing(tmp_path: Path, encoder: Encoder) -> None:
    tables, features = FileTables(None, str(tmp_path / "root")), write(tmp_path / "features.parquet", D1)
    assert _write_embeddings((features, 6, 10), encoder, tables.target(USER_EMBEDDINGS), VALUES) == []


def test_each_date_goes_to_the_partition_of_its_own_revision(tmp_path: Path, encoder: Encoder) -> None:
    tables = FileTables(None, str(tmp_path / "root"))
    target, since = tables.target(USER_EMBEDDINGS), tables.version(USER_EMBEDDINGS)
    files = [
        file
        for as_of in (D1, D2)
        for file in _write_embeddings(
            (write(tmp_path / f"{as_of}.parquet", as_of), 0, NUM_USERS), encoder, target, VALUES
        )
    ]
    assert [file.path.rpartition("/")[0] for file in files] == [
        "space_id=s1/as_of=2024-05-01/revision=3", "space_id=s1/as_of=2024-05-02/revision=4",
    ]  # fmt: skip
    tables.commit(USER_EMBEDDINGS, files, replacing=lambda _: False, since=since)
    stored = tables.ledger(USER_EMBEDDINGS, ("as_of", "revision", "user_id"))
    assert sorted(tuple(row) for row in stored) == sorted(
        (as_of, VALUES[as_of]["revision"], user["user_id"]) for as_of in (D1, D2) for user in users_of(as_of)
    )
