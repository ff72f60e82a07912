"""Snapshots as files that tasks write: the vectors of the encoder, whatever the tasks, and what a kill leaves."""

from dataclasses import replace
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from benchmarks.inference_data import as_stored
from tests.support.builders import config_of, left_to_spark
from tests.unit.features.test_layout import LAYOUT, SPEC
from tests.unit.inference.test_inference import as_arrow, random_users, same_bits
from tests.unit.inference.test_model import saved
from userrep.config import Config
from userrep.errors import UsageError, UserrepError
from userrep.features.ledger import features_table
from userrep.features.spec import FeatureSpec
from userrep.inference import embed
from userrep.inference.encoder import Encoder
from userrep.items.versions import lineage_of
from userrep.model.artifact import load_artifact
from userrep.spaces import snapshot_files, snapshots
from userrep.spaces.registry import Space, add_candidate, artifact_folder, find_space
from userrep.spaces.snapshots import PUBLISHED, Snapshot, list_snapshots, publish_snapshots, stage_snapshots
from userrep.store.arrow import stacked
from userrep.store.file_tables import FileTables
from userrep.store.open import open_tables
from userrep.store.parquet_writer import TableWriter
from userrep.store.schemas import FEATURE_SETS, USER_EMBEDDINGS
from userrep.store.tables import Tables
from userrep.workflows.export import export_features

pytestmark = pytest.mark.default

DATES = (date(2024, 5, 1), date(2024, 5, 2))
NUM_USERS = 90


class Site(NamedTuple):
    """Tables with the features of two dates, in several files and row groups, and a space."""

    tables: Tables
    config: Config
    space: Space

    def stage(self) -> list[snapshots.Snapshot]:
        return stage_snapshots(self.tables, self.config, self.space, DATES)

    def rows(self, as_of: date) -> pa.Table:
        table = DeltaTable(f"{self.config.root}/tables/user_embeddings").to_pyarrow_table(
            filters=[("as_of", "=", as_of)]
        )
        return table.sort_by("user_id")


@pytest.fixture
def site(spark: SparkSession, tmp_path: Path) -> Site:
    columns = {"user_id": "u", "item_id": "i", "event_at": "t"}
    config = config_of(
        tmp_path,
        history_days=0,
        events={"columns": {**columns, "context": ["device"]}},
        item_vectors={"behaviour": {"kind": "als", "dim": 2}, "content": {"kind": "text", "dim": 3}},
        items={"path": "none", "columns": {"item_id": "i", "text": "t"}},
        onboarding={"path": "none", "columns": columns},
        users={"path": "none", "columns": {"user_id": "u", "registered_at": "r"}, "attributes": ["country"]},
    )
    assert FeatureSpec.of(config) == SPEC
    tables, table = open_tables(config, spark), features_table(config, lineage_of(config))
    since = tables.version(table)
    target = replace(tables.target(table), properties=(("parquet.block.size", "4000"),))
    files = []
    for as_of in DATES:
        for part in (slice(0, 50), slice(50, NUM_USERS)):
            writer = TableWriter(target)
            rows = pa.Table.from_batches([as_stored(as_arrow(users_of(as_of)[part]), SPEC)])
            writer.write(rows.drop_columns(["as_of"]), {"as_of": as_of})
            files += writer.close()
        built = {"log_hash": "x", "sides_hash": "x", "num_users": NUM_USERS, "num_inexact": 0}
        at = {"lineage_id": lineage_of(config), "as_of": as_of, "valid_from": as_of, "built_at": datetime(2024, 5, 3)}
        tables.add(FEATURE_SETS, [at | built])
    tables.commit(table, files, replacing=lambda _: False, since=since)
    content_hash = saved(Path(str(config.root)), layout=LAYOUT, is_space=True).content_hash
    add_candidate(
        tables, space_id="s1", lineage_id=lineage_of(config), trained_until=DATES[1], content_hash=content_hash
    )
    return Site(tables, config, find_space(tables, "s1"))


def users_of(as_of: date) -> list[dict[str, object]]:
    """Draw users with gaps, but for vectors: of those that are not there, features have zeros."""
    users = random_users(NUM_USERS, seed=as_of.day)
    for block in SPEC.pooled:
        for user in (user for user in users if user[block.column] is None):
            user |= {block.column: [0.0] * block.dim, block.flag: False}
    return users


@pytest.mark.parametrize("writer", ["tasks", "spark"])
def test_a_snapshot_has_the_vectors_of_the_encoder_with_any_tasks_and_any_writer(
    site: Site, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    monkeypatch.setattr(embed, "_MAX_ROWS", 25)
    if writer == "spark":
        site = site._replace(tables=left_to_spark(site.tables))
    staged = site.stage()
    encoder = Encoder(load_artifact(artifact_folder(site.tables, site.space)))
    for as_of in DATES:
        rows = site.rows(as_of)
        assert rows["user_id"].to_pylist() == [user["user_id"] for user in users_of(as_of)]
        wanted_BD = encoder.embed(as_arrow(users_of(as_of)))
        assert same_bits(np.array(stacked(rows["embedding"].combine_chunks(), 16)), wanted_BD)
        assert set(rows["revision"].to_pylist()) == {1}
    published = publish_snapshots(site.tables, site.config, site.space, staged, on_time=True)
    assert [(s.state, s.num_users, s.in_sample) for s in published] == [
        (PUBLISHED, NUM_USERS, as_of < site.space.trained_until) for as_of in DATES
    ]
    again = site.stage()
    assert [s.revision for s in again] == [2, 2]
    assert site.tables.read(USER_EMBEDDINGS).count() == 4 * NUM_USERS


def test_what_a_run_has_left_that_was_killed_before_the_ledger_is_replaced(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Not an Exception, so that nothing catches it."""

    def killed(*_: object, **__: object) -> None:
        raise Killed

    before = {file.path for file in site.tables.files(USER_EMBEDDINGS, lambda _: True)}
    with monkeypatch.context() as patch:
        patch.setattr(FileTables, "commit", killed)
        with pytest.raises(Killed):
            site.stage()
    assert {file.path for file in site.tables.files(USER_EMBEDDINGS, lambda _: True)} == before
    write = snapshot_files.write_vectors
    with monkeypatch.context() as patch:
        patch.setattr(snapshot_files, "write_vectors", lambda *arguments: killed(write(*arguments)))
        with pytest.raises(Killed):
            site.stage()
    publish_snapshots(site.tables, site.config, site.space, site.stage(), on_time=True)
    assert site.tables.read(USER_EMBEDDINGS).count() == 2 * NUM_USERS


def test_a_snapshot_that_another_run_publishes_before_this_one_claims_its_revision_stays(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = snapshots._next_revisions

    def late(*arguments: Any) -> list[Snapshot]:
        monkeypatch.setattr(snapshots, "_next_revisions", look)
        begun = look(*arguments)
        publish_snapshots(site.tables, site.config, site.space, site.stage(), on_time=True)
        return begun

    monkeypatch.setattr(snapshots, "_next_revisions", late)
    with pytest.raises(UserrepError, match="snapshots: another run has changed the same rows meanwhile"):
        site.stage()
    assert [one.as_of for one in list_snapshots(site.tables, "s1")] == list(DATES)


@pytest.mark.parametrize("writer", ["tasks", pytest.param("spark", marks=pytest.mark.full)])
def test_of_two_runs_that_make_a_snapshot_at_once_the_late_one_stops_with_one_line_and_replaces_no_rows(
    site: Site, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    if writer == "spark":
        site = site._replace(tables=left_to_spark(site.tables))
    write, others, files = snapshot_files.write_vectors, list[list[Snapshot]](), list[str]()

    def meanwhile(*arguments: Any) -> None:
        monkeypatch.setattr(snapshot_files, "write_vectors", write)
        others.append(site.stage())
        files.extend(site.tables.read(USER_EMBEDDINGS).inputFiles())
        write(*arguments)

    monkeypatch.setattr(snapshot_files, "write_vectors", meanwhile)
    with pytest.raises(UserrepError, match=r"user_embeddings`?: another run has changed the same rows meanwhile"):
        site.stage()
    assert sorted(site.tables.read(USER_EMBEDDINGS).inputFiles()) == sorted(files) != []
    publish_snapshots(site.tables, site.config, site.space, others[0], on_time=True)
    with pytest.raises(UserrepError, match="snapshots: another run has changed the same rows meanwhile"):
        publish_snapshots(site.tables, site.config, site.space, others[0], on_time=False)
    on_time = [s.available_at for s in list_snapshots(site.tables, "s1")]
    assert on_time == [datetime.combine(day, time()) + site.config.snapshots.publish_delay for day in DATES]


def test_features_that_are_not_built_are_named_before_anything_is_encoded(site: Site) -> None:
    with pytest.raises(
        UsageError, match=r"no features of 2024-06-01\. Build them with `userrep run build_user_features"
    ):
        stage_snapshots(site.tables, site.config, site.space, [DATES[0], date(2024, 6, 1)])


def test_features_are_exported_as_they_are_in_the_table(site: Site, tmp_path: Path) -> None:
    manifest = export_features(site.tables, site.config, DATES[0], str(tmp_path / "out"))
    rows = pq.read_table(tmp_path / "out")
    assert rows.column_names == ["user_id", "as_of", *(name for name, _ in SPEC.columns() if name != "is_exact")]
    assert (manifest["state"], manifest["num_rows"], list(manifest["columns"])) == (
        "complete", NUM_USERS, rows.column_names,
    )  # fmt: skip
    wanted = pa.Table.from_batches([as_arrow(users_of(DATES[0]))]).drop_columns(["as_of", "is_exact"])
    for name in wanted.column_names:
        assert rows[name].to_pylist() == wanted[name].to_pylist()


@pytest.mark.parametrize("writer", ["tasks", pytest.param("spark", marks=pytest.mark.full)])
def test_a_snapshot_is_rounded_to_its_storage_type_and_numbers_at_the_limit_are_counted(
    site: Site, writer: str
) -> None:
    tables = site.tables if writer == "tasks" else left_to_spark(site.tables)
    settings = site.config.snapshots.model_copy(update={"storage": "int8"})
    config = site.config.model_copy(update={"snapshots": settings})
    content_hash = saved(
        Path(str(config.root)), space_id="s2", layout=LAYOUT, is_space=True, int8_scales=[2.0**-6] * 16
    ).content_hash
    add_candidate(
        tables, space_id="s2", lineage_id=lineage_of(config), trained_until=DATES[1], content_hash=content_hash
    )
    space = find_space(tables, "s2")
    staged = stage_snapshots(tables, config, space, DATES[:1])
    assert [s.facts for s in staged] == [{"storage": "int8"}]
    rows = site.rows(DATES[0])
    exact_BD = Encoder(load_artifact(artifact_folder(tables, space))).embed(as_arrow(users_of(DATES[0])))
    steps_BD = np.clip(np.rint(exact_BD * 64), -127, 127)
    assert np.array_equal(stacked(rows["embedding"].combine_chunks(), 16), (steps_BD / 64).astype(np.float32))
    (published,) = publish_snapshots(tables, config, space, staged, on_time=True)
    assert published.facts["num_at_limit"] == (np.abs(steps_BD) == 127).sum() > 0
    assert published.facts["storage"] == "int8"
    uri = FileTables(None, str(config.root)).files(USER_EMBEDDINGS)[0].uri
    group = pq.read_metadata(uri).row_group(0)
    vectors = next(group.column(k) for k in range(3) if group.column(k).path_in_schema.startswith("embedding"))
    assert {"RLE_DICTIONARY", "PLAIN_DICTIONARY"} & set(vectors.encodings)
