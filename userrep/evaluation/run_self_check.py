"""Self-check of a training: does an embedding add value on this log?

Before a space is trained, a model with the same settings is trained on an earlier part of the log. It is evaluated on
later days that only the space's own training will see, because days that an encoder has seen prove nothing.
"""

import logging

import numpy as np

from userrep.config import Config
from userrep.errors import GateRefusedError, UsageError
from userrep.evaluation.dates import CheckPlan
from userrep.evaluation.families import EMBEDDING, INPUT_ATTRIBUTES, first_metrics, lead_inputs, leads
from userrep.evaluation.measure import check_measured, fit_and_describe, measure
from userrep.evaluation.representations.catalog import representations
from userrep.evaluation.run import akin_to_training, read_context_and_truth
from userrep.evaluation.sampled_rows import TEST
from userrep.evaluation.tasks.catalog import tasks_of
from userrep.features.ledger import feature_sets
from userrep.features.profiles import profiles_fingerprint
from userrep.features.spec import FeatureSpec
from userrep.ids import code_hash, short_hash
from userrep.items.versions import Versions
from userrep.model.artifact import Artifact
from userrep.model.self_check import SelfCheck
from userrep.spaces.create import checked_model, drop_checked_model
from userrep.spaces.training_inputs import TrainingPlan, check_id, inputs_key, training_folder
from userrep.store.filesystem import read_bytes, write_bytes
from userrep.store.tables import Tables
from userrep.tiles.ledger import TileLedger, days_fingerprint

logger = logging.getLogger(__name__)

PEERS = ("untrained", "rfm_history", "pooled_longest", "raw", "pca")
_MAX_ROWS = 19_000
_MAX_BYTES = 1 << 20  # of a stored result


def self_check(
    tables: Tables, config: Config, space_id: str, *, versions: Versions, check: CheckPlan, ledger: TileLedger
) -> SelfCheck:
    """Train the checked model and compare it with peers, or return the stored result of an earlier run.

    The features and item vectors of all dates must be built. ``space_id``: the space that will be trained. ``ledger``:
    the tile ledger pinned by the run. Rows and checkpoints of the checked model are kept until the result is stored.
    Cost: two reads in Spark that grow with the log (``training_inputs``, ``read_context_and_truth``); then a training
    on at most 100,000 rows and probes on at most 19,000, which do not.

    Raises
    ------
    UsageError
        If the log has too few users for a training or for any task.
    """
    key = _result_key(tables, config, versions, check, ledger)
    result_uri = f"{training_folder(tables, check_id(space_id))}/{key}.json"
    if (result := _read(result_uri)) is not None:
        logger.info("reusing the result of an earlier run")
        return result
    training = TrainingPlan(versions, check.as_ofs, check.plan.until, ledger)
    model = checked_model(tables, config, training, space_id=space_id)
    result = check_model(tables, config, model, versions=versions, check=check, ledger=ledger)
    write_bytes(result_uri, result.model_dump_json().encode())
    drop_checked_model(tables, space_id)
    return result


def _read(uri: str) -> SelfCheck | None:
    try:
        return SelfCheck.model_validate_json(read_bytes(uri, max_bytes=_MAX_BYTES))
    except (OSError, ValueError):  # missing or incomplete
        return None


def _result_key(tables: Tables, config: Config, versions: Versions, check: CheckPlan, ledger: TileLedger) -> str:
    """Hash the inputs of a check: features, labels, settings and code."""
    sets = feature_sets(tables, versions.lineage_id, sampled=True)
    return short_hash([
        inputs_key(tables, config, versions.lineage_id, check.as_ofs),
        check.plan, [[sets[day].hash, sets[day].num_buckets, sets[day].num_users] for day in check.plan.dates],
        days_fingerprint(ledger.latest, start=None, end=check.plan.end), profiles_fingerprint(tables.spark, config),
        config.model.model_dump(), config.training.recipe, config.evaluation.model_dump(), code_hash(),
    ])  # fmt: skip


def check_model(
    tables: Tables, config: Config, artifact: Artifact, *, versions: Versions, check: CheckPlan, ledger: TileLedger
) -> SelfCheck:
    """Evaluate a model on a plan's dates, with one draw of each task's examples."""
    plan, settings = check.plan, config.evaluation
    settings = settings.model_copy(update={"max_rows": min(settings.max_rows, _MAX_ROWS), "num_seeds": 1})
    config = config.model_copy(update={"evaluation": settings})
    context, truth = read_context_and_truth(
        tables, config, artifact=artifact, versions=versions, plan=plan, ledger=ledger
    )
    tasks = tasks_of(plan, FeatureSpec.of(config).attributes, settings.attribute_names)
    compared = {name: fit for name, fit in representations().items() if name in (EMBEDDING, *PEERS)}
    described = [fit_and_describe(name, fit, context)[1] for name, fit in compared.items()]
    family_tasks = [task for task in tasks if not task.name.startswith(INPUT_ATTRIBUTES)]
    akin = akin_to_training(artifact, family_tasks)
    measured, left_out = measure(family_tasks, truth, described, settings)
    check_measured(measured, left_out)
    if not lead_inputs(measured):
        raise UsageError("self-check: no task has 200 test examples of each class.")
    values: dict[str, dict[str, float]] = {}
    for result in first_metrics(measured):
        values.setdefault(result.task, {})[result.representation] = round(result.value, 4)
    return SelfCheck(
        trained_until=plan.until,
        test_as_ofs=list(plan.test),
        num_training_dates=len(check.as_ofs),
        num_test_users=len(np.unique(context.rows.user_N[context.rows.role_N == TEST])),
        values=values,
        ahead=leads(measured, akin),
        akin=akin,
        not_judged=sorted({result.task for result in first_metrics(measured) if not result.is_judged}),
        left_out=left_out,
    )


def check_gain(result: SelfCheck, min_gain: float | None) -> None:
    """Warn if a peer is ahead of the embedding.

    Raises
    ------
    GateRefusedError
        If the embedding's lead over the best peer is below ``quality.min_gain``.
    """
    if min_gain is not None and result.gain.value < min_gain:
        for line in result.lines:
            logger.info(line)
        raise GateRefusedError(
            f"self-check: {result.summary}; quality.min_gain is {min_gain:.1%}. No space was trained. "
            "Look at the table above, then change the model or its inputs, or change quality.min_gain."
        )
    if result.gain.value < 0:
        logger.warning(f"self-check: {result.summary}")
