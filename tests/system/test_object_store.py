"""Files and ledgers in an S3-compatible object store, a server of its own process: what disks give, it gives."""

import hashlib
import uuid
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from tests.support.builders import write_training_rows
from tests.support.s3_server import ENVIRONMENT, s3_server
from userrep.config import Training
from userrep.errors import UsageError
from userrep.spaces.registry import add_candidate, find_space, mark_ready, promote, read_registry
from userrep.store import export_files, export_folder
from userrep.store.export_folder import check_out
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import exists, file_system, folder_names, parquet_footer, read_bytes, write_bytes
from userrep.store.schemas import REGISTRY
from userrep.training.data import shards
from userrep.training.data.shards import epoch_batches, first_rows, read_steps_per_epoch, shard_files

pytestmark = pytest.mark.full

WIDTH, NUM_SHARDS = 3, 2


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Serve an empty bucket, and tell everyone by the environment, as on a cluster, where it is.

    Its name is of this server alone: a process keeps its connection to a bucket, and may have served another before.
    """
    name = f"rows-{uuid.uuid4().hex}"
    with s3_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        for variable, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}).items():
            patch.setenv(variable, value)
        pyarrow.fs.S3FileSystem(endpoint_override=endpoint, allow_bucket_creation=True).create_dir(name)
        yield f"s3a://{name}"


def encoded(uris: list[str]) -> list[str]:
    """Write URIs as Spark's ``inputFiles`` does."""
    return [quote(uri, safe=":/=") for uri in uris]


def read(files: list[list[str]], rank: int, size: int, first_step: int = 0) -> list[tuple[list[int], list[float]]]:
    parts = epoch_batches(
        files, rank=rank, size=size, batch_size=8, steps=12, width=WIDTH, seed=1, epoch=1, first_step=first_step
    )
    return [(part.row_key_B.tolist(), part.x_BF[:, 0].tolist()) for part in parts]


def test_the_batches_of_an_object_store_are_those_of_a_disk(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "MAX_BYTES", 600 * NUM_SHARDS)  # several buffers a shard
    roots = [f"{bucket}/my rows 100%25", str(tmp_path / "my rows")]
    remote, local = (
        [
            uri
            for shard in range(NUM_SHARDS)
            for uri in write_training_rows(root, "train", shard, range(100 * shard, 100 * shard + 53), width=WIDTH)
        ]
        for root in roots
    )
    on_s3 = shard_files(encoded([uri.replace("%25", "%") for uri in remote]), NUM_SHARDS)["train"]
    on_disk = shard_files(local, NUM_SHARDS)["train"]
    training = Training(batch_size=2, num_shards=NUM_SHARDS)
    assert [read_steps_per_epoch({"train": files}, training) for files in (on_s3, on_disk)] == [53, 53]
    for rank, size in ((0, 1), (1, 2)):
        assert read(on_s3, rank, size) == read(on_disk, rank, size)
    assert read(on_s3, 0, 1, first_step=7) == read(on_disk, 0, 1)[7:]
    one, other = (first_rows(files, rank=0, size=1, max_rows=20, width=WIDTH) for files in (on_s3, on_disk))
    assert np.array_equal(one, other)


def test_files_of_an_export_are_whole_and_one_that_was_cut_off_is_taken_over(bucket: str) -> None:
    folder, rows = f"{bucket}/exports/of today", pa.table({"user_id": ["a", "b"], "embedding": [[0.5], [1.5]]})
    check_out(folder)
    export_folder._write_manifest(folder, {"state": "incomplete"})
    parts = [export_files.write_part(folder, f"part-0000{k}.parquet", "user_id", rows) for k in range(2)]
    check_out(folder)
    export_folder._delete_others(folder, {parts[1].name})
    assert folder_names(folder) == [export_files.MANIFEST, "part-00001.parquet"]
    content = read_bytes(f"{folder}/{parts[1].name}", max_bytes=10_000)
    assert (parts[1].num_rows, parts[1].sha256) == (2, hashlib.sha256(content).hexdigest())
    assert pq.read_table(pa.BufferReader(content)).equals(rows)
    write_bytes(f"{folder}/mine.parquet", b"")
    with pytest.raises(UsageError, match=r"is not an earlier export \(mine.parquet\)"):
        check_out(folder)


def test_small_files_are_written_read_and_missed(bucket: str) -> None:
    uri = f"{bucket}/space/weights 1"
    assert not exists(uri)
    write_bytes(uri, b"abc")
    assert exists(uri)
    assert read_bytes(uri, max_bytes=3) == b"abc"
    with pytest.raises(FileNotFoundError, match=r"rows-\w+/space/none"):
        read_bytes(f"{bucket}/space/none", max_bytes=3)
    with pytest.raises(FileNotFoundError, match=r"rows-\w+/none\.parquet"):
        parquet_footer(f"{bucket}/none.parquet")


def test_files_of_one_bucket_share_one_connection(bucket: str) -> None:
    assert file_system(f"{bucket}/a")[0] is file_system(f"s3://{bucket.partition('://')[2]}/b")[0]


def test_two_changes_of_the_registry_at_once_conflict_on_an_object_store_too(bucket: str) -> None:
    tables = FileTables(None, f"{bucket}/my root")
    for space_id in ("s1", "s2"):
        add_candidate(tables, space_id=space_id, lineage_id="l1", trained_until=date(2024, 5, 1), content_hash="x")
        mark_ready(tables, find_space(tables, space_id))
    seen, since = tables.ledger(REGISTRY), tables.version(REGISTRY)
    promote(tables, find_space(tables, "s2"))
    assert not tables.add(REGISTRY, [row.asDict() for row in seen], replacing="true", since=since)
    assert {space.space_id: space.state for space in read_registry(tables).spaces} == {"s1": "ready", "s2": "serving"}
