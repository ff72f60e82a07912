"""Create a space: build training rows, train the autoencoder, save the artifact, and register a candidate."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from userrep.config import Config, Model
from userrep.errors import UsageError
from userrep.ids import code_hash, short_hash
from userrep.model.artifact import Artifact, SpaceManifest, load_artifact, save_artifact, tensors_of
from userrep.model.corruption import empty_input
from userrep.model.frozen_folder import Tensors, sealed
from userrep.model.principal_start import principal_start
from userrep.model.propensities import fitted_propensities, knots_of, used_inputs, used_targets, with_hinges
from userrep.model.self_check import SelfCheck
from userrep.model.standard import standardized_code
from userrep.model.tastes import fitted_tastes
from userrep.model.warm_start import warm_start
from userrep.model.weights import num_tastes, propensities_of
from userrep.spaces.registry import Space, add_candidate, artifact_folder, find_space, next_space_id
from userrep.spaces.registry_state import artifact_path
from userrep.spaces.training_inputs import TrainingInputs, TrainingPlan, check_id, training_folder, training_inputs
from userrep.spaces.unrecorded import keep_training
from userrep.store.filesystem import delete_folder
from userrep.store.leases import held
from userrep.store.schemas import TRAINING_ROWS
from userrep.store.tables import Tables
from userrep.store.vector_storage import int8_scales
from userrep.tracking.target import check_tracking
from userrep.training.data.shards import first_rows, read_steps_per_epoch
from userrep.training.launch.backends import check_backend, run_training
from userrep.training.task import TrainingTask

logger = logging.getLogger(__name__)

_SAMPLE_ROWS = 16_384  # maximum training rows for the principal axes, and to standardize the latent code
_PROPENSITY_ROWS = 500_000  # maximum training rows that propensities are fitted on
_SELF_CHECK_ROWS = 100_000  # maximum training rows of a self-check model
_SELF_CHECK_BATCH = 1024  # larger batches would leave few steps


def check_training(tables: Tables, config: Config, until: date) -> None:
    """Check that a training on data until a date can run as configured, before any work is done.

    Raises UsageError or SlotsError if the backend is not installed or has too few slots, ``training.init_from`` names
    an unknown space or one that was trained on later data, or the tracking URI is unusable.
    """
    if config.training.init_from is not None:
        first = find_space(tables, config.training.init_from)
        if first.trained_until > until:  # an evaluation would take days as unseen that its weights have seen
            raise UsageError(
                f"training.init_from: space {first.space_id} was trained until {first.trained_until}, after the end of "
                f"this training, {until}. Name an earlier space, or set a later training.as_ofs.until."
            )
    check_tracking(config)
    check_backend(config.training, tables.spark)


def create_space(tables: Tables, config: Config, plan: TrainingPlan, *, self_check: SelfCheck | None = None) -> Space:
    """Train a space and register it as a candidate.

    Scaler, vocabularies and encoder only see rows of the plan's as-of dates. ``self_check`` is stored in the manifest.
    A killed run leaves rows and checkpoints under an id that is not registered; the next run uses the same id and
    resumes from them. Cost: ``training_inputs``, a read of at most half a million rows to fit propensities, then the
    training.

    Raises
    ------
    AlreadyRunningError
        If another run is training a space.
    UserrepError
        If another training has registered the same id in the meantime.
    """
    check_training(tables, config, plan.until)
    with held(tables, "train_autoencoder", nested=True):
        space_id = next_space_id(tables, config, plan.until)
        trained, ranks = _train(tables, config, plan, space_id=space_id)
        manifest = trained.manifest.model_copy(update={"self_check": self_check})
        manifest = save_space(tables.artifacts_root, manifest, trained.tensors)
        keep_training(tables, config, space_id, ranks=ranks)
        add_candidate(
            tables,
            space_id=space_id,
            lineage_id=manifest.lineage_id,
            trained_until=manifest.trained_until,
            content_hash=manifest.content_hash,
        )
        for folder in (training_folder(tables, space_id), training_folder(tables, check_id(space_id))):
            delete_folder(folder)
        return find_space(tables, space_id)


def checked_model(tables: Tables, config: Config, plan: TrainingPlan, *, space_id: str) -> Artifact:
    """Train the model of a self-check. It is neither saved nor registered.

    The training differs from ``create_space`` in three ways. It uses at most 100,000 rows, and batches of at most
    1,024 of them, with the learning rate in proportion. It starts from fresh weights, because an earlier space may
    have seen the days that the self-check is evaluated on. ``space_id``: the id of the space that will be trained
    after the check.
    """
    model_id, training = check_id(space_id), config.training
    batch_size = min(training.batch_size, max(1, _SELF_CHECK_BATCH // training.num_shards) * training.num_shards)
    changed = {
        "init_from": None,
        "max_rows": min(training.max_rows, _SELF_CHECK_ROWS),
        "batch_size": batch_size,
        "learning_rate": training.learning_rate * batch_size / training.batch_size,
    }
    config = config.model_copy(update={"training": training.model_copy(update=changed)})
    artifact, _ = _train(tables, config, plan, space_id=model_id)
    return artifact


def drop_checked_model(tables: Tables, space_id: str) -> None:
    """Delete the training rows and checkpoints of a self-check model. Other files in its folder are kept."""
    tables.drop_partitions(TRAINING_ROWS, [{"space_id": check_id(space_id)}])
    folder = training_folder(tables, check_id(space_id))
    for part in ("inputs", "checkpoints"):
        delete_folder(f"{folder}/{part}")


def _train(
    tables: Tables, config: Config, plan: TrainingPlan, *, space_id: str
) -> tuple[Artifact, list[dict[str, Any]]]:
    """Fit the propensities, the autoencoder and the tastes, and standardize the latent code.

    Returns the artifact, without a content hash, and the ranks of ``TrainingResult``.
    """
    inputs = training_inputs(tables, config, plan, space_id=space_id)
    empty_F = empty_input(inputs.layout, inputs.scaler)
    steps = read_steps_per_epoch(inputs.files, config.training)
    x_BF = _first_rows(inputs, max_rows=_SAMPLE_ROWS)[:, : inputs.layout.width]
    first = find_space(tables, config.training.init_from) if config.training.init_from else None
    initial = _initial_weights(tables, config, inputs, first, x_BF, lineage_id=plan.versions.lineage_id)
    propensities, row_weight = _propensities(inputs, config.model)  # after the checks above, because it takes minutes
    task = TrainingTask(
        files=inputs.files, steps=steps, layout=inputs.layout, targets=inputs.targets,
        model=config.model, training=config.training, empty_F=empty_F,
        folder=f"{training_folder(tables, space_id)}/checkpoints", candidates=inputs.candidates, row_weight=row_weight,
        initial=initial, starts_from=first.content_hash if first else "",
    )  # fmt: skip
    result = run_training(task, spark=tables.spark)
    with threadpool_limits(1, user_api="blas"):  # the same bits on any number of cores
        weights = standardized_code(result.weights, x_BF) | propensities
    if number := num_tastes(inputs.layout, inputs.targets, config.model):
        weights |= fitted_tastes(
            inputs.layout, inputs.scaler, x_BF,
            num_tastes=number, latent_dim=config.model.latent_dim, seed=config.training.seed,
        )  # fmt: skip
    manifest = SpaceManifest(
        space_id=space_id, lineage_id=plan.versions.lineage_id, trained_until=plan.until, created_at=datetime.now(UTC),
        layout=inputs.layout, targets=inputs.targets, model=config.model, training=config.training,
        metrics=result.metrics, curve=result.curve, config_hash=short_hash(config.model_dump()), code_hash=code_hash(),
    )  # fmt: skip
    artifact = Artifact(manifest, tensors_of(weights, inputs.scaler, empty_F))
    scales = int8_scales(artifact.encoder().encode(torch.from_numpy(x_BF)).numpy())
    return replace(artifact, manifest=manifest.model_copy(update={"int8_scales": scales})), result.ranks


def save_space(root: str, manifest: SpaceManifest, tensors: Tensors) -> SpaceManifest:
    """Save a space's artifact in its own folder below ``root``. Returns the manifest with its content hash."""
    manifest = sealed(manifest, tensors)
    return save_artifact(f"{root}/{artifact_path(manifest.space_id, manifest.content_hash)}", manifest, tensors)


def _first_rows(inputs: TrainingInputs, *, max_rows: int, columns: Sequence[int] | None = None) -> NDArray[np.float32]:
    """Read up to ``max_rows`` training rows: the given columns, by default all inputs and targets."""
    width = inputs.layout.width + inputs.targets.width
    shards = first_rows(inputs.files["train"], rank=0, size=1, max_rows=max_rows, width=width, columns=columns)
    return np.concatenate(shards)


def _propensities(inputs: TrainingInputs, model: Model) -> tuple[Tensors, float]:
    """Fit the propensities, if the model has any, on at most half a million training rows.

    Returns
    -------
    The weights of the propensities, and the mean weight of a row in the next-item loss. Cost: these rows are read
    whole. Driver memory: about 150 float64 numbers per row.
    """
    layout, targets = inputs.layout, inputs.targets
    if not targets.blocks:
        return {}, 1.0
    used = used_inputs(layout)
    columns = [*used, *(layout.width + index for index in [*used_targets(targets), targets.items.start])]
    rows_NC = _first_rows(inputs, max_rows=_PROPENSITY_ROWS, columns=columns)
    row_weight = float(rows_NC[:, -1].mean()) or 1.0  # if no row has a next item, the loss is 0 anyway
    if not propensities_of(targets, model):
        return {}, row_weight
    x_NC, y_NP = rows_NC[:, : len(used)], rows_NC[:, len(used) : -1]
    knot_KS = knots_of(x_NC[:, : layout.num_counts])
    with threadpool_limits(1, user_api="blas"):  # the same bits on any number of cores
        weight_PC, bias_P = fitted_propensities(with_hinges(x_NC, knot_KS), y_NP)
    weight_PF = np.zeros((len(bias_P), layout.width))
    weight_PF[:, used] = weight_PC[:, : len(used)]
    fitted: Tensors = {
        "propensity_PF": weight_PF.astype(np.float32),
        "propensity_PG": weight_PC[:, len(used) :].astype(np.float32),
        "propensity_P": bias_P.astype(np.float32),
        "propensity_knot_KS": knot_KS,
    }
    return fitted, row_weight


def _initial_weights(
    tables: Tables,
    config: Config,
    inputs: TrainingInputs,
    first: Space | None,
    x_BF: NDArray[np.float32],
    *,
    lineage_id: str,
) -> Tensors:
    """Return the weights of the space ``first`` that fit this model; without one, those of ``principal_start``."""
    layout, targets, seed = inputs.layout, inputs.targets, config.training.seed
    if first is None:
        return principal_start(layout, targets, config.model, x_BF, seed=seed)
    start = warm_start(
        load_artifact(artifact_folder(tables, first), first.content_hash),
        layout=layout,
        targets=targets,
        scaler=inputs.scaler,
        model=config.model,
        same_items=first.lineage_id == lineage_id,
        seed=seed,
    )
    logger.info(f"training: starting from weights of space {first.space_id}: {', '.join(start.carried) or 'none fit'}")
    for line in start.fresh:
        logger.info(f"training: not carried over: {line}")
    return start.tensors
