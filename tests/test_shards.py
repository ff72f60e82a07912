"""Training rows from Parquet: the same global batches at any number of ranks, bounded memory, threads that end."""

import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from userrep.errors import UsageError
from userrep.training import shards
from userrep.training.shards import (
    Batch,
    count_rows,
    epoch_batches,
    first_rows,
    prefetched,
    shard_files,
    steps_per_epoch,
)

WIDTH, NUM_SHARDS = 3, 4


def write_rows(root: Path, split: str, shard: int, keys: range, *, files: int = 2, group: int = 7) -> None:
    """Write rows whose inputs are their key, in several files of several row groups."""
    folder = root / f"split={split}" / f"shard={shard}"
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(files):
        mine = keys[k::files]
        x = pa.array([[float(key)] * WIDTH for key in mine], pa.list_(pa.float32()))
        table = pa.table({"row_key": pa.array(mine, pa.int64()), "x": x})
        pq.write_table(table, folder / f"part {k}.parquet", row_group_size=group)


@pytest.fixture
def files(tmp_path: Path) -> list[list[str]]:
    root = tmp_path / "training rows"
    for shard in range(NUM_SHARDS):
        write_rows(root, "train", shard, range(1000 * shard, 1000 * shard + 50 + shard))
    return shard_files([path.as_uri() for path in root.rglob("*.parquet")], NUM_SHARDS)["train"]


def batches(files: list[list[str]], size: int, *, epoch: int = 1, seed: int = 17) -> list[list[Batch]]:
    """Return the batches of every rank."""
    steps = steps_per_epoch(count_rows(files), 16)
    return [
        list(
            epoch_batches(files, rank=rank, size=size, batch_size=16, steps=steps, width=WIDTH, seed=seed, epoch=epoch)
        )
        for rank in range(size)
    ]


def global_batches(ranks: list[list[Batch]]) -> list[list[int]]:
    return [sorted(np.concatenate([part.row_key_B for part in step]).tolist()) for step in zip(*ranks, strict=True)]


def test_files_are_found_by_the_split_and_shard_in_their_paths() -> None:
    found = shard_files(
        [
            "file:///data/my%20rows/split=train/shard=1/b.parquet",
            "file:/data/my%20rows/split=train/shard=1/a.parquet",
            "/data/100%25/split=valid_users/shard=0/c.parquet",
        ],
        2,
    )
    assert found == {
        "train": [[], ["/data/my rows/split=train/shard=1/a.parquet", "/data/my rows/split=train/shard=1/b.parquet"]],
        "valid_users": [["/data/100%25/split=valid_users/shard=0/c.parquet"], []],
    }


@pytest.mark.parametrize("path", ["/data/part.parquet", "/data/split=train/shard=2/part.parquet"])
def test_a_file_outside_of_any_shard_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"a file under split=NAME/shard=N with N below 2 was expected"):
        shard_files([path], 2)


def test_rows_are_counted_per_shard(files: list[list[str]]) -> None:
    assert count_rows([*files, []]) == [50, 51, 52, 53, 0]


def test_steps_are_what_the_smallest_shard_can_serve() -> None:
    assert steps_per_epoch([50, 51, 100, 53], 16) == 12
    with pytest.raises(
        UsageError, match=r"smallest of 2 shards has 3 rows, one step takes 8 of each: set training.batch_size"
    ):
        steps_per_epoch([3, 100], 16)


def test_global_batches_are_the_same_at_1_2_and_4_ranks(files: list[list[str]]) -> None:
    expected = global_batches(batches(files, 1))
    assert global_batches(batches(files, 2)) == expected
    assert global_batches(batches(files, 4)) == expected


def test_every_rank_takes_equal_steps_of_equal_batches(files: list[list[str]]) -> None:
    for size in (1, 2, 4):
        for rank in batches(files, size):
            assert [batch.x_BF.shape for batch in rank] == [(16 // size, WIDTH)] * 12


def test_no_row_comes_twice_in_an_epoch_and_inputs_stay_with_their_keys(files: list[list[str]]) -> None:
    batch = Batch.joined(batches(files, 1)[0])
    assert len(set(batch.row_key_B)) == 12 * 16
    assert np.array_equal(batch.x_BF, np.repeat(batch.row_key_B[:, None], WIDTH, axis=1).astype(np.float32))


def test_the_order_follows_from_seed_and_epoch(files: list[list[str]]) -> None:
    first = global_batches(batches(files, 1))
    assert global_batches(batches(files, 1)) == first
    assert global_batches(batches(files, 1, epoch=2)) != first
    assert global_batches(batches(files, 1, seed=-18)) != first


def test_rows_are_shuffled_in_buffers_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BUFFER_ROWS", 10)
    write_rows(tmp_path, "train", 0, range(100), files=1, group=100)
    sizes: list[int] = []
    permuted = shards._permuted

    def noted(buffer: list[Batch], random: np.random.Generator) -> Batch:
        rows = permuted(buffer, random)
        sizes.append(len(rows.row_key_B))
        return rows

    monkeypatch.setattr(shards, "_permuted", noted)
    files = shard_files(map(str, tmp_path.rglob("*.parquet")), 1)["train"]
    read = list(epoch_batches(files, rank=0, size=1, batch_size=7, steps=14, width=WIDTH, seed=1, epoch=1))
    assert len(set(Batch.joined(read).row_key_B)) == 98
    assert max(sizes) < 20


def test_rows_of_another_width_are_refused(files: list[list[str]]) -> None:
    with pytest.raises(ValueError, match=r"part 0.parquet: rows of 5 inputs were expected, got 21 in 7 rows"):
        first_rows(files, rank=0, size=1, max_rows=8, width=5)


def test_validation_rows_are_the_same_at_1_and_2_ranks_and_capped(files: list[list[str]]) -> None:
    one = first_rows(files, rank=0, size=1, max_rows=40, width=WIDTH)
    two = [first_rows(files, rank=rank, size=2, max_rows=40, width=WIDTH) for rank in range(2)]
    assert one.shape == (40, WIDTH)
    assert sorted(np.concatenate(two)[:, 0]) == sorted(one[:, 0])
    assert len(first_rows(files, rank=0, size=1, max_rows=10_000, width=WIDTH)) == 206


# Prefetching


def prefetch_threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


def numbers(closed: list[bool], fail_at: int | None = None) -> Generator[int]:
    try:
        for k in range(1000):
            if k == fail_at:
                raise OSError("the file is gone")
            yield k
    finally:
        closed.append(True)


def test_prefetching_changes_nothing_and_its_thread_ends() -> None:
    closed: list[bool] = []
    assert list(prefetched(numbers(closed))) == list(range(1000))
    assert closed == [True]
    assert prefetch_threads() == 0


def test_a_consumer_that_stops_early_ends_the_thread() -> None:
    closed: list[bool] = []
    source = prefetched(numbers(closed), depth=2)
    assert next(source) == 0
    assert prefetch_threads() == 1
    source.close()
    assert closed == [True]
    assert prefetch_threads() == 0


def test_what_the_source_raises_reaches_the_consumer() -> None:
    closed: list[bool] = []
    source = prefetched(numbers(closed, fail_at=3))
    assert [next(source) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the file is gone"):
        next(source)
    assert prefetch_threads() == 0
