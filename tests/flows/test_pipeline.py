"""The whole pipeline on a small generated log: twice is once, a gate that refuses changes nothing, tastes come back."""

import json
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict

from return_propensity.training import CONSUMER, train_return_propensity
from tests.support.builders import AS_OF, pipeline_config
from userrep.config import Config, DriftLimits
from userrep.errors import GateRefusedError, UsageError
from userrep.features.build import read_features, stored_features
from userrep.items.versions import lineage_of
from userrep.joins.training_sets import list_training_sets
from userrep.model.artifact import load_artifact
from userrep.model.losses import ReconstructionLoss
from userrep.monitoring.input_drift import reconstruction_errors
from userrep.spaces.registry import artifact_folder, find_space, list_spaces, read_registry
from userrep.spaces.snapshots import list_snapshots
from userrep.spaces.transitions import planned_promotion
from userrep.store import schemas
from userrep.workflows.export import export_embeddings, export_features, export_item_vectors
from userrep.workflows.pipeline import run_pipeline
from userrep.workflows.run_context import RunContext
from userrep.workflows.space_stages import monitor_drift

pytestmark = pytest.mark.default

STAGES = (
    "take_inventory",
    "build_activity_tiles",
    "train_item_vectors",
    "build_user_features",
    "train_autoencoder",
    "embed_users",
    "publish_snapshot",
    "promote",
)


@pytest.fixture(scope="module")
def done(
    done: tuple[RunContext, Config], spark: SparkSession, log: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunContext, Config]:
    """A copy of the pipeline's tables, as tests here train, promote and publish on it."""
    root = tmp_path_factory.mktemp("pipeline") / "root"
    shutil.copytree(str(done[1].root), root)
    config = pipeline_config(log, root)
    return RunContext(config, spark, AS_OF), config


def aucs_of(work: RunContext) -> dict[str, float]:
    return {row.input: row.auc for row in work.tables.ledger(schemas.CONSUMER_RESULTS)}


def test_every_stage_runs_once_and_records_itself(done: tuple[RunContext, Config]) -> None:
    rows = sorted(done[0].tables.ledger(schemas.JOB_RUNS), key=lambda row: row.started_at)
    recorded = [row for row in rows if row.run_id == rows[0].run_id]
    assert [(row.stage, row.outcome) for row in recorded] == [(stage, "done") for stage in (*STAGES, "end")]
    features = next(row for row in recorded if row.stage == "build_user_features")
    assert set(json.loads(features.inputs)) == {"tile_days", "item_vector_versions"}
    assert all(row.config_hash and row.code_hash for row in recorded)
    work = json.loads(features.outputs)["spark"]
    assert 0 < work["task_seconds"] < 2 * features.seconds  # on two cores
    assert work["shuffle_bytes"] > 0
    embedded = next(row for row in recorded if row.stage == "embed_users")
    assert json.loads(embedded.outputs)["spark"]["shuffle_bytes"] == 0


def test_a_second_run_changes_nothing_and_reports_why(spark: SparkSession, done: tuple[RunContext, Config]) -> None:
    work, config = done
    kept = [table for table in schemas.ALL if table not in (schemas.JOB_RUNS, schemas.LEASES)]
    before = {table.name: work.tables.version(table) for table in kept}
    again = RunContext(config, spark, AS_OF)
    run_pipeline(again)
    outcomes = train_return_propensity(again)
    assert {run.outcome for run in again.runs.stages if run.stage != "take_inventory"} == {"skipped"}
    assert all(run.reason for run in again.runs.stages)
    assert {table.name: work.tables.version(table) for table in kept} == before
    assert {outcome.input: outcome.auc for outcome in outcomes} == aucs_of(work)


def test_drift_is_measured_of_vectors_and_inputs(done: tuple[RunContext, Config]) -> None:
    work, _ = done
    space = find_space(work.tables, None)
    monitor_drift(work, space, AS_OF)
    kept = work.tables.ledger(schemas.SNAPSHOT_DRIFT)
    assert {row.as_of for row in kept} == {AS_OF}
    assert {row.metric for row in kept if not row.part} == set(DriftLimits.model_fields)
    inputs = {row.part: row.value for row in kept if row.metric == "psi" and row.part}
    assert {"num_events_7d", "days_since_last_event", "has_behaviour_28d"} < set(inputs)
    assert all(0 <= value < 1 for value in inputs.values())
    (run,) = (run for run in work.runs.stages if run.stage == "monitor_drift")
    monitor_drift(work, space, AS_OF)  # neither snapshot changes
    again = work.runs.stages[-1]
    assert (run.outcome, again.outcome, again.reason) == ("done", "skipped", run.reason)
    assert work.tables.ledger(schemas.SNAPSHOT_DRIFT) == kept


def test_the_error_of_reconstruction_is_the_autoencoder_s_on_all_rows(done: tuple[RunContext, Config]) -> None:
    work, config = done
    space = find_space(work.tables, None)
    folder = artifact_folder(work.tables, space)
    artifact = load_artifact(folder)
    monitor_drift(work, space, AS_OF)
    (kept,) = work.tables.ledger(schemas.SNAPSHOT_DRIFT, metric="error_growth", part="")
    as_of_by_id = {s.snapshot_id: s.as_of for s in list_snapshots(work.tables, space.space_id)}
    errors = []
    for day in (as_of_by_id[kept.snapshot_id], as_of_by_id[kept.before_id]):
        rows = stored_features(work.tables, config, space.lineage_id, [day])
        batch = rows.toArrow().combine_chunks().to_batches()[0]
        found = reconstruction_errors(batch, folder, space.content_hash) / batch.num_rows
        raw_BF = artifact.layout.raw(batch)
        x_BF = torch.from_numpy(artifact.scaler.apply(artifact.layout, raw_BF))
        error_K = ReconstructionLoss(artifact.layout)(artifact.encoder()(x_BF).reconstruction_BF, x_BF)
        assert found == pytest.approx(error_K.tolist(), rel=1e-4)
        errors.append(found.sum())
    assert kept.value == pytest.approx(max(0, errors[0] / errors[1] - 1), abs=1e-6)


def test_the_consumer_does_better_on_the_embedding_than_on_each_of_its_baselines(
    done: tuple[RunContext, Config],
) -> None:
    aucs = aucs_of(done[0])
    assert aucs.keys() == {"embedding", "recency", "pooled_averages"}
    assert aucs["embedding"] > max(0.8, aucs["recency"] + 0.005, aucs["pooled_averages"] + 0.02)


def test_the_consumer_s_model_is_loaded_and_joins_new_labels_itself(
    done: tuple[RunContext, Config], spark: SparkSession
) -> None:
    work, config = done
    space_id = find_space(work.tables, None).space_id
    (recorded,) = list_training_sets(work.tables)
    assert (recorded.name, recorded.consumer, recorded.space_id) == (CONSUMER, CONSUMER, space_id)
    assert read_registry(work.tables).consumer(CONSUMER).training_set_id == recorded.training_set_id
    results = work.tables.ledger(schemas.CONSUMER_RESULTS)
    assert {tuple(row.snapshot_ids) for row in results} == {tuple(recorded.snapshot_ids)}
    model = PipelineModel.load(f"{config.root}/artifacts/consumers/return_propensity/{space_id}")
    labels = spark.sql(
        f"SELECT user_id, timestamp'{AS_OF} 12:00:00' AS label_at FROM VALUES ('u0000001'), ('u0000002') t(user_id)"
    )
    rows = model.transform(labels).collect()
    assert {row.snapshot_id for row in rows} == {f"{space_id}-{AS_OF:%Y%m%d}-r1"}
    assert all(0 < row.probability[1] < 1 for row in rows)


def test_the_embedding_recovers_the_planted_tastes(
    done: tuple[RunContext, Config], log: Path, spark: SparkSession
) -> None:
    """A linear read-out of each user's true taste: R² above 0.5, and 0.1 or more above that of the activity counts."""
    work, config = done
    table = work.tables.read(schemas.USER_EMBEDDINGS).where(f"as_of = '{AS_OF}'").select("user_id", "embedding")
    features = read_features(work.tables, config, lineage_of(config), [AS_OF]).where("num_events_28d >= 10")
    counts = [
        name for name in features.columns if name.startswith(("num_events", "num_active", "weight_", "days_since"))
    ]
    truth = spark.read.parquet(str(log / "truth")).select("user_id", "taste")
    rows = (
        features.select("user_id", *counts).join(table, "user_id").join(truth, "user_id").orderBy("user_id").toPandas()
    )
    taste = np.stack(rows.taste)

    def r2(inputs: np.ndarray) -> float:
        scaled = (inputs - inputs.mean(axis=0)) / (inputs.std(axis=0) + 1e-9)
        predicted = cross_val_predict(RidgeCV(np.logspace(-1, 4, 11)), scaled, taste, cv=5)
        return float(1 - np.square(taste - predicted).sum() / np.square(taste - taste.mean(axis=0)).sum())

    from_embedding, from_counts = r2(np.stack(rows.embedding)), r2(rows[counts].fillna(99).to_numpy(float))
    assert from_embedding > 0.5
    assert from_embedding > from_counts + 0.1


def test_exports_are_complete_parquet_with_a_manifest(done: tuple[RunContext, Config], tmp_path: Path) -> None:
    work, config = done
    space = find_space(work.tables, None)
    manifest = export_embeddings(work.tables, config, space, AS_OF, str(tmp_path / "e"))
    embeddings = pq.read_table(tmp_path / "e")
    assert embeddings.column_names == ["user_id", "as_of", "embedding"]
    vectors = np.stack(embeddings["embedding"].to_numpy())
    assert (vectors.shape, np.isfinite(vectors).all()) == ((manifest["num_rows"], 48), True)
    deviation = vectors.std(axis=0)
    assert (deviation > 0.01 * deviation.max()).sum() >= 24
    export_features(work.tables, config, AS_OF, str(tmp_path / "f"))
    features = pq.read_table(tmp_path / "f")
    assert set(features["user_id"].to_pylist()) == set(embeddings["user_id"].to_pylist())
    assert {"behaviour_7d", "has_content_28d", "num_events_7d", "content_onboarding"} <= set(features.column_names)
    exported = export_item_vectors(work.tables, config, AS_OF, str(tmp_path / "i"))
    assert pq.read_table(tmp_path / "i").column_names == ["modality", "item_id", "vector"]
    assert exported["valid_from"] <= AS_OF
    with pytest.raises(UsageError, match="no features for 2024-01-20"):
        export_features(work.tables, config, date(2024, 1, 20), str(tmp_path / "x"))
    with pytest.raises(UsageError, match="has no snapshot of 2024-01-20"):
        export_embeddings(work.tables, config, space, date(2024, 1, 20), str(tmp_path / "x"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is not an earlier export"):
        export_embeddings(work.tables, config, space, AS_OF, str(tmp_path / "mine"))


def test_spark_writes_the_same_exports_to_the_byte(
    done: tuple[RunContext, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, config = done

    def exported(name: str) -> list[dict[str, str]]:
        features = export_features(work.tables, config, AS_OF, str(tmp_path / f"features-{name}"))
        vectors = export_item_vectors(work.tables, config, AS_OF, str(tmp_path / f"items-{name}"))
        return [features["sha256"], vectors["sha256"]]

    here = exported("here")
    monkeypatch.setattr("userrep.workflows.export.MOST_ROWS_HERE", 0)
    assert exported("by-spark") == here


def test_retraining_makes_a_new_space_and_leaves_the_old_one_serving(
    spark: SparkSession, done: tuple[RunContext, Config], tmp_path: Path
) -> None:
    work, config = done
    serving = find_space(work.tables, None)
    export_embeddings(work.tables, config, serving, AS_OF, str(tmp_path / "before"))
    again = RunContext(config, spark, AS_OF)
    assert run_pipeline(again, retrain=True).space_id == serving.space_id
    train_return_propensity(again)  # on the newest space
    spaces = list_spaces(work.tables)
    assert [space.state for space in spaces] == ["serving", "ready"]
    assert len({space.space_id for space in spaces}) == 2
    export_embeddings(work.tables, config, serving, AS_OF, str(tmp_path / "after"))
    before, after = (pq.read_table(tmp_path / name).sort_by("user_id") for name in ("before", "after"))
    assert before.equals(after)
    consumer = read_registry(work.tables).consumer(CONSUMER)
    assert (consumer.owner, consumer.follows, consumer.ready_for) == ("userrep", True, spaces[1].space_id)
    assert planned_promotion(read_registry(work.tables), spaces[1].space_id).moves == (consumer,)


def test_a_refused_gate_leaves_what_serves_as_it_is(
    spark: SparkSession, done: tuple[RunContext, Config], log: Path
) -> None:
    work, config = done
    serving = find_space(work.tables, None)
    before = list_snapshots(work.tables, serving.space_id)
    out_of_reach = config.gates.model_copy(update={"min_live_dims_share": 1.1})
    strict = config.model_copy(update={"gates": out_of_reach})
    earlier = RunContext(strict, spark, date(2024, 3, 10))
    with pytest.raises(GateRefusedError, match=r"only .* of 48 dimensions vary"):
        run_pipeline(earlier)
    assert list_snapshots(work.tables, serving.space_id) == before
    assert find_space(work.tables, None) == serving


def test_a_pipeline_without_room_for_training_is_refused_before_long_work(
    spark: SparkSession, log: Path, tmp_path: Path
) -> None:
    early = pipeline_config(log, tmp_path, training={"as_ofs": {"until": "2024-03-20"}})
    with pytest.raises(UsageError, match="until 2024-03-20 is after --as-of 2024-03-15"):
        run_pipeline(RunContext(early, spark, AS_OF))
    young = pipeline_config(log, tmp_path, training={"as_ofs": {"until": "2024-01-05"}})
    with pytest.raises(UsageError, match="no training date is possible"):
        run_pipeline(RunContext(young, spark, AS_OF))
    with pytest.raises(UsageError, match="choose a date from 2024-01-02"):
        run_pipeline(RunContext(early, spark, date(2020, 1, 1)))
