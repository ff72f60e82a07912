"""A new space: training rows from features, an autoencoder from training rows, an artifact, a candidate."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime

from userrep.config import Config
from userrep.features.build import read_features
from userrep.features.layout import InputLayout
from userrep.features.spec import FeatureSpec
from userrep.features.training_rows import fit_scaler, training_rows, valid_dates, vocabulary, with_split
from userrep.ids import code_hash, short_hash
from userrep.model.artifact import SpaceManifest, save_artifact, tensors_of
from userrep.model.corruption import empty_input
from userrep.schemas import TRAINING_ROWS
from userrep.spaces.registry import Space, add_candidate, artifact_folder, find_space, list_spaces
from userrep.storage import delete_folder, exists
from userrep.tables import Tables
from userrep.training.backends import run_training
from userrep.training.loop import TrainingTask
from userrep.training.shards import shard_files


def next_space_id(tables: Tables, config: Config, until: date) -> str:
    """Name the space that a training would make now: a running number, and a hash of what it is trained with."""
    number = 1 + len(list_spaces(tables))
    return f"s{number:03d}-{short_hash([config.model.model_dump(), config.training.model_dump(), until], 6)}"


def create_space(
    tables: Tables,
    config: Config,
    *,
    lineage_id: str,
    as_ofs: Sequence[date],
    until: date,
    report: Callable[[str], None],
) -> Space:
    """Train a space on the features of ``as_ofs`` and register it as a candidate.

    Scaler, vocabularies and encoder see rows of as-of dates up to ``until`` alone. A run that was killed leaves rows
    and files under an id that is not registered; the next run takes the same id and replaces them.
    Cost: three passes over the features, one shuffle of the scaled rows, then the training.
    """
    space_id = next_space_id(tables, config, until)
    features = read_features(tables, config, lineage_id, as_ofs)
    rows = with_split(
        features,
        held_out_share=config.training.held_out_share,
        later_dates=valid_dates(list(as_ofs)),
        seed=config.training.seed,
    )
    spec = FeatureSpec.of(config)
    layout = InputLayout.of(spec, vocabulary(rows.where("split = 'train'"), spec))
    scaler = fit_scaler(rows, layout)
    dealt = training_rows(rows, layout, scaler, space_id=space_id, num_shards=config.training.num_shards)
    tables.replace(dealt, TRAINING_ROWS, f"space_id = '{space_id}'")
    version = tables.version(TRAINING_ROWS)
    pinned = tables.read(TRAINING_ROWS, version=version).where(f"space_id = '{space_id}'").inputFiles()
    report(f"training rows written: {len(layout.blocks)} blocks, {layout.width} inputs, {len(as_ofs)} as-of dates")

    empty_F = empty_input(layout, scaler)
    task = TrainingTask.of(
        shard_files(pinned, config.training.num_shards),
        layout=layout,
        model=config.model,
        training=config.training,
        empty_F=empty_F,
    )
    result = run_training(task, spark=tables.spark, report=report)
    folder = artifact_folder(config, space_id)
    if exists(folder):  # of a run that was killed before it could register the space
        delete_folder(folder)
    manifest = SpaceManifest(
        space_id=space_id,
        created_at=datetime.now(UTC),
        lineage_id=lineage_id,
        trained_until=until,
        layout=layout,
        model=config.model,
        training=config.training,
        metrics=result.metrics,
        config_hash=short_hash(config.model_dump()),
        code_hash=code_hash(),
    )
    saved = save_artifact(folder, manifest, tensors_of(result.weights, scaler, empty_F))
    add_candidate(
        tables, space_id=space_id, lineage_id=lineage_id, trained_until=until, content_hash=saved.content_hash
    )
    return find_space(tables, space_id)
