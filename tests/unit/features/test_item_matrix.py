"""Item vectors in a worker's memory: the parts are the whole, each read by its row groups, and nothing else is held."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.features.test_features import ITEM_IDS, ITEMS_IX, NUM_ITEMS, SPEC
from userrep.features.sums import item_matrix
from userrep.features.sums.accumulate import Floats
from userrep.features.sums.item_matrix import ItemMatrix, VectorFiles, item_matrices, read_matrix
from userrep.store.bucket_reader import read_row_groups
from userrep.store.buckets import ALL_BUCKETS, NUM_BUCKETS, BucketRange, range_of
from userrep.store.xxhash import bucket_of

pytestmark = pytest.mark.fast


def write_version(folder: Path, vectors_IX: Floats, num_files: int) -> VectorFiles:
    """Write vectors as the pipeline does, by item bucket, in row groups of one row."""
    files, order = list[tuple[str, str]](), np.argsort(bucket_of(ITEM_IDS), kind="stable")
    for m, (name, part) in enumerate({"behaviour": slice(0, 2), "content": slice(2, 5)}.items()):
        rows = [k for k in order if vectors_IX[k, 5 + m]]
        table = pa.table(
            {
                "item_bucket": bucket_of(ITEM_IDS)[rows],
                "item_id": ITEM_IDS.take(pa.array(rows)),
                "vector": pa.array([row.tolist() for row in vectors_IX[rows, part]], pa.list_(pa.float32())),
            }
        )
        folder.mkdir(exist_ok=True)
        for k in range(num_files):
            files.append((name, str(folder / f"{name}-{k}.parquet")))
            half = np.flatnonzero(np.asarray(table["item_bucket"]) // (NUM_BUCKETS // num_files) == k)
            pq.write_table(table.take(pa.array(half)), files[-1][1], row_group_size=1)
    return VectorFiles(tuple(files), largest=float(np.abs(vectors_IX[:, :5]).max()))


def two_versions(folder: Path) -> list[VectorFiles]:
    """Write two versions of the vectors, in one file for each modality and in two."""
    turned = np.hstack([-2 * ITEMS_IX[:, :5], ITEMS_IX[:, 5:]])
    return [write_version(folder / "one", ITEMS_IX, 1), write_version(folder / "two", turned, 2)]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[VectorFiles]:
    return two_versions(tmp_path_factory.mktemp("vectors"))


def part_of(matrix: ItemMatrix) -> dict[str, list[float]]:
    return dict(zip(matrix.item_ids.to_pylist(), matrix.vectors_IX.tolist(), strict=True))


@pytest.mark.parametrize("num_parts", [1, 2, 8, 1024])
def test_the_parts_of_the_item_vectors_are_the_whole_and_each_reads_only_its_row_groups(
    versions: list[VectorFiles], monkeypatch: pytest.MonkeyPatch, num_parts: int
) -> None:
    groups: list[int] = []

    def counted(uri: str, numbers: list[int], columns: list[str], *, use_threads: bool) -> pa.Table:
        groups.extend(numbers)
        return read_row_groups(uri, numbers, columns, use_threads=use_threads)

    monkeypatch.setattr(item_matrix, "read_row_groups", counted)
    for version, sign in zip(versions, (1, -2), strict=True):
        want = np.hstack([sign * ITEMS_IX[:, :5], ITEMS_IX[:, 5:]]).tolist()
        parts: dict[str, list[float]] = {}
        groups.clear()
        for k in range(num_parts):
            items = range_of(k, num_parts)
            found = part_of(read_matrix(version, SPEC, items))
            assert all(items.start <= bucket_of(pa.array([item]))[0] < items.stop for item in found)
            assert not parts.keys() & found.keys()
            parts |= found
        assert parts == dict(zip(ITEM_IDS.to_pylist(), want, strict=True))
        num_vectors = int(ITEMS_IX[:, 5:].sum())
        assert len(groups) == 2 * num_vectors, "once for the ids and once for the vectors"


def test_of_a_row_group_only_the_items_of_the_range_are_taken(tmp_path: Path) -> None:
    table = pa.table({
        "item_bucket": pa.array([4, 5, 6, 7], pa.int32()), "item_id": ["w", "x", "y", "z"],
        "vector": pa.array([[k, -k] for k in range(4)], pa.list_(pa.float32())),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "f.parquet")
    files = VectorFiles((("behaviour", str(tmp_path / "f.parquet")),), largest=3.0)
    found = part_of(read_matrix(files, SPEC, BucketRange(5, 7)))
    assert found == {"x": [1, -1, 0, 0, 0, 1, 0], "y": [2, -2, 0, 0, 0, 1, 0]}


def test_a_worker_holds_what_its_task_needs_and_nothing_else(
    versions: list[VectorFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[BucketRange] = []

    def noted(version: VectorFiles, spec: Any, items: BucketRange) -> ItemMatrix:
        read.append(items)
        return read_matrix(version, spec, items)

    monkeypatch.setattr(item_matrix, "_matrix_cache", {})
    monkeypatch.setattr(item_matrix, "read_matrix", noted)
    for items in (ALL_BUCKETS, ALL_BUCKETS, range_of(0, 2), range_of(0, 2), range_of(1, 2)):
        item_matrices(versions, SPEC, items)
        assert {held for *_, held in item_matrix._matrix_cache} == {items}
    item_matrices(versions[:1], SPEC, range_of(1, 2))
    assert len(item_matrix._matrix_cache) == 1
    assert read == [ALL_BUCKETS] * 2 + [range_of(0, 2)] * 2 + [range_of(1, 2)] * 2


@pytest.mark.parametrize("same_hash", [False, True])
def test_an_item_is_found_in_its_row_even_if_hashes_meet(monkeypatch: pytest.MonkeyPatch, same_hash: bool) -> None:
    if same_hash:
        monkeypatch.setattr(item_matrix, "hash64", lambda texts: np.full(len(texts), 7, np.uint64))
    matrix = ItemMatrix.empty(ITEM_IDS, 3)
    asked = pa.array(["i3", "none", "i0", "i3", ""])
    rows = matrix.rows_of(asked)
    assert rows[[1, 4]].tolist() == [-1, -1]
    assert matrix.item_ids.take(pa.array(rows[[0, 2, 3]])).to_pylist() == ["i3", "i0", "i3"]
    assert ItemMatrix.empty(ITEM_IDS[:0], 3).rows_of(asked).tolist() == [-1] * 5
    assert sorted(matrix.rows_of(ITEM_IDS)) == list(range(NUM_ITEMS))
