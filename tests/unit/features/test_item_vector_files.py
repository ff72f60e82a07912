"""In how many parts a job takes items, by the size of the vectors that it uses, and which files each date uses."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.support.builders import config_of
from userrep.config import Config
from userrep.features.sums.item_matrix import item_parts, vector_files
from userrep.items.versions import Versions
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import TableWriter
from userrep.store.schemas import ITEM_VECTOR_VERSIONS, ITEM_VECTORS
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

V1, V2, V3 = (date(2024, 3, 10) + timedelta(days=28 * k) for k in range(3))
VERSIONS = Versions("l1", V1, 28, frozenset({V1, V2, V3}))


def config_with(folder: Path, dims: dict[str, int], limit: str = "2GiB") -> Config:
    kinds = {name: {"kind": "als", "dim": dim, "refit_days": 28} for name, dim in dims.items()}
    return config_of(folder, item_vectors=kinds, spark={"item_vectors_bytes": limit})


def add_version(
    tables: Tables, version: date, num_items: int, num_vectors: dict[str, int], largest: float = 1.0
) -> None:
    """Record a version as complete."""
    row: dict[str, Any] = {"lineage_id": "l1", "valid_from": version, "num_items": num_items}
    row |= {"num_vectors": num_vectors, "largest": largest, "built_at": datetime(2024, 4, 1)}
    tables.add(ITEM_VECTOR_VERSIONS, [row])


def add_files(tables: Tables, *partitions: tuple[str, date, str]) -> None:
    """Write a file of one vector for each of some lineages, versions and modalities."""
    target = tables.target(ITEM_VECTORS)
    for k, values in enumerate(partitions):
        writer = TableWriter(target)
        row = {"item_bucket": 1, "item_id": "i", "item_index": 0, "vector": [1.0]}
        writer.write(pa.Table.from_pylist([row], target.schema), dict(zip(target.partition_by, values, strict=True)))
        tables.add_files(ITEM_VECTORS, writer.close(), transaction=("test", k + 1))


@pytest.mark.parametrize(
    ("num_items", "limit", "text"),
    [
        (50_000_000, "2GiB", "item vectors of 52.0 GB in 32 parts"),
        (50_000_000, "60GB", "item vectors of 52.0 GB in 1 parts"),
        (2_000_000, "2GiB", "item vectors of 2.1 GB in 1 parts"),
        (3_000_000, "2GiB", "item vectors of 3.1 GB in 2 parts"),
    ],
)
def test_items_are_taken_in_parts_by_the_size_of_their_vectors(
    tmp_path: Path, num_items: int, limit: str, text: str
) -> None:
    config, tables = config_with(tmp_path, {"behaviour": 64, "content": 64}, limit), FileTables(None, str(tmp_path))
    add_version(tables, V1, num_items, {"behaviour": num_items, "content": num_items - 5})
    assert str(item_parts(tables, config, VERSIONS, [V1, V1 + timedelta(days=9)])) == text


def test_only_versions_that_the_dates_use_count_and_items_with_no_vector_take_no_memory(tmp_path: Path) -> None:
    config, tables = config_with(tmp_path, {"behaviour": 6}), FileTables(None, str(tmp_path))
    add_version(tables, V1, 1_000, {"behaviour": 10})
    add_version(tables, V2, 1_000, {"behaviour": 700})
    add_version(tables, V3, 1_000, {"behaviour": 900})
    day = timedelta(days=1)
    bytes_by_item = (6 + 1) * 8
    for dates, num_items in (([V1], 10), ([V2 - day, V2], 710), ([V2, V2 + day, V3 - day], 700), ([V3], 900)):
        assert item_parts(tables, config, VERSIONS, dates).num_bytes == num_items * bytes_by_item


def test_each_date_uses_the_files_of_its_version_by_modality(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path))
    add_version(tables, V1, 5, {"behaviour": 5}, largest=2.5)
    add_files(tables, ("l1", V1, "behaviour"), ("l1", V1, "behaviour"), ("l1", V1, "content"), ("l1", V2, "content"),
              ("l2", V1, "content"))  # fmt: skip
    found = vector_files(tables, VERSIONS, [V2, V1, V2 - timedelta(days=1)])
    assert list(found) == [V2, V1, V2 - timedelta(days=1)]
    second, first, same = found.values()
    assert first is same
    assert (first.largest, second.largest) == (2.5, 0.0)  # the second is not recorded as complete
    folder = f"{tables.uri(ITEM_VECTORS)}/lineage_id=l1/valid_from="
    assert [(name, path.rpartition("/")[0].removeprefix(folder)) for name, path in first.files] == [
        *[("behaviour", "2024-03-10/modality=behaviour")] * 2, ("content", "2024-03-10/modality=content")
    ]  # fmt: skip
    assert [(name, path.rpartition("/")[0]) for name, path in second.files] == [
        ("content", f"{folder}2024-04-07/modality=content")
    ]
    assert list(first.files) == sorted(first.files)
    assert all(Path(path).is_file() for _, path in (*first.files, *second.files))
