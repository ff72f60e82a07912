"""Training rows from Parquet: the same global batches at any number of ranks, from any step, in bounded memory."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.support.builders import write_training_rows
from userrep.config import Training
from userrep.errors import UsageError
from userrep.store.arrow import listed, packed, unpacked
from userrep.store.filesystem import file_system
from userrep.training.data import row_stream, shards
from userrep.training.data.row_stream import Batch
from userrep.training.data.shards import epoch_batches, first_rows, read_steps_per_epoch, shard_files

pytestmark = pytest.mark.fast

WIDTH, NUM_SHARDS, STEPS = 3, 4, 12


@pytest.fixture(autouse=True)
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set buffers of ten rows, so that few rows fill several of them."""
    monkeypatch.setattr(shards, "MAX_BYTES", 600 * NUM_SHARDS)


@pytest.fixture
def files(tmp_path: Path) -> list[list[str]]:
    root = tmp_path / "training rows"
    for shard in range(NUM_SHARDS):
        write_training_rows(root, "train", shard, range(1000 * shard, 1000 * shard + 50 + shard), width=WIDTH)
    return shard_files([path.as_uri() for path in root.rglob("*.parquet")], NUM_SHARDS)["train"]


def batches(
    files: list[list[str]], rank: int = 0, size: int = 1, *, epoch: int = 1, seed: int = 17, first_step: int = 0
) -> list[Batch]:
    """Return all batches of one rank."""
    return list(
        epoch_batches(
            files,
            rank=rank,
            size=size,
            batch_size=16,
            steps=STEPS,
            width=WIDTH,
            seed=seed,
            epoch=epoch,
            first_step=first_step,
        )
    )


def keys(batches: list[Batch]) -> list[list[int]]:
    return [batch.row_key_B.tolist() for batch in batches]


def global_batches(files: list[list[str]], size: int) -> list[list[int]]:
    """Return the sorted keys of each step over all ranks."""
    ranks = [keys(batches(files, rank, size)) for rank in range(size)]
    return [sorted(key for part in parts for key in part) for parts in zip(*ranks, strict=True)]


def test_files_are_found_by_the_split_and_shard_in_their_uris() -> None:
    train = ["file:/my%20rows/split=train/shard=1/a.parquet", "s3a://b/split=train/shard=1/b.parquet"]
    valid = "abfss://c@account.dfs.core.windows.net/100%25/split=valid_users/shard=0/c.parquet"
    assert shard_files([train[1], valid, train[0]], 2) == {"train": [[], train], "valid_users": [[valid], []]}


@pytest.mark.parametrize("path", ["/data/part.parquet", "/data/split=train/shard=2/part.parquet"])
def test_a_file_outside_a_shard_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"expected a file under split=NAME/shard=N with N below 2"):
        shard_files([path], 2)


def test_the_smallest_shard_determines_the_number_of_steps(files: list[list[str]]) -> None:
    assert read_steps_per_epoch({"train": files}, Training(batch_size=16, num_shards=4)) == STEPS
    assert read_steps_per_epoch({"train": files[1:]}, Training(batch_size=15, num_shards=3)) == 10  # 51 rows, 5 a step
    large = Training(batch_size=256, num_shards=4)
    for split, num_rows in (({"train": files}, 50), ({"train": [*files[:3], []]}, 0), ({}, 0)):
        message = (
            rf"smallest of 4 shards has {num_rows} rows, but one step takes 64 from each\. Lower training.batch_size"
        )
        with pytest.raises(UsageError, match=message):
            read_steps_per_epoch(split, large)


def test_global_batches_are_the_same_at_1_2_and_4_ranks(files: list[list[str]]) -> None:
    expected = global_batches(files, 1)
    assert global_batches(files, 2) == expected
    assert global_batches(files, 4) == expected


def test_every_rank_takes_equal_steps_of_equal_batches(files: list[list[str]]) -> None:
    for size in (1, 2, 4):
        for rank in range(size):
            assert [batch.x_BF.shape for batch in batches(files, rank, size)] == [(16 // size, WIDTH)] * STEPS


def test_no_row_is_repeated_in_an_epoch_and_inputs_stay_with_their_keys(files: list[list[str]]) -> None:
    row_key = np.concatenate([batch.row_key_B for batch in batches(files)])
    x = np.concatenate([batch.x_BF for batch in batches(files)])
    assert len(set(row_key)) == STEPS * 16
    assert np.array_equal(x, np.repeat(row_key[:, None], WIDTH, axis=1).astype(np.float32))


def test_seed_and_epoch_determine_the_order(files: list[list[str]]) -> None:
    first = keys(batches(files))
    assert keys(batches(files)) == first
    assert keys(batches(files, epoch=2)) != first
    assert keys(batches(files, seed=-18)) != first


def test_rows_are_shuffled_within_buffers_and_across_row_groups(files: list[list[str]]) -> None:
    row_key = np.concatenate([batch.row_key_B[:4] for batch in batches(files)])  # of the first shard
    buffers = [set(row_key[start : start + 10]) for start in range(0, 40, 10)]
    stored = [[row for row in range(50) if row % 2 == k] for k in range(2)]
    groups = [set(rows[start : start + 7]) for rows in stored for start in range(0, 25, 7)]
    assert all(sum(bool(buffer & group) for group in groups) <= 4 for buffer in buffers)
    assert not any(
        list(row_key[start : start + 10]) == sorted(row_key[start : start + 10]) for start in range(0, 40, 10)
    )


# Resuming at a later step


def test_an_epoch_resumed_at_any_step_is_the_rest_of_the_whole_epoch(files: list[list[str]]) -> None:
    for rank, size in ((0, 1), (1, 2)):
        whole = keys(batches(files, rank, size))
        for first_step in range(STEPS + 1):
            assert keys(batches(files, rank, size, first_step=first_step)) == whole[first_step:]


def test_rows_before_the_first_step_are_not_decoded(files: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = 0

    def counted(column: pa.BinaryArray, width: int) -> np.ndarray:
        nonlocal decoded
        decoded += len(column)
        return unpacked(column, width)

    monkeypatch.setattr(row_stream, "unpacked", counted)
    batches(files)
    assert decoded >= STEPS * 16
    decoded = 0
    batches(files, first_step=STEPS - 1)  # rows 44 to 48 of each shard, which lie in the buffer of rows 40 to 50
    assert decoded <= NUM_SHARDS * (10 + 7 + 2)  # and those of a row group before it, and of a slice behind it


# Memory


@pytest.fixture
def arrow_pool() -> Iterator[pa.MemoryPool]:
    """Count Arrow's memory during the test."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    yield pool
    pa.set_memory_pool(before)


@pytest.mark.parametrize("num_shards", [2, 8])
def test_the_memory_of_a_rank_stays_within_its_budget_for_large_row_groups(
    num_shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrow_pool: pa.MemoryPool
) -> None:
    max_bytes, width, num_rows = 2**21, 64, 40_000 // num_shards
    monkeypatch.setattr(shards, "MAX_BYTES", max_bytes)
    for shard in range(num_shards):
        write_training_rows(tmp_path, "train", shard, range(num_rows), files=1, group=num_rows, width=width)
    files = shard_files(map(str, tmp_path.rglob("*.parquet")), num_shards)["train"]
    steps = num_rows * num_shards // 64
    before = arrow_pool.bytes_allocated()
    tracemalloc.start()
    for _ in epoch_batches(files, rank=0, size=1, batch_size=64, steps=steps, width=width, seed=1, epoch=1):
        pass
    num_bytes = tracemalloc.get_traced_memory()[1] + arrow_pool.max_memory() - before
    tracemalloc.stop()
    pages = num_shards * 3 * 8192  # a page of a column that is read, twice while it is decompressed
    batch = 2 * 64 * (8 + 4 * width)
    assert num_bytes < max_bytes + pages + batch + 2**18  # and Python objects
    assert num_bytes > max_bytes // 2  # the right pool is measured


# Rows as they are stored


def test_rows_of_another_width_are_refused(files: list[list[str]]) -> None:
    with pytest.raises(ValueError, match=r"part%200.parquet: 5 numbers a row \(20 bytes\) were expected, got 12 bytes"):
        first_rows(files, rank=0, size=1, max_rows=8, width=5)


def test_a_missing_file_raises_in_the_consumer(files: list[list[str]]) -> None:
    Path(file_system(files[2][0])[1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"shard=2/part 0.parquet"):
        batches(files)


def test_packed_rows_are_unpacked_unchanged_and_lists_are_refused() -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert np.array_equal(unpacked(packed(matrix)[1:], 3), matrix[1:])
    with pytest.raises(ValueError, match=r"3 numbers a row, packed, were expected, got a column of list<"):
        unpacked(listed(matrix), 3)


def test_validation_rows_are_the_same_at_1_and_2_ranks_and_capped(files: list[list[str]]) -> None:
    one = np.concatenate(first_rows(files, rank=0, size=1, max_rows=40, width=WIDTH))
    two = [rows for rank in range(2) for rows in first_rows(files, rank=rank, size=2, max_rows=40, width=WIDTH)]
    assert one.shape == (40, WIDTH)
    assert sorted(np.concatenate(two)[:, 0]) == sorted(one[:, 0])
    assert [len(rows) for rows in first_rows(files, rank=0, size=1, max_rows=10_000, width=WIDTH)] == [50, 51, 52, 53]
    assert [rows.shape for rows in first_rows([[], []], rank=0, size=1, max_rows=8, width=WIDTH)] == [(0, WIDTH)] * 2
