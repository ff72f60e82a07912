"""Inputs of a space's training, kept on disk until the space is registered, so that a killed training can resume."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from hashlib import sha256

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import Config
from userrep.errors import ArtifactError, plural
from userrep.features.build import stored_features
from userrep.features.layout import InputLayout, Scaler
from userrep.features.ledger import built_sets, sample_of, with_futures
from userrep.features.spec import FeatureSpec, content_modality
from userrep.features.targets import Future, TargetLayout
from userrep.features.training_rows import fit_scaler, training_rows, valid_dates, vocabulary, with_split
from userrep.ids import checked_name, short_hash
from userrep.items.candidates import read_candidates
from userrep.items.versions import Versions
from userrep.model.frozen_folder import WEIGHTS, Manifest, Tensors, read_frozen, tensor_bytes, write_frozen
from userrep.store.buckets import NUM_BUCKETS, user_bucket
from userrep.store.filesystem import all_exist, delete_folder
from userrep.store.schemas import TRAINING_ROWS
from userrep.store.tables import Keys, Tables
from userrep.tiles.ledger import TileLedger
from userrep.training.data.shards import ShardFiles, shard_files

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingInputs:
    """Files of one version of ``training_rows``, with the layout of a row and the scaler that was applied.

    ``candidates``: path and SHA-256 of the file with the candidate items for next-item prediction; None if the model
    predicts no items.
    """

    files: ShardFiles
    layout: InputLayout
    targets: TargetLayout
    scaler: Scaler
    candidates: tuple[str, str] | None


@dataclass(frozen=True)
class TrainingPlan:
    """What a space is trained on: features of a lineage at some as-of dates, whose futures end by ``until``.

    ``ledger``: the tile ledger pinned by the run; by default, the newest.
    """

    versions: Versions
    as_ofs: Sequence[date]
    until: date
    ledger: TileLedger | None = None


def training_folder(tables: Tables, space_id: str) -> str:
    """Return the folder of an unfinished training: its inputs and checkpoints."""
    return f"{tables.artifacts_root}/artifacts/training/{checked_name(space_id, 'space')}"


def check_id(space_id: str) -> str:
    """Return the id under which the self-check of a training keeps its rows and files: the space's number only.

    A training with other settings has another space id but the same number, so it replaces what an interrupted check
    left behind.
    """
    return f"{space_id.partition('-')[0]}-check"


def training_inputs(tables: Tables, config: Config, plan: TrainingPlan, *, space_id: str) -> TrainingInputs:
    """Return the inputs of an earlier interrupted run if they were built from the same features; otherwise build them.

    The features of the plan's dates, and of the dates on which their futures end, must exist. Cost of building: three
    passes over the features and one over those of the futures, one shuffle of the scaled rows, and ``read_candidates``.
    """
    lineage_id = plan.versions.lineage_id
    folder, key = training_folder(tables, space_id), inputs_key(tables, config, lineage_id, plan.as_ofs)
    kept = _read(f"{folder}/inputs", key)
    if kept is not None:
        logger.info("training rows: reusing those of the interrupted run")
        return kept
    delete_folder(folder)
    sets = built_sets(tables, lineage_id, with_futures(plan.as_ofs, config.future_days))
    wanted = sample_of([sets[day] for day in plan.as_ofs], max_rows=config.training.max_rows)
    num_buckets = min(wanted, *(built.num_buckets for built in sets.values()))
    if num_buckets < NUM_BUCKETS:
        logger.info(f"training rows: using {num_buckets / NUM_BUCKETS:.2%} of the users, because of training.max_rows")
    inputs, candidates = _build(tables, config, plan, space_id=space_id, num_buckets=num_buckets)
    widths = f"{len(inputs.layout.blocks)} blocks, {inputs.layout.width} inputs, {inputs.targets.width} targets"
    logger.info(f"training rows: written with {widths}, {plural(len(plan.as_ofs), 'as-of date')}")
    return _write(f"{folder}/inputs", key, inputs, candidates)


def _build(
    tables: Tables, config: Config, plan: TrainingPlan, *, space_id: str, num_buckets: int
) -> tuple[TrainingInputs, Tensors]:
    """Write the training rows of users in these buckets; return the inputs without candidates, and the candidates."""
    settings, as_ofs = config.training, list(plan.as_ofs)

    def features_after(days: int) -> DataFrame:
        """Read the features of ``days`` days after each training date; as_of is the training date."""
        later = stored_features(
            tables, config, plan.versions.lineage_id, [day + timedelta(days=days) for day in as_ofs]
        )
        sampled = later if num_buckets == NUM_BUCKETS else later.where(user_bucket() < num_buckets)
        return with_split(
            sampled.withColumn("as_of", F.date_sub("as_of", days)),
            held_out_share=settings.held_out_share,
            later_dates=valid_dates(as_ofs),
            seed=settings.seed,
        )

    rows = features_after(0)
    spec = FeatureSpec.of(config)
    layout = InputLayout.of(spec, vocabulary(rows.where("split = 'train'"), spec), _taste_modality(config))
    scaler = fit_scaler(rows, layout)
    futures = [
        (Future(days, layout, scaler, {day: d for d, day in enumerate(as_ofs)} if k == 0 else {}), features_after(days))
        for k, days in enumerate(config.future_days)
    ]
    sharded = training_rows(rows, futures, layout, scaler, space_id=space_id, num_shards=settings.num_shards)
    own: Keys = [{"space_id": space_id}]
    tables.replace(sharded, TRAINING_ROWS, own)
    pinned = tables.read(TRAINING_ROWS, own, version=tables.version(TRAINING_ROWS))
    files = shard_files(pinned.inputFiles(), settings.num_shards)
    candidates: Tensors = {}
    if _predicts_items(config):
        days, dims = config.future_days[0], spec.modalities
        candidates = read_candidates(
            tables, plan.versions, as_ofs, days=days, dims=dims, seed=settings.seed, ledger=plan.ledger
        )
    targets = TargetLayout.of(spec, config.future_days)
    return TrainingInputs(files, layout, targets, scaler, None), candidates


def _predicts_items(config: Config) -> bool:
    """Return whether the model predicts the next items, and so needs candidates."""
    return bool(config.future_days and config.model.next_items_weight)


def _taste_modality(config: Config) -> str | None:
    """Return the modality that tastes are made of; None without item texts, or for a model of the inputs alone."""
    return content_modality(config) if config.model.looks_ahead else None


def inputs_key(tables: Tables, config: Config, lineage_id: str, as_ofs: Sequence[date]) -> str:
    """Hash what training rows are built from: the features of all dates, and the settings of split and shards."""
    sets = built_sets(tables, lineage_id, with_futures(as_ofs, config.future_days))
    training = config.training
    split = [training.held_out_share, training.seed, training.num_shards, training.max_rows]
    used = [
        (days, str(day), features.hash, features.num_buckets, features.num_users)  # num_users: some may be erased
        for days in (0, *config.future_days)
        for day in sorted(as_ofs)
        for features in (sets[day + timedelta(days=days)],)
    ]
    return short_hash([lineage_id, used, split, _predicts_items(config), _taste_modality(config)], 64)


class _Kept(Manifest):
    """Inputs as stored, with the ``inputs_key`` they were built for. The tensors are the scaler and the candidates."""

    key: str
    files: ShardFiles
    layout: InputLayout
    targets: TargetLayout
    candidates: tuple[str, str] | None


def _write(folder: str, key: str, inputs: TrainingInputs, candidates: Tensors) -> TrainingInputs:
    """Write inputs and candidates to a folder; return the inputs with the path of the candidates."""
    tensors = {"center_F": inputs.scaler.center_F, "scale_F": inputs.scaler.scale_F} | candidates
    if candidates:
        inputs = replace(inputs, candidates=(f"{folder}/{WEIGHTS}", sha256(tensor_bytes(tensors)).hexdigest()))
    named = {name: getattr(inputs, name) for name in ("files", "layout", "targets", "candidates")}
    write_frozen(folder, _Kept(key=key, **named), tensors)
    return inputs


def _read(folder: str, key: str) -> TrainingInputs | None:
    """Read inputs from a folder; None if they are missing, incomplete, have another key, or lost their row files."""
    try:
        kept, tensors = read_frozen(folder, _Kept, expected_hash=None, cure="")
    except ArtifactError:
        return None
    files = [path for shards in kept.files.values() for paths in shards for path in paths]
    if kept.key != key or not all_exist(files):
        return None
    scaler = Scaler(center_F=tensors["center_F"], scale_F=tensors["scale_F"])
    return TrainingInputs(kept.files, kept.layout, kept.targets, scaler, kept.candidates)
