"""A new space: a training that is cut off goes on with the rows it had, and may begin with another space's weights."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from sklearn.metrics import roc_auc_score

from tests.support.builders import AS_OF, config_of, pipeline_config
from tests.support.log_lines import messages_to
from userrep.config import Config
from userrep.errors import AlreadyRunningError, ArtifactError, SlotsError, UsageError, UserrepError
from userrep.features.build import read_features
from userrep.inference.encoder import Encoder
from userrep.model.artifact import Artifact, load_artifact
from userrep.model.weights import num_tastes, propensities_of
from userrep.spaces import create
from userrep.spaces.registry import Space, artifact_folder, find_space, next_space_id
from userrep.spaces.training_inputs import TrainingInputs, training_folder
from userrep.store import schemas
from userrep.training.checkpoint import checkpoint_names
from userrep.workflows.pipeline import run_pipeline
from userrep.workflows.run_context import RunContext
from userrep.workflows.space_stages import train_autoencoder, train_unless_trained

pytestmark = pytest.mark.default


class Cut(Exception):  # noqa: N818
    """Stands for a kill."""


class Work:
    """A pipeline's tables, to be trained on again with other settings."""

    def __init__(self, spark: SparkSession, log: Path, root: str, folder: Path, lines: list[str]) -> None:
        self.said = lines
        self.spark, self.log, self.root = spark, log, shutil.copytree(root, folder / "root")

    def pipeline(self, **training: object) -> RunContext:
        config = pipeline_config(self.log, self.root)
        quick = {"max_epochs": 2} | training
        model = config.model.model_copy(update=quick.pop("model", {}))
        config = config.model_copy(update={"model": model, "training": config.training.model_copy(update=quick)})
        return RunContext(config, self.spark, AS_OF)


@pytest.fixture
def work(spark: SparkSession, log: Path, done: tuple[RunContext, Config], tmp_path: Path, lines: list[str]) -> Work:
    assert done[1].root is not None
    return Work(spark, log, done[1].root, tmp_path, lines)


def cut_after(epochs: int) -> AbstractContextManager[None]:
    """Let trainings in a block end after some epochs, as a kill would."""

    def hears(line: str) -> None:
        if line.startswith(f"epoch {epochs + 1}/"):
            raise Cut

    return messages_to(hears)


def test_a_training_that_was_cut_off_goes_on_with_its_rows_and_checkpoint(work: Work) -> None:
    pipeline = work.pipeline()
    folder = training_folder(pipeline.tables, next_space_id(pipeline.tables, pipeline.config, pipeline.schedule.until))
    with cut_after(1), pytest.raises(Cut):
        train_autoencoder(pipeline)
    assert len(checkpoint_names(f"{folder}/checkpoints")) == 1
    version = pipeline.tables.version(schemas.TRAINING_ROWS)
    work.said.clear()

    space = train_autoencoder(work.pipeline())
    assert "training rows: reusing those of the interrupted run" in work.said
    assert "training resumes from its checkpoint in epoch 2, after 0 steps" in work.said
    assert pipeline.tables.version(schemas.TRAINING_ROWS) == version
    assert folder.endswith(space.space_id)
    assert not Path(folder).exists()

    other = train_autoencoder(work.pipeline(threads=2))  # the same recipe, undisturbed
    hashes = [load_artifact(artifact_folder(pipeline.tables, s)).manifest.metrics for s in (space, other)]
    assert hashes[0]["valid_loss"] == pytest.approx(hashes[1]["valid_loss"], rel=1e-5)


def test_a_second_training_of_another_command_is_refused(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = work.pipeline(), work.pipeline()
    refused: list[BaseException | None] = []

    def train_meanwhile(*_: object, **__: object) -> TrainingInputs:
        with ThreadPoolExecutor(1) as pool:
            refused.append(pool.submit(train_autoencoder, second).exception())
        raise Cut

    monkeypatch.setattr(create, "training_inputs", train_meanwhile)
    with pytest.raises(Cut):
        train_autoencoder(first)
    assert isinstance(refused[0], AlreadyRunningError)
    assert str(refused[0]).startswith("train_autoencoder is already running: run ")


def test_a_self_check_takes_smaller_batches_with_a_learning_rate_in_proportion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Config] = []
    monkeypatch.setattr(create, "_train", lambda _, config, *__, **___: (seen.append(config), None))
    for training in ({}, {"batch_size": 32_768, "num_shards": 256, "learning_rate": 0.32}):
        create.checked_model(None, config_of(tmp_path, training=training), None, space_id="s1")  # type: ignore[arg-type]
    found = [(one.training.batch_size, one.training.learning_rate, one.training.max_rows) for one in seen]
    assert found == [(512, 0.003, 100_000), (1024, pytest.approx(0.01), 100_000)]


@pytest.mark.full
def test_of_two_trainings_with_one_id_one_is_registered_and_whole(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second believes that the first is gone, which slept before it registered its space."""
    first, second, done = work.pipeline(max_epochs=1), work.pipeline(max_epochs=1), list[Space]()
    real = create.add_candidate

    def sleep(*args: Any, **named: Any) -> None:
        monkeypatch.setattr(create, "add_candidate", real)
        done.append(train_autoencoder(second))
        real(*args, **named)

    monkeypatch.setattr(create, "held", lambda *_, **__: nullcontext())
    monkeypatch.setattr(create, "add_candidate", sleep)
    with pytest.raises(
        UserrepError,
        match=r"not registered, because a concurrent training has registered another artifact under this id",
    ):
        train_autoencoder(first)
    (space,) = done
    assert find_space(first.tables, space.space_id) == space
    load_artifact(artifact_folder(first.tables, space), space.content_hash)
    folders = [path.name for path in Path(artifact_folder(first.tables, space)).parent.iterdir()]
    assert len(folders) == 2


@pytest.mark.full
def test_a_training_that_is_tried_again_is_not_made_twice(work: Work) -> None:
    trained = train_unless_trained(work.pipeline())
    again = work.pipeline()
    assert train_unless_trained(again) == trained
    assert [(run.stage, run.outcome) for run in again.runs.stages][-1:] == [("train_autoencoder", "skipped")]
    assert work.said[-1].endswith(f"(space {trained.space_id} is trained, without a snapshot)")
    other = train_unless_trained(work.pipeline(max_epochs=1))  # of another recipe
    assert other.space_id != trained.space_id


@pytest.mark.full
def test_rows_are_built_again_if_features_or_files_have_changed(work: Work) -> None:
    pipeline = work.pipeline()
    with cut_after(1), pytest.raises(Cut):
        train_autoencoder(pipeline)
    space_id = next_space_id(pipeline.tables, pipeline.config, pipeline.schedule.until)
    rows = Path(str(work.root), "tables", "training_rows", f"space_id={space_id}")
    next(rows.rglob("*.parquet")).unlink()
    work.said.clear()
    assert train_autoencoder(work.pipeline()).space_id == space_id
    assert any(line.startswith("training rows: written with ") for line in work.said)


@pytest.mark.full
def test_a_space_begins_with_an_earlier_one_s_weights_and_reports_what_did_not_fit(work: Work) -> None:
    serving = find_space(work.pipeline().tables, None)
    cold = train_autoencoder(work.pipeline(max_epochs=1))
    work.said.clear()
    warm = train_autoencoder(work.pipeline(max_epochs=1, init_from=serving.space_id))
    said = next(line for line in work.said if line.startswith("training: starting from weights"))
    assert said.startswith(f"training: starting from weights of space {serving.space_id}: encoder_linear, ")
    tables = work.pipeline().tables
    losses = {
        space.space_id: load_artifact(artifact_folder(tables, space)).manifest.metrics["valid_loss"]
        for space in (cold, warm, serving)
    }
    assert losses[warm.space_id] < losses[cold.space_id]
    assert losses[warm.space_id] == pytest.approx(losses[serving.space_id], abs=0.1)

    narrow = work.pipeline(max_epochs=1, init_from=serving.space_id)
    narrow.config = narrow.config.model_copy(
        update={"model": narrow.config.model.model_copy(update={"latent_dim": 16})}
    )
    train_autoencoder(narrow)
    assert any(line.startswith("training: not carried over: encoder_linear, ") for line in work.said)


def test_a_damaged_space_to_start_from_is_reported_before_propensities_are_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def initial_weights(*_: object, **__: object) -> None:
        raise ArtifactError("damaged")

    inputs: Any = SimpleNamespace(layout=SimpleNamespace(width=2), scaler=None, files={})
    plan: Any = SimpleNamespace(versions=SimpleNamespace(lineage_id="l1"))
    steps, fitted = [], []
    monkeypatch.setattr(create, "training_inputs", lambda *_, **__: inputs)
    monkeypatch.setattr(create, "empty_input", lambda *_: None)
    monkeypatch.setattr(create, "read_steps_per_epoch", lambda *_: steps.append(1))
    monkeypatch.setattr(create, "_first_rows", lambda *_, **__: np.zeros((1, 3), np.float32))
    monkeypatch.setattr(create, "_initial_weights", initial_weights)
    monkeypatch.setattr(create, "_propensities", lambda *_: fitted.append(1))
    tables: Any = None
    with pytest.raises(ArtifactError, match="damaged"):
        create._train(tables, config_of(tmp_path), plan, space_id="s1")
    assert (steps, fitted) == ([1], [])


@pytest.mark.parametrize(
    ("training", "error", "fault"),
    [
        ({"init_from": "s999-none"}, UsageError, "space s999-none: not in the registry"),
        ({"backend": "horovod", "num_workers": 16, "num_shards": 16}, SlotsError, "num_workers is 16, but Spark can"),
    ],
)
def test_a_training_that_cannot_be_is_refused_before_anything_is_done(
    work: Work, training: dict[str, object], error: type[Exception], fault: str
) -> None:
    pipeline = work.pipeline(**training)
    version = pipeline.tables.version(schemas.TRAINING_ROWS)
    for train in (lambda: run_pipeline(pipeline, retrain=True), lambda: train_autoencoder(pipeline)):
        with pytest.raises(error, match=fault):
            train()
    assert pipeline.tables.version(schemas.TRAINING_ROWS) == version


def test_weights_of_a_space_that_has_seen_later_days_are_refused(work: Work) -> None:
    serving = find_space(work.pipeline().tables, None)
    pipeline = work.pipeline(init_from=serving.space_id)
    create.check_training(pipeline.tables, pipeline.config, serving.trained_until)
    with pytest.raises(UsageError, match="after the end of this training"):
        create.check_training(pipeline.tables, pipeline.config, serving.trained_until - timedelta(days=1))


@pytest.fixture(scope="module")
def trained(done: tuple[RunContext, Config]) -> tuple[Artifact, pa.RecordBatch]:
    """Return the artifact that serves, and the features of its training dates."""
    pipeline, config = done
    space = find_space(pipeline.tables, None)
    artifact = load_artifact(artifact_folder(pipeline.tables, space), space.content_hash)
    as_ofs = pipeline.schedule.training_as_ofs
    rows = read_features(pipeline.tables, config, space.lineage_id, as_ofs).toArrow().combine_chunks()
    return artifact, rows.to_batches()[0]


def test_the_learned_code_and_the_propensities_have_mean_zero_and_their_variances_at_training_rows(
    trained: tuple[Artifact, pa.RecordBatch],
) -> None:
    artifact, batch = trained
    dim, names = artifact.manifest.model.latent_dim, ["return_7d", "volume_7d"]
    assert propensities_of(artifact.manifest.targets, artifact.manifest.model) == names
    code_BD = Encoder(artifact).embed(batch)
    tastes = num_tastes(artifact.layout, artifact.manifest.targets, artifact.manifest.model)
    learned_BL, propensity_BP = code_BD[:, : dim - len(names) - tastes], code_BD[:, dim - len(names) :]
    assert np.abs(np.hstack([learned_BL, propensity_BP]).mean(axis=0)).max() < 0.3  # some users are held out
    assert learned_BL.var(axis=0).mean() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(propensity_BP.std(axis=0), 1, rtol=0.1)


def test_a_propensity_predicts_which_users_return(
    done: tuple[RunContext, Config], trained: tuple[Artifact, pa.RecordBatch]
) -> None:
    pipeline, config = done
    artifact, batch = trained
    later = [day + timedelta(days=7) for day in pipeline.schedule.training_as_ofs]
    rows = read_features(pipeline.tables, config, artifact.manifest.lineage_id, later).toArrow()
    came = {
        (user, day - timedelta(days=7)): num > 0
        for user, day, num in zip(
            *(rows.column(c).to_pylist() for c in ("user_id", "as_of", "num_events_7d")), strict=True
        )
    }
    keys = zip(*(batch.column(c).to_pylist() for c in ("user_id", "as_of")), strict=True)
    returns_B = np.array([came.get(key, False) for key in keys])
    score_B = Encoder(artifact).embed(batch)[:, -2]
    recency_B = -batch.column("days_since_last_event").fill_null(1e3).to_numpy()
    assert roc_auc_score(returns_B, score_B) > roc_auc_score(returns_B, recency_B) > 0.5
