"""Exports: the same snapshot gives the same bytes, other tools can read them, and a killed export blocks no other."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from tests.support.builders import config_of
from tests.unit.inference.test_model import saved
from userrep.config import Config
from userrep.errors import UsageError, UserrepError
from userrep.spaces.registry import Space, add_candidate, find_space
from userrep.spaces.snapshots import PUBLISHED, Snapshot, record_snapshots
from userrep.store import export_files
from userrep.store.export_files import MANIFEST
from userrep.store.export_folder import check_out, recorded_folder
from userrep.store.open import open_tables
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.tables import Tables
from userrep.workflows import export
from userrep.workflows.export import export_embeddings

pytestmark = pytest.mark.default

AS_OF, NOON = date(2024, 5, 1), datetime(2024, 5, 1, 12)
NUM_USERS = 50


class Site(NamedTuple):
    """Tables with one published snapshot of ``NUM_USERS`` users."""

    tables: Tables
    config: Config
    space: Space

    def export(self, out: Path) -> dict[str, Any]:
        return export_embeddings(self.tables, self.config, self.space, AS_OF, str(out))

    def write(self, vectors: np.ndarray, *, partitions: int) -> None:
        """Put the rows of the snapshot there, in so many files and another order."""
        rows = [("s1", AS_OF, 1, k, f"u{k:04d}", vector.tolist()) for k, vector in enumerate(vectors)]
        frame = self.tables.spark.createDataFrame(rows, USER_EMBEDDINGS.columns).repartition(partitions)
        self.tables.replace(frame, USER_EMBEDDINGS, [{"space_id": "s1"}])


VECTORS = np.random.default_rng(0).standard_normal((NUM_USERS, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def site(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Site:
    config = config_of(tmp_path_factory.mktemp("site"))
    tables = open_tables(config, spark)
    manifest = saved(Path(str(config.root)), is_space=True)
    add_candidate(
        tables, space_id="s1", lineage_id="l1", trained_until=AS_OF, content_hash=manifest.content_hash
    )  # fmt: skip
    record_snapshots(tables, [Snapshot("s1-r1", "s1", AS_OF, 1, PUBLISHED, "x", NUM_USERS, NOON, NOON, "{}")])
    made = Site(tables, config, find_space(tables, "s1"))
    made.write(VECTORS, partitions=2)
    return made


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != MANIFEST}


def state(folder: Path) -> Any:
    return json.loads((folder / MANIFEST).read_text())["state"]


def test_an_export_of_the_same_snapshot_has_the_same_bytes_however_the_table_is_laid_out(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_files, "ROWS", 20)
    first = site.export(tmp_path / "a")
    site.write(VECTORS, partitions=5)
    monkeypatch.setattr(export, "MOST_ROWS_HERE", NUM_USERS - 1)  # so that Spark writes it
    site.tables.spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "3")
    again = site.export(tmp_path / "b")
    site.tables.spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "10000")
    assert list(first["sha256"]) == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert again["sha256"] == first["sha256"]
    assert first["sha256"] == {
        name: hashlib.sha256(content).hexdigest() for name, content in bytes_of(tmp_path / "a").items()
    }
    for file in (tmp_path / "a").glob("*.parquet"):
        users = pq.read_table(file)["user_id"].to_pylist()
        assert users == sorted(users)
    rows = pq.read_table(tmp_path / "a").sort_by("user_id")
    assert np.array_equal(np.stack(rows["embedding"].to_numpy()), VECTORS)


def test_pandas_duckdb_and_datasets_read_an_export(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import datasets

    out = tmp_path / "out"
    manifest = site.export(out)
    assert (manifest["dimension"], manifest["num_rows"], state(out)) == (16, NUM_USERS, "complete")
    frames = [
        pd.read_parquet(out),
        duckdb.sql(f"SELECT * FROM '{out}/*.parquet'").df(),
        datasets.load_dataset(
            "parquet", data_files=f"{out}/*.parquet", split="train", cache_dir=str(tmp_path / "c")
        ).to_pandas(),
        datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "c")).to_pandas(),
    ]
    for frame in frames:
        assert list(frame.columns) == ["user_id", "as_of", "embedding"]
        ordered = frame.sort_values("user_id")
        assert ordered["user_id"].tolist() == [f"u{k:04d}" for k in range(NUM_USERS)]
        assert np.array_equal(np.stack(ordered["embedding"].to_numpy()).astype(np.float32), VECTORS)


@pytest.mark.parametrize("after", ["manifest", "some", "all"])
def test_an_export_that_was_killed_is_marked_and_the_next_one_replaces_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    class Killed(BaseException):
        """Not an Exception, so that nothing catches it."""

    def killed(files: Any, convert: Any, columns: Any, folder: str, **how: Any) -> Any:
        if after == "some":
            (Path(folder) / ".part-00000.parquet-abc").write_bytes(b"PAR1")
            (Path(folder) / "part-00007.parquet").write_bytes(b"PAR1")
        if after == "all":
            export_files.write_parts_here(files, convert, columns, folder, **how)
        raise Killed

    out = tmp_path / "out"
    for before in ("nothing", "an export"):
        if before == "an export":
            whole = site.export(out)
        with monkeypatch.context() as patch:
            patch.setattr(export, "write_parts_here", killed)
            with pytest.raises(Killed):
                site.export(out)
        assert state(out) == "incomplete"
        check_out(str(out))
    assert site.export(out)["sha256"] == whole["sha256"]
    assert state(out) == "complete"
    assert sorted(file.name for file in out.iterdir()) == [MANIFEST, "part-00000.parquet"]


@pytest.mark.parametrize("most_rows_here", [NUM_USERS, 0])
def test_users_that_are_erased_before_the_folder_is_recorded_are_not_exported(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_rows_here: int
) -> None:
    @contextmanager
    def recorded_after_an_erasure(*given: Any, **how: Any) -> Iterator[None]:
        site.write(VECTORS[:-1], partitions=2)
        with recorded_folder(*given, **how):
            yield

    monkeypatch.setattr(export, "MOST_ROWS_HERE", most_rows_here)
    monkeypatch.setattr(export, "recorded_folder", recorded_after_an_erasure)
    manifest = site.export(tmp_path)
    site.write(VECTORS, partitions=2)
    assert manifest["num_rows"] == NUM_USERS - 1


@pytest.mark.parametrize("most_rows_here", [NUM_USERS, 0])
def test_an_export_of_a_date_that_expires_meanwhile_fails_and_is_marked(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_rows_here: int
) -> None:
    monkeypatch.setattr(export, "MOST_ROWS_HERE", most_rows_here)
    site.write(VECTORS[:0], partitions=1)
    with pytest.raises(UserrepError, match="user_embeddings: another run has changed the same rows meanwhile"):
        site.export(tmp_path)
    site.write(VECTORS, partitions=2)
    assert state(tmp_path) == "incomplete"


def test_a_kill_while_the_first_manifest_is_written_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / f".{MANIFEST}-abc123").write_text("{")
    check_out(str(tmp_path))


def test_other_parquet_files_next_to_an_export_are_not_deleted(site: Site, tmp_path: Path) -> None:
    site.export(tmp_path)
    (tmp_path / "mine.parquet").write_bytes(b"years of work")
    with pytest.raises(UsageError, match=r"is not an earlier export \(mine\.parquet\)\. Choose another folder"):
        site.export(tmp_path)
    assert (tmp_path / "mine.parquet").read_bytes() == b"years of work"
