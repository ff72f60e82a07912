"""Files that tasks write for Delta tables: one for each partition, laid out as the table's properties state."""

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.small_row_groups import SHARES
from userrep.store.arrow import combined, listed, stacked
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import TableWriter, Target
from userrep.store.schemas import USER_EMBEDDINGS

pytestmark = pytest.mark.fast

D1, D2 = date(2024, 5, 1), date(2024, 5, 2)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return FileTables(None, str(tmp_path / "a b")).target(SHARES)


def bucketed(*buckets: int) -> pa.Table:
    """Return rows whose columns have another order and wider types than the table's."""
    return pa.table(
        {
            "x": pa.array([[0.5, k] for k in buckets], pa.list_(pa.float64())),
            "user_id": [f"u{k}" for k in buckets],
            "user_bucket": pa.array(buckets, pa.int64()),
        }
    )


def read(target: Target, file: TableFile) -> pq.ParquetFile:
    return pq.ParquetFile(f"{target.uri}/{file.path}")


def test_each_partition_gets_a_file_of_its_own_in_its_folder(target: Target) -> None:
    writer = TableWriter(target)
    writer.write(bucketed(5, 9), {"user_slice": "0-of-2", "day": D1})
    writer.write(bucketed(7), {"user_slice": "1-of-2", "day": D1})
    writer.write(bucketed(2), {"user_slice": "0-of-2", "day": D1})
    writer.write(bucketed(), {"user_slice": "0-of-2", "day": D2})  # no row, no file
    first, second = writer.close()
    assert (first.values, second.values) == ({"day": D1, "user_slice": "0-of-2"}, {"day": D1, "user_slice": "1-of-2"})
    assert first.path.startswith("day=2024-05-01/user_slice=0-of-2/part-")
    assert read(target, first).read()["user_bucket"].to_pylist() == [5, 9, 2]
    assert read(target, first).read()["x"].to_pylist() == [[0.5, 5], [0.5, 9], [0.5, 2]]
    for file in (first, second):
        assert file.size == Path(f"{target.uri}/{file.path}").stat().st_size
    assert [(file.num_rows, file.buckets) for file in (first, second)] == [(3, (2, 9)), (1, (7, 7))]


def test_a_closed_writer_begins_new_files(target: Target) -> None:
    writer, values = TableWriter(target), {"day": D1, "user_slice": "0-of-1"}
    writer.write(bucketed(1), values)
    (first,) = writer.close()
    assert writer.close() == []
    writer.write(bucketed(2), values)
    (second,) = writer.close()
    assert first.path != second.path
    assert [read(target, file).read()["user_bucket"].to_pylist() for file in (first, second)] == [[1], [2]]


def test_row_groups_dictionaries_and_statistics_are_as_the_table_has_them(target: Target) -> None:
    writer, values, rows = TableWriter(target), {"day": D1, "user_slice": "0-of-1"}, bucketed(*range(2000))
    writer.write(rows.slice(0, 10), values)
    writer.write(rows.slice(10), values)
    (file,) = writer.close()
    found = read(target, file)
    group = found.metadata.row_group(0)
    by_name = {group.column(k).path_in_schema: group.column(k) for k in range(group.num_columns)}
    assert found.schema_arrow.names == ["user_bucket", "user_id", "x"]
    assert 10 < found.metadata.num_row_groups < 16
    assert {name: "RLE_DICTIONARY" in of.encodings for name, of in by_name.items() if "x" not in name} == {
        "user_bucket": False, "user_id": True,
    }  # fmt: skip
    assert {name: of.is_stats_set for name, of in by_name.items()}["user_bucket"]
    assert not any(of.is_stats_set for name, of in by_name.items() if name != "user_bucket")
    assert found.read()["user_id"].to_pylist() == [f"u{k}" for k in range(2000)]


def test_a_tables_codec_and_its_default_for_dictionaries_are_applied(tmp_path: Path) -> None:
    properties = (
        ("parquet.compression", "lz4_raw"),
        ("parquet.enable.dictionary", "false"),
        ("parquet.enable.dictionary#user_id", "true"),
    )
    schema = pa.schema([("user_id", pa.string()), ("item_id", pa.string())])
    writer = TableWriter(Target(str(tmp_path / "t"), schema, (), properties))
    writer.write(pa.table({"user_id": ["a", "a"], "item_id": ["i", "i"]}), {})
    (file,) = writer.close()
    assert "/" not in file.path
    group = pq.read_metadata(tmp_path / "t" / file.path).row_group(0)
    columns = [group.column(k) for k in range(2)]
    assert ["RLE_DICTIONARY" in column.encodings for column in columns] == [True, False]
    assert {column.compression for column in columns} == {"LZ4"}
    assert file.buckets is None


def test_a_vector_with_a_missing_number_is_refused(target: Target) -> None:
    rows = bucketed(1, 2)
    holes = pa.array([[0.5, 1.0], [None, 2.0]], pa.list_(pa.float32()))
    writer = TableWriter(target)
    writer.write(rows.set_column(0, "x", holes), {"day": D1, "user_slice": "0-of-1"})
    with pytest.raises(pa.ArrowInvalid, match="declared non-nullable but contains nulls"):
        writer.close()


def test_rounded_vectors_are_dictionaries_and_half_as_large_and_others_are_written_as_before(tmp_path: Path) -> None:
    z_ND = np.random.default_rng(0).standard_normal((20_000, 32)).astype(np.float32)
    sizes = {}
    for name, matrix in (("float32", z_ND), ("float16", z_ND.astype(np.float16)), ("int8", np.rint(z_ND * 32) / 32)):
        target = FileTables(None, str(tmp_path / name)).target(USER_EMBEDDINGS)
        writer = TableWriter(target)
        rows = {"user_bucket": pa.array(range(20_000), pa.int32()), "user_id": [f"u{k}" for k in range(20_000)]}
        writer.write(
            pa.table(rows | {"embedding": listed(matrix.astype(np.float32))}),
            {"space_id": "s", "as_of": D1, "revision": 1},
        )
        (file,) = writer.close()
        assert np.array_equal(stacked(combined(read(target, file).read()["embedding"]), 32), matrix.astype(np.float32))
        encodings = read(target, file).metadata.row_group(0).column(2).encodings
        assert ("RLE_DICTIONARY" in encodings) == (name != "float32")
        sizes[name] = read(target, file).metadata.row_group(0).column(2).total_compressed_size / z_ND.size
    assert 3.9 < sizes["float32"] < 4.1
    assert 1.7 < sizes["float16"] < 2.1
    assert sizes["int8"] < 1.3
