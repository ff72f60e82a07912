"""A new space: training rows from features, an autoencoder from training rows, an artifact, a candidate."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime

import numpy as np
import safetensors.numpy

from userrep.config import Config
from userrep.ids import code_hash, short_hash
from userrep.leases import held
from userrep.model import coordinates
from userrep.model.artifact import SpaceManifest, load_artifact, save_artifact, tensors_of
from userrep.model.autoencoder import Autoencoder
from userrep.model.carried import whitening_of
from userrep.model.corruption import empty_input
from userrep.model.frozen_folder import sealed
from userrep.model.tensor_file import Tensors, tensor_bytes
from userrep.model.warm_start import warm_start
from userrep.spaces.registry import Space, add_candidate, artifact_folder, find_space, list_spaces
from userrep.spaces.registry_value import artifact_path
from userrep.spaces.training_inputs import TrainingInputs, training_folder, training_inputs
from userrep.spaces.unrecorded import keep_training
from userrep.storage import artifacts_root, delete_folder
from userrep.tables import Tables
from userrep.tracking.place import check_tracking
from userrep.training.backends import check_backend, run_training
from userrep.training.shards import first_rows
from userrep.training.task import TrainingResult, TrainingTask


def next_space_id(tables: Tables, config: Config, until: date) -> str:
    """Name the space that a training would make now: a running number, and a hash of what it is trained with."""
    number = 1 + len(list_spaces(tables))
    return f"s{number:03d}-{_recipe_hash(config, until)}"


def is_trained_so(space: Space, config: Config, until: date) -> bool:
    """Say whether a space has the model, settings and end of what it learnt from that a training would have now."""
    return space.space_id.endswith(f"-{_recipe_hash(config, until)}")


def _recipe_hash(config: Config, until: date) -> str:
    return short_hash([config.model.model_dump(), config.training.recipe, until], 6)


def check_training(tables: Tables, config: Config, report: Callable[[str], None]) -> None:
    """Refuse a training that could not run or be begun as configured, before anything is done for it.

    Raises
    ------
    UsageError, SlotsError
        With the cure: no such backend here, too few slots, no such space to begin with, nowhere to record it.
    """
    if config.training.init_from is not None:
        find_space(tables, config.training.init_from)
    check_tracking(config)
    check_backend(config.training, tables.spark, report)


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

    Scaler, vocabularies and encoder see rows of as-of dates whose futures end by ``until`` alone. A run that was killed
    leaves rows and checkpoints under an id that is not registered; the next run takes the same id and goes on from
    them. Cost: that of ``training_inputs``, then the training.

    Raises
    ------
    AlreadyRunningError
        If another run is training a space; one at a time does.
    UserrepError
        If the id was given to another artifact meanwhile.
    """
    check_training(tables, config, report)
    with held(tables, "train_autoencoder", nested=True):
        return _create_space(tables, config, lineage_id, as_ofs=as_ofs, until=until, report=report)


def _create_space(
    tables: Tables,
    config: Config,
    lineage_id: str,
    *,
    as_ofs: Sequence[date],
    until: date,
    report: Callable[[str], None],
) -> Space:
    space_id = next_space_id(tables, config, until)
    inputs = training_inputs(tables, config, space_id=space_id, lineage_id=lineage_id, as_ofs=as_ofs, report=report)
    layout, empty_F = inputs.layout, empty_input(inputs.layout, inputs.scaler)
    task = TrainingTask.of(
        inputs.files,
        layout=layout,
        targets=inputs.targets,
        model=config.model,
        training=config.training,
        empty_F=empty_F,
        folder=f"{training_folder(config, space_id)}/checkpoints",
        initial=_initial_weights(tables, config, inputs, lineage_id, report),
    )
    result = run_training(task, spark=tables.spark, report=report)
    tensors = tensors_of(_in_coordinates(task, result, inputs), inputs.scaler, empty_F)
    manifest = SpaceManifest(
        space_id=space_id,
        created_at=datetime.now(UTC),
        lineage_id=lineage_id,
        trained_until=until,
        layout=layout,
        targets=inputs.targets,
        model=config.model,
        training=config.training,
        metrics=result.metrics,
        curve=result.curve,
        config_hash=short_hash(config.model_dump()),
        code_hash=code_hash(),
    )
    manifest = save_space(artifacts_root(config), manifest, tensors)
    keep_training(config, space_id, curve=result.curve, ranks=result.ranks)
    add_candidate(
        tables, space_id=space_id, lineage_id=lineage_id, trained_until=until, content_hash=manifest.content_hash
    )
    delete_folder(training_folder(config, space_id))
    return find_space(tables, space_id)


def save_space(root: str, manifest: SpaceManifest, tensors: Tensors) -> SpaceManifest:
    """Write a space's artifact below ``artifacts_root``, in a folder of its own; return the manifest with its hash."""
    manifest = sealed(manifest, tensors)
    return save_artifact(f"{root}/{artifact_path(manifest.space_id, manifest.content_hash)}", manifest, tensors)


def _in_coordinates(task: TrainingTask, result: TrainingResult, inputs: TrainingInputs) -> Tensors:
    """Whiten what is carried and move what was learned as consumers get it, both measured on the first training rows.

    Driver memory: ``coordinates.ROWS`` rows.
    """
    layout, targets = inputs.layout, inputs.targets
    width = layout.width + targets.width
    rows = first_rows(inputs.files["train"], rank=0, size=1, max_rows=coordinates.ROWS, width=width)
    autoencoder = Autoencoder(layout, task.model, num_targets=targets.width)
    x_BF = np.concatenate([of_shard[:, : layout.width] for of_shard in rows])
    weights = safetensors.numpy.load(result.weights) | {"whitening_EE": whitening_of(x_BF, layout, task.model)}
    return coordinates.in_readable_coordinates(autoencoder, weights, layout, x_BF)


def _initial_weights(
    tables: Tables, config: Config, inputs: TrainingInputs, lineage_id: str, report: Callable[[str], None]
) -> bytes:
    """Return the weights that the training begins with, of ``training.init_from``; none without it."""
    if config.training.init_from is None:
        return b""
    space = find_space(tables, config.training.init_from)
    start = warm_start(
        load_artifact(artifact_folder(config, space), space.content_hash),
        layout=inputs.layout,
        targets=inputs.targets,
        scaler=inputs.scaler,
        model=config.model,
        same_items=space.lineage_id == lineage_id,
        seed=config.training.seed,
    )
    report(f"training begins with weights of space {space.space_id}: {', '.join(start.carried) or 'none fit'}")
    for line in start.fresh:
        report(f"not carried over: {line}")
    return tensor_bytes(start.tensors)
