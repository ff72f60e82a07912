"""A newer space read in an earlier one's coordinates: maps on disk, joins and saved models that read through them."""

import json
import subprocess
import sys
from dataclasses import asdict
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.sql import DataFrame, SparkSession

from tests.support.command_line import config_file
from tests.support.embedding_tables import add_spaces, publish, snapshot
from userrep.errors import UsageError
from userrep.joins.embedding_join import EmbeddingJoin
from userrep.joins.join import join_embeddings
from userrep.joins.options import JoinOptions
from userrep.spaces.agreement import agreement
from userrep.spaces.mapping import common_dates, fit_map, save_map, vector_pairs
from userrep.spaces.registry import Space, find_space, mark_ready, promote, retire
from userrep.store.file_tables import FileTables
from userrep.store.tables import Tables
from userrep.workflows.space_diff import SavedModel, diff_lines, diff_spaces, model_loss

pytestmark = pytest.mark.default

OLD, NEW = "s001-a", "s002-b"
DAYS = [date(2024, 5, 1), date(2024, 5, 2)]
USERS = [f"u{k:03d}" for k in range(200)]
WEIGHT = np.array([[0.0, 2.0], [-1.0, 0.5], [0.3, 0.0]])  # of new vectors, three wide, to old ones


@pytest.fixture
def tables(spark: SparkSession, tmp_path: Path) -> Tables:
    """Return tables of a space that serves and a newer one of another width, which a linear map takes to it."""
    tables = FileTables(spark, str(tmp_path / "root"))
    add_spaces(tables, OLD, NEW)
    random = np.random.default_rng(1)
    for day in DAYS:
        new = {user: random.normal(size=3) for user in USERS}
        publish(tables, {snapshot(day, space=NEW, dim=3): {user: z.tolist() for user, z in new.items()}})
        old = {user: (z @ WEIGHT + [1, -2]).tolist() for user, z in new.items()}
        publish(tables, {snapshot(day, space=OLD, dim=2): old})
    for space_id in (OLD, NEW):
        mark_ready(tables, find_space(tables, space_id))
    promote(tables, find_space(tables, OLD))
    return tables


def spaces(tables: Tables) -> tuple[Space, Space]:
    return find_space(tables, NEW), find_space(tables, OLD)


def with_map(tables: Tables) -> None:
    pairs = vector_pairs(tables, *spaces(tables), DAYS)
    fitted = fit_map(pairs)
    save_map(tables, *spaces(tables), fitted, agreement=asdict(agreement(pairs, fitted)), as_ofs=DAYS)


def labels(spark: SparkSession) -> DataFrame:
    noon = datetime.combine(DAYS[1], datetime.min.time()) + timedelta(hours=12)
    rows = [(user, noon, float(k % 2)) for k, user in enumerate([*USERS, "nobody"])]
    return spark.createDataFrame(rows, "user_id STRING, label_at TIMESTAMP, label DOUBLE").coalesce(1)


def test_mapped_vectors_are_the_earlier_space_s_and_are_marked(tables: Tables, spark: SparkSession) -> None:
    with_map(tables)
    own = join_embeddings(labels(spark), tables=tables, space=OLD)
    mapped = join_embeddings(labels(spark), tables=tables, space=NEW, coordinates=OLD)
    assert mapped.schema["embedding"].metadata == {"userrep_space_id": OLD, "userrep_mapped_from": NEW}
    expected = {row.user_id: row.embedding for row in own.collect()}
    for row in mapped.collect():
        assert row.snapshot_id == f"{NEW}-20240502-r1"
        if row.user_id == "nobody":
            assert (row.embedding, row.embedding_status) == (None, "not_in_snapshot")
        else:
            assert row.embedding == pytest.approx(expected[row.user_id], abs=1e-3)


def test_a_space_in_its_own_coordinates_needs_no_map(tables: Tables, spark: SparkSession) -> None:
    own = join_embeddings(labels(spark), tables=tables, space=OLD, coordinates=OLD)
    assert own.schema["embedding"].metadata == {"userrep_space_id": OLD}


@pytest.mark.full
def test_a_saved_model_goes_on_with_the_new_space_after_its_own_is_retired(
    tables: Tables, spark: SparkSession, tmp_path: Path
) -> None:
    join = EmbeddingJoin(root=str(tmp_path / "root"), missing="drop", vectors="vector")
    Pipeline(stages=[join, LogisticRegression(featuresCol="embedding")]).fit(labels(spark)).write().save(
        str(tmp_path / "model")
    )
    before = {
        r.user_id: r.probability[1]
        for r in PipelineModel.load(str(tmp_path / "model")).transform(labels(spark)).collect()
    }
    with_map(tables)
    promote(tables, find_space(tables, NEW))
    retire(tables, find_space(tables, OLD))
    model = PipelineModel.load(str(tmp_path / "model"))
    with pytest.raises(UsageError, match="space s001-a is retired"):
        model.transform(labels(spark))
    model.stages[0].setMappedFrom(NEW)  # type: ignore[attr-defined]
    model.write().save(str(tmp_path / "moved"))
    after = PipelineModel.load(str(tmp_path / "moved")).transform(labels(spark))
    assert {row.user_id: row.probability[1] for row in after.collect()} == pytest.approx(before, abs=1e-3)
    joined = join_embeddings(
        labels(spark), tables=tables, space=NEW, coordinates=OLD, options=JoinOptions(missing="drop", vectors="vector")
    )
    passed = PipelineModel.load(str(tmp_path / "moved")).transform(joined)
    assert {row.user_id: row.probability[1] for row in passed.collect()} == pytest.approx(before, abs=1e-3)


def test_the_loss_of_a_model_is_reported_and_the_model_is_unchanged(
    tables: Tables, spark: SparkSession, tmp_path: Path
) -> None:
    with_map(tables)
    join = EmbeddingJoin(root=str(tmp_path / "root"), missing="drop", vectors="vector")
    model = Pipeline(stages=[join, LogisticRegression(featuresCol="embedding")]).fit(labels(spark))
    told = model_loss(model, labels(spark), since=DAYS[0], consumer="c", new=find_space(tables, NEW))
    assert (told.num_labels, told.auc_own) == (len(USERS) + 1, pytest.approx(told.auc_mapped, abs=1e-3))
    assert told.auc_loss == told.auc_own - told.auc_mapped
    assert model.transform(labels(spark)).schema["embedding"].metadata["userrep_space_id"] == OLD
    assert not model.stages[0].isSet("mappedFrom")
    with pytest.raises(UsageError, match="c: the model has no EmbeddingJoin"):
        model_loss(
            PipelineModel(model.stages[1:]), labels(spark), since=DAYS[0], consumer="c", new=find_space(tables, NEW)
        )
    ones = labels(spark).where("label = 1")
    others = ones.drop("label").selectExpr("*", "2.5D AS label")
    for other, got in ((ones, f"0 and {ones.count()} of them"), (others, "also 2.5")):
        with pytest.raises(UsageError, match=f"c: labels since 2024-05-01 must have the values 0.0 and 1.0, got {got}"):
            model_loss(model, other, since=DAYS[0], consumer="c", new=find_space(tables, NEW))


def test_a_missing_map_is_reported_with_the_command_that_fits_it(tables: Tables, spark: SparkSession) -> None:
    with pytest.raises(
        UsageError, match=r"space s002-b: no map to the coordinates of space s001-a\. Fit one with `userrep spaces diff"
    ):
        join_embeddings(labels(spark), tables=tables, space=NEW, coordinates=OLD)


def test_spaces_that_were_never_embedded_at_the_same_date_are_reported(tables: Tables) -> None:
    add_spaces(tables, "s003-c")
    publish(tables, {snapshot(date(2024, 6, 1), space="s003-c", dim=2): {"u": [0.0, 1.0]}})
    with pytest.raises(UsageError, match="s001-a and s003-c have no published snapshot of the same as-of date"):
        common_dates(tables, find_space(tables, "s003-c"), find_space(tables, OLD))


def test_a_comparison_of_two_spaces_fits_the_map_and_judges_a_given_model(
    tables: Tables, spark: SparkSession, tmp_path: Path, lines: list[str]
) -> None:
    join = EmbeddingJoin(root=str(tmp_path / "root"), missing="drop", vectors="vector")
    Pipeline(stages=[join, LogisticRegression(featuresCol="embedding")]).fit(labels(spark)).write().save(
        str(tmp_path / "model")
    )
    labels(spark).write.parquet(str(tmp_path / "labels"))
    own = SavedModel(str(tmp_path / "model"), str(tmp_path / "labels"))
    for _ in range(2):
        new, old = spaces(tables)
        diff = diff_spaces(tables, old=old, new=new, model=own)
    assert lines == [f"fitted the map from space {NEW} to {OLD} on 2 as-of dates"]
    shown = diff_lines(diff)
    assert shown[0].startswith(f"{NEW} mapped into the coordinates of {OLD}, ")
    assert f"model of {tmp_path}/model, 201 labels since 2024-04-01: AUC" in shown[-1]
    assert diff.agreement.mean_cosine > 0.999
    assert diff.agreement.residual < 1e-3
    nowhere = SavedModel(str(tmp_path / "model"), str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"--labels .*nowhere: not found"):
        diff_spaces(tables, old=old, new=new, model=nowhere)
    with pytest.raises(UsageError, match=r"space s001-a cannot be compared with itself\. Name two spaces"):
        diff_spaces(tables, old=old, new=old)


@pytest.mark.full
def test_spaces_diff_in_a_process_of_its_own_starts_spark_itself(tables: Tables, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "userrep.cli",
        "spaces",
        "diff",
        OLD,
        NEW,
        "--config",
        config_file(tmp_path),
        "--json",
    ]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["agreement"]["mean_cosine"] > 0.999
    assert OLD in dict(find_space(tables, NEW).maps)
