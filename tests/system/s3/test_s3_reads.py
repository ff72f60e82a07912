"""Small files in a store of which answers fail: pyarrow tries no more where an error is longer than what was asked."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.system.s3.conftest import Bucket
from userrep.store.filesystem import file_system, open_parquet, parquet_footer

pytestmark = pytest.mark.full


def test_few_bytes_of_a_small_file_are_read_although_answers_fail(bucket: Bucket) -> None:
    uri, rows = f"{bucket.uri}/reads/small.parquet", pa.table({"user_id": ["a", "b"], "weight": [0.5, 1.5]})
    files, path = file_system(uri)
    with files.open_output_stream(path) as stream:
        pq.write_table(rows, stream)
    with bucket.store.failing(0.2, seed=3):
        for _ in range(30):
            parquet_footer.cache_clear()
            file = open_parquet(uri, parquet_footer(uri))
            assert file.read_row_group(0, columns=["user_id"]).column("user_id").to_pylist() == ["a", "b"]
