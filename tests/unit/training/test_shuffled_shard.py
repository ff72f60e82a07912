"""A shard's rows in an epoch's order: every row once, shuffled within buffers, the same order from any starting row."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.support.builders import write_training_rows
from userrep.training.data import shards
from userrep.training.data.row_stream import RowGroup, row_groups
from userrep.training.data.shards import MemoryBudget, ShuffledShard

pytestmark = pytest.mark.fast

WIDTH, NUM_ROWS, BUDGET = 3, 50, MemoryBudget(buffer_rows=10, read_bytes=100)

ROW_GROUPS = [range(NUM_ROWS)[k::2][start : start + 7] for k in range(2) for start in range(0, 25, 7)]  # their keys


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> list[RowGroup]:
    """Write fifty rows in two files of row groups of seven; the numbers of a row equal its key."""
    return row_groups(write_training_rows(tmp_path_factory.mktemp("rows"), "train", 0, range(NUM_ROWS), width=WIDTH))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def taken(
    groups: list[RowGroup],
    pool: ThreadPoolExecutor,
    *parts: int,
    first: int = 0,
    seed: tuple[int, int, int] = (17, 1, 0),
) -> list[int]:
    """Take portions of a shard's rows, starting at row ``first``; return their keys in order."""
    keys: list[int] = []
    rows = range(first, first + sum(parts))
    with closing(ShuffledShard(groups, width=WIDTH, seed=seed, budget=BUDGET, rows=rows, pool=pool)) as shard:
        for num in parts:
            row_key_B, x_BF = np.full(num, -1), np.full((num, WIDTH), -1, np.float32)
            shard.take_into(row_key_B, x_BF)
            assert np.array_equal(x_BF, np.repeat(row_key_B[:, None], WIDTH, axis=1).astype(np.float32))
            keys += row_key_B.tolist()
        pool.submit(int).result()  # wait until the pool is idle
    return keys


def test_every_row_comes_once_for_any_portion_sizes(groups: list[RowGroup], pool: ThreadPoolExecutor) -> None:
    whole = taken(groups, pool, NUM_ROWS)
    assert sorted(whole) == list(range(NUM_ROWS))
    assert taken(groups, pool, 1, 9, 10, 3, 20, 7) == whole
    assert taken(groups, pool, *[1] * NUM_ROWS) == whole


def test_the_order_from_a_later_row_is_that_of_the_whole(groups: list[RowGroup], pool: ThreadPoolExecutor) -> None:
    whole = taken(groups, pool, NUM_ROWS)
    for first in range(NUM_ROWS):
        num = min(13, NUM_ROWS - first)
        assert taken(groups, pool, num, first=first) == whole[first : first + num]


def test_seed_epoch_and_shard_determine_the_order(groups: list[RowGroup], pool: ThreadPoolExecutor) -> None:
    seeds = [(17, 1, 0), (18, 1, 0), (17, 2, 0), (17, 1, 1)]
    orders = [taken(groups, pool, NUM_ROWS, seed=seed) for seed in seeds]
    assert all(orders[0] != order for order in orders[1:])
    assert all(sorted(order) == list(range(NUM_ROWS)) for order in orders)


def test_a_buffer_has_neighbouring_row_groups_in_a_random_order(
    groups: list[RowGroup], pool: ThreadPoolExecutor
) -> None:
    parts, order = [set(keys) for keys in ROW_GROUPS], taken(groups, pool, NUM_ROWS)
    buffers = [order[start : start + 10] for start in range(0, NUM_ROWS, 10)]
    assert all(sum(bool(part & set(buffer)) for part in parts) <= 4 for buffer in buffers)
    assert not any(buffer == sorted(buffer) for buffer in buffers)
    positions = [min(order.index(row) // 10 for row in part) for part in parts]
    assert positions != sorted(positions)  # row groups are shuffled, too


def test_row_groups_before_the_buffer_of_the_first_row_are_not_read(
    groups: list[RowGroup], pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    whole = taken(groups, pool, NUM_ROWS)
    rest = set(whole[20:])  # from the buffer of row 25 on
    needed = [bool(rest & set(keys)) for keys in ROW_GROUPS]
    assert needed.count(False) >= 2
    gone = str(tmp_path / "gone.parquet")
    left = [group if need else group._replace(path=gone) for group, need in zip(groups, needed, strict=True)]
    assert taken(left, pool, 25, first=25) == whole[25:]


def test_each_shard_gets_an_equal_part_of_the_memory_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_BYTES", 2400)
    assert MemoryBudget.of(4, WIDTH) == MemoryBudget(
        buffer_rows=10, read_bytes=50
    )  # 600 bytes; a row has a key and three numbers
    assert MemoryBudget.of(8, WIDTH).buffer_rows == MemoryBudget.of(4, WIDTH).buffer_rows // 2
    assert MemoryBudget.of(4, 10_000).buffer_rows == 1
    monkeypatch.setattr(shards, "MAX_BYTES", 2**30)
    assert MemoryBudget.of(1, WIDTH).read_bytes == 2**20
