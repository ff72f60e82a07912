"""The vectors of a micro-batch as files of ``embedding_updates``, and what the driver learns of each file."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from userrep.store.arrow import listed
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.schemas import EMBEDDING_UPDATES
from userrep.store.tables import Tables
from userrep.streaming.encoding import write_updates

pytestmark = pytest.mark.fast

D1, D2 = date(2024, 5, 1), date(2024, 5, 2)
COMPUTED = datetime(2024, 5, 1, 12, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")


def encoded(space_id: str, as_of: date, users: list[str], waited: list[float], first: int = 0) -> pa.RecordBatch:
    """Build what encoding yields for one space and date; the users' events are minutes apart, the first the newest."""
    num = len(users)
    arrived = [COMPUTED - timedelta(seconds=seconds) for seconds in waited]
    vectors = np.arange(first, first + 2 * num, dtype=np.float32).reshape(num, 2)
    return pa.RecordBatch.from_pydict(
        {
            "space_id": pa.array([space_id] * num),
            "as_of": pa.array([as_of] * num, pa.date32()),
            "user_id": pa.array(users),
            "event_at": pa.array([COMPUTED - timedelta(minutes=k) for k in range(num)], TIME),
            "computed_at": pa.array([COMPUTED] * num, TIME),
            "arrived_at": pa.array(arrived, TIME),
            "is_new": pa.array([k == 0 for k in range(num)]),
            "embedding": listed(vectors),
        }
    )


def written(tables: Tables, *batches: pa.RecordBatch) -> list[dict[str, Any]]:
    files = write_updates(batches, tables.target(EMBEDDING_UPDATES), query_id="clicks", batch_id=42)
    return [row for batch in files for row in batch.to_pylist()]


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return FileTables(None, str(tmp_path))


def test_each_space_and_date_gets_a_file_with_the_name_and_number_of_the_batch(tables: Tables, tmp_path: Path) -> None:
    parts = [("s1", D1, ["a", "b"]), ("s1", D2, ["a"]), ("s2", D1, ["b", "c"])]
    rows = written(tables, *(encoded(*part, [1.0] * len(part[2]), first=10 * k) for k, part in enumerate(parts)))
    files = [TableFile.from_json(row["file"]) for row in rows]
    assert [(file.values["space_id"], file.values["as_of"], file.num_rows) for file in files] == [
        ("s1", str(D1), 2), ("s1", str(D2), 1), ("s2", str(D1), 2),
    ]  # fmt: skip
    folder = tmp_path / "tables" / "embedding_updates"
    for file, (space_id, as_of, users), first in zip(files, parts, (0, 10, 20), strict=True):
        assert file.path.startswith(f"space_id={space_id}/as_of={as_of}/")
        assert file.size == (folder / file.path).stat().st_size
        content = pq.ParquetFile(folder / file.path).read().to_pylist()
        assert [(of["user_id"], of["query_id"], of["batch_id"]) for of in content] == [
            (user, "clicks", 42) for user in users
        ]
        assert [of["embedding"] for of in content] == [
            [first + 2.0 * k, first + 2.0 * k + 1] for k in range(len(users))
        ]
        assert "arrived_at" not in content[0]


def test_the_driver_learns_the_newest_event_and_the_seconds_from_arrival_to_vector(tables: Tables) -> None:
    first, second = written(tables, encoded("s1", D1, ["a", "b"], [0.25, 90.0]), encoded("s1", D2, ["c"], [0.0]))
    assert (first["newest_at"], first["seconds"]) == (COMPUTED, [0.25, 90.0])
    assert (second["newest_at"], second["seconds"]) == (COMPUTED, [0.0])


def test_a_task_without_vectors_writes_nothing(tables: Tables, tmp_path: Path) -> None:
    assert written(tables) == []
    assert list((tmp_path / "tables" / "embedding_updates").rglob("*.parquet")) == []


def test_what_a_task_returns_is_a_file_that_can_be_committed(tables: Tables) -> None:
    (row,) = written(tables, encoded("s1", D1, ["a", "b"], [1.0, 2.0]))
    files = [TableFile.from_json(row["file"])]
    uri, values = tables.uri(EMBEDDING_UPDATES), {"space_id": "s1", "as_of": str(D1)}
    assert files == [TableFile(files[0].path, files[0].size, 2, values, table_uri=uri)]
    tables.add_files(EMBEDDING_UPDATES, files, transaction=("clicks", 42))
    stored = tables.ledger(EMBEDDING_UPDATES, ("space_id", "as_of", "user_id", "batch_id", "is_new"))
    assert [tuple(row) for row in stored] == [("s1", D1, "a", 42, True), ("s1", D1, "b", 42, False)]
