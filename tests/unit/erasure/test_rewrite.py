"""Files that erasure rewrites: rows of other users are kept to the bit, and rounded vectors stay small."""

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from userrep.erasure.rewrite import ErasedUsers, _rewrite_file
from userrep.sources.tombstones import Tombstones
from userrep.store.arrow import combined, listed, stacked
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import TableWriter
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.vector_storage import VectorStorage
from userrep.store.xxhash import bucket_of

pytestmark = pytest.mark.fast


def test_a_rewritten_snapshot_keeps_the_vectors_and_the_dictionary_of_its_storage_type(tmp_path: Path) -> None:
    users = pa.array([f"u{k}" for k in range(1000)])
    z_ND = np.random.default_rng(0).standard_normal((1000, 8)).astype(np.float32)
    z_ND = VectorStorage.of("int8", [2.0**-5] * 8).rounded(z_ND)
    target = FileTables(None, str(tmp_path)).target(USER_EMBEDDINGS)
    writer = TableWriter(target)
    rows = pa.table({"user_bucket": bucket_of(users), "user_id": users, "embedding": listed(z_ND)})
    writer.write(rows, {"space_id": "s1", "as_of": date(2024, 5, 1), "revision": 1})
    (old,) = writer.close()
    tombstones = Tombstones(b"key", frozenset([Tombstones(b"key", frozenset()).hash("u7")]))
    rewritten = _rewrite_file(old, target, ErasedUsers(tombstones), "user_id")
    assert rewritten is not None
    new = TableFile.from_json(rewritten["file"])
    kept = pq.read_table(f"{target.uri}/{new.path}", partitioning=None)
    assert kept["user_id"].to_pylist() == [user for user in users.to_pylist() if user != "u7"]
    assert np.array_equal(stacked(combined(kept["embedding"]), 8), np.delete(z_ND, 7, axis=0))
    for file in (old, new):
        column = pq.read_metadata(f"{target.uri}/{file.path}").row_group(0).column(2)
        assert "RLE_DICTIONARY" in column.encodings
