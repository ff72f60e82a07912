"""A new space: training rows from features, an autoencoder from training rows, an artifact, a candidate."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from userrep.config import Config
from userrep.ids import code_hash, short_hash
from userrep.items.versions import Versions
from userrep.model.artifact import Artifact, SpaceManifest, load_artifact, save_artifact, tensors_of
from userrep.model.corruption import empty_input
from userrep.model.frozen_folder import sealed
from userrep.model.propensities import fitted_propensities, used_inputs, used_targets
from userrep.model.self_check import SelfCheck
from userrep.model.standard import standardized_code
from userrep.model.tensor_file import Tensors, tensor_bytes
from userrep.model.warm_start import warm_start
from userrep.model.weights import propensities_of
from userrep.spaces.registry import Space, add_candidate, artifact_folder, find_space, list_spaces
from userrep.spaces.registry_value import artifact_path
from userrep.spaces.training_inputs import TrainingInputs, check_id, training_folder, training_inputs
from userrep.spaces.unrecorded import keep_training
from userrep.store.leases import held
from userrep.store.schemas import TRAINING_ROWS
from userrep.store.storage import artifacts_root, delete_folder, exists
from userrep.store.tables import Tables
from userrep.tracking.place import check_tracking
from userrep.training.data.shards import first_rows
from userrep.training.launch.backends import check_backend, run_training
from userrep.training.task import TrainingResult, TrainingTask

_ROWS = 16_384  # that the code is standardized by
_PROPENSITY_ROWS = 500_000
_CHECKED_ROWS = 100_000


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
    versions: Versions,
    as_ofs: Sequence[date],
    until: date,
    self_check: SelfCheck | None = None,
    report: Callable[[str], None],
) -> Space:
    """Train a space on the features of ``as_ofs`` and register it as a candidate.

    ``self_check``: for its manifest. Scaler, vocabularies and encoder see rows of as-of dates whose futures end by
    ``until`` alone. A run that was killed leaves rows and checkpoints under an id that is not registered; the next run
    takes the same id and goes on from them. Cost: that of ``training_inputs``, half a million rows at most for
    propensities, then the training.

    Raises
    ------
    AlreadyRunningError
        If another run is training a space; one at a time does.
    UserrepError
        If the id was given to another artifact meanwhile.
    """
    check_training(tables, config, report)
    with held(tables, "train_autoencoder", nested=True):
        space_id = next_space_id(tables, config, until)
        inputs = training_inputs(tables, config, space_id=space_id, versions=versions, as_ofs=as_ofs, report=report)
        trained = _trained(tables, config, inputs, SpaceId(space_id, versions.lineage_id, until), report)
        manifest = trained.manifest.model_copy(update={"self_check": self_check})
        manifest = save_space(artifacts_root(config), manifest, trained.tensors)
        keep_training(config, space_id, curve=trained.result.curve, ranks=trained.result.ranks)
        add_candidate(
            tables,
            space_id=space_id,
            lineage_id=versions.lineage_id,
            trained_until=until,
            content_hash=manifest.content_hash,
        )
        for folder in (training_folder(config, space_id), training_folder(config, check_id(space_id))):
            if exists(folder):
                delete_folder(folder)
        return find_space(tables, space_id)


def checked_model(
    tables: Tables,
    config: Config,
    *,
    space_id: str,
    versions: Versions,
    as_ofs: Sequence[date],
    until: date,
    report: Callable[[str], None],
) -> Artifact:
    """Train the model of a self-check, which is not written or registered.

    As ``create_space`` trains, but on at most 100,000 rows, and from fresh weights: those of an earlier space may have
    seen the days that it is to be judged on. ``space_id``: of the space that is to be trained.
    """
    own_id = check_id(space_id)
    most = min(config.training.max_rows, _CHECKED_ROWS)
    training = config.training.model_copy(update={"init_from": None, "max_rows": most})
    config = config.model_copy(update={"training": training})
    inputs = training_inputs(tables, config, space_id=own_id, versions=versions, as_ofs=as_ofs, report=report)
    trained = _trained(tables, config, inputs, SpaceId(own_id, versions.lineage_id, until), report)
    return Artifact(trained.manifest, trained.tensors)


def drop_checked_model(tables: Tables, config: Config, space_id: str) -> None:
    """Delete the rows and checkpoints of a checked model, once it is judged; what else is in its folder stays."""
    tables.drop_partitions(TRAINING_ROWS, [{"space_id": check_id(space_id)}])
    folder = training_folder(config, check_id(space_id))
    for part in ("inputs", "checkpoints"):
        if exists(f"{folder}/{part}"):
            delete_folder(f"{folder}/{part}")


class SpaceId(NamedTuple):
    """What names a space that is being trained."""

    space_id: str
    lineage_id: str
    trained_until: date


class Trained(NamedTuple):
    """What a training has made of its inputs, before it is written."""

    manifest: SpaceManifest
    tensors: Tensors
    result: TrainingResult


def _trained(
    tables: Tables, config: Config, inputs: TrainingInputs, space: SpaceId, report: Callable[[str], None]
) -> Trained:
    """Train; return a manifest that lacks its content hash, and the tensors."""
    layout, targets, empty_F = inputs.layout, inputs.targets, empty_input(inputs.layout, inputs.scaler)
    task = TrainingTask.of(
        inputs.files,
        layout=layout,
        targets=targets,
        model=config.model,
        training=config.training,
        empty_F=empty_F,
        folder=f"{training_folder(config, space.space_id)}/checkpoints",
        initial=_initial_weights(tables, config, inputs, space.lineage_id, report),
        candidates=inputs.candidates,
    )
    fitted, row_weight = _propensities(inputs, config)
    result = run_training(replace(task, row_weight=row_weight), spark=tables.spark, report=report)
    x_BF = _first_rows(inputs, max_rows=_ROWS)[:, : layout.width]
    weights = standardized_code(safetensors.numpy.load(result.weights), x_BF) | fitted
    manifest = SpaceManifest(
        **space._asdict(),
        created_at=datetime.now(UTC),
        layout=layout,
        targets=targets,
        model=config.model,
        training=config.training,
        metrics=result.metrics,
        curve=result.curve,
        config_hash=short_hash(config.model_dump()),
        code_hash=code_hash(),
    )
    return Trained(manifest, tensors_of(weights, inputs.scaler, empty_F), result)


def save_space(root: str, manifest: SpaceManifest, tensors: Tensors) -> SpaceManifest:
    """Write a space's artifact below ``artifacts_root``, in a folder of its own; return the manifest with its hash."""
    manifest = sealed(manifest, tensors)
    return save_artifact(f"{root}/{artifact_path(manifest.space_id, manifest.content_hash)}", manifest, tensors)


def _first_rows(inputs: TrainingInputs, *, max_rows: int, columns: Sequence[int] | None = None) -> NDArray[np.float32]:
    """Read some training rows, inputs and targets, or those of their numbers that are wanted."""
    width = inputs.layout.width + inputs.targets.width
    shards = first_rows(inputs.files["train"], rank=0, size=1, max_rows=max_rows, width=width, columns=columns)
    return np.concatenate(shards)


def _propensities(inputs: TrainingInputs, config: Config) -> tuple[Tensors, float]:
    """Fit the propensities, if the model has any, on at most half a million training rows.

    Returns their weights and the rows' mean weight in the loss of the next items. Cost: these rows are read whole.
    Driver memory: some 40 numbers of each, as float64.
    """
    layout, targets = inputs.layout, inputs.targets
    if not targets.blocks:
        return {}, 1.0
    used = used_inputs(layout)
    columns = [*used, *(layout.width + place for place in [*used_targets(targets), targets.items.start])]
    rows_NC = _first_rows(inputs, max_rows=_PROPENSITY_ROWS, columns=columns)
    row_weight = float(rows_NC[:, -1].mean()) or 1.0  # none has an item: the loss is 0 anyway
    if not propensities_of(targets, config.model):
        return {}, row_weight
    weight_PC, bias_P = fitted_propensities(rows_NC[:, : len(used)], rows_NC[:, len(used) : -1])
    weight_PF = np.zeros((len(bias_P), layout.width), np.float32)
    weight_PF[:, used] = weight_PC
    return {"propensity_PF": weight_PF, "propensity_P": bias_P.astype(np.float32)}, row_weight


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
