"""Values of protected attributes: read from files of any format, for users of the snapshot."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.support.audience_world import AudienceWorld, audience_world
from userrep.audiences import protected_values
from userrep.audiences.protected_values import read_protected
from userrep.audiences.snapshot_users import SnapshotUsers
from userrep.config import Users
from userrep.errors import UsageError
from userrep.store.xxhash import bucket_of

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> AudienceWorld:
    return audience_world(tmp_path_factory.mktemp("world"), num_users=300, dim=4)


def write(path: Path, format_: str, rows: pa.Table) -> Users:
    if format_ == "csv":
        pyarrow.csv.write_csv(rows, path)
    else:
        pq.write_table(rows, path)
    columns = {"user_id": "id"}
    return Users.model_validate(
        {"path": str(path), "format": format_, "columns": columns, "protected": ["age", "town"]}
    )


@pytest.mark.parametrize("format_", ["parquet", "csv"])
def test_values_lie_next_to_the_vectors_of_their_users(world: AudienceWorld, tmp_path: Path, format_: str) -> None:
    ids = [*world.user_ids.to_pylist()[100:], "stranger", None]
    ages = [None if k % 7 == 0 else 20 + k % 50 for k in range(len(ids))]
    towns = [None if k % 7 < 2 else "ab"[k % 2] for k in range(len(ids))]
    settings = write(tmp_path / f"users.{format_}", format_, pa.table({"id": ids, "age": ages, "town": towns}))
    values, vectors = read_protected(settings, SnapshotUsers(world.tables, world.made))
    known = {user: (age, town) for user, age, town in zip(ids, ages, towns, strict=True) if age or town}
    row_by_vector = {tuple(x): k for k, x in enumerate(world.x_ND.tolist())}
    users = [world.user_ids[row_by_vector[tuple(vector)]].as_py() for vector in vectors.to_pylist()]
    assert sorted(users) == sorted(set(known) - {"stranger", None})
    assert values["age"].type == pa.float64()
    found = zip(values["age"].to_pylist(), values["town"].to_pylist(), strict=True)
    assert [(age, town or None) for age, town in found] == [known[user] for user in users]


def test_numbers_that_are_not_finite_are_unknown(world: AudienceWorld, tmp_path: Path) -> None:
    ids = world.user_ids.to_pylist()[:3]
    settings = write(
        tmp_path / "u.parquet", "parquet", pa.table({"id": ids, "age": [1.0, np.inf, np.nan], "town": ids})
    )
    values, _ = read_protected(settings, SnapshotUsers(world.tables, world.made))
    assert sorted(values["age"].to_pylist(), key=str) == [1.0, None, None]


def test_of_many_users_those_with_the_lowest_buckets_are_read(
    world: AudienceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protected_values, "_MOST_ASKED", 40)
    settings = world.settings("age")
    values, vectors = read_protected(settings, SnapshotUsers(world.tables, world.made))
    lowest = np.argsort(bucket_of(world.user_ids), kind="stable")[:40]
    assert sorted(map(tuple, vectors.to_pylist())) == sorted(map(tuple, world.x_ND[lowest].tolist()))
    assert len(values["age"]) == 40


def test_a_users_table_without_the_column_or_with_other_ids_is_refused(world: AudienceWorld, tmp_path: Path) -> None:
    users = SnapshotUsers(world.tables, world.made)
    with pytest.raises(UsageError, match=r"users.protected\[0\]: no column 'gender'; columns found: id, age\."):
        read_protected(world.settings("gender"), users)
    rows = pa.table({"id": [["a"], ["b"]], "age": [1, 2], "town": ["a", "b"]})
    with pytest.raises(UsageError, match=r"users.columns.user_id: .* Convert the column to text\."):
        read_protected(write(tmp_path / "users.parquet", "parquet", rows), users)
