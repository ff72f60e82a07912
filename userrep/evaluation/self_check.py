"""The self-check of a training: is the embedding worth having on this log?

Before a space is trained, a model of the same settings is trained on less of the log, and judged on the days that the
space's training will see and the model's has not. Days that an encoder has seen would prove nothing.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from itertools import product
from typing import NamedTuple

import numpy as np

from userrep.config import Config
from userrep.errors import GateRefusedError, UsageError
from userrep.evaluation.families import EMBEDDING, INPUT_ATTRIBUTES, counting, first_metrics, leads
from userrep.evaluation.measure import Report, check_measured, fitted_and_described, measure
from userrep.evaluation.plan import Plan
from userrep.evaluation.representations.catalog import representations
from userrep.evaluation.rows import TEST
from userrep.evaluation.run import gather
from userrep.evaluation.tasks.catalog import tasks_of
from userrep.features.build import feature_sets
from userrep.features.sides import sides_fingerprint
from userrep.features.spec import FeatureSpec
from userrep.ids import code_hash, short_hash
from userrep.items.versions import Versions
from userrep.model.artifact import Artifact
from userrep.model.self_check import SelfCheck
from userrep.spaces.create import checked_model, drop_checked_model
from userrep.spaces.training_inputs import check_id, inputs_key, training_folder
from userrep.store.storage import read_bytes, write_bytes
from userrep.store.tables import Tables
from userrep.tiles.tiles import tiles_fingerprint

PEERS = ("untrained", "rfm_history", "pooled_longest", "raw", "pca")
_MOST_DATES = 4  # that probes are fitted on, and as many to test them on
_ROWS = 19_000  # that are judged, at most
_MAX_BYTES = 1 << 20


class CheckPlan(NamedTuple):
    """``as_ofs``: the training dates of the model that is checked. ``plan``: the dates that it is judged on."""

    as_ofs: list[date]
    plan: Plan


def plan_check(
    training_as_ofs: Sequence[date], *, until: date, future_days: int, every_days: int, horizons: Sequence[int]
) -> CheckPlan | None:
    """Choose the dates of a check; None where the log has no room for one.

    The model that is checked keeps half of the training dates or more, two at least. Of what that leaves, the longest
    horizon that fits comes first, then the number of dates. All dates lie where the longest futures of training dates
    end, where features are built anyway. No test label ends after ``until``, and no label that probes are fitted on
    ends after the first test date.

    Parameters
    ----------
    training_as_ofs, until, future_days, every_days : of the space's own training.
    horizons : in days, ascending.
    """
    for horizon, num_dates in product(sorted(horizons, reverse=True), range(_MOST_DATES, 0, -1)):
        step = timedelta(days=every_days)
        label = step * -(-horizon // every_days)
        first_test = until - label - step * (num_dates - 1)
        end = first_test - label - step * (num_dates - 1)
        as_ofs = [day for day in training_as_ofs if day + timedelta(days=future_days) <= end]
        if len(as_ofs) >= max(2, len(training_as_ofs) / 2):
            fitting, left_out = (tuple(h for h in sorted(horizons) if (h <= horizon) == fits) for fits in (True, False))
            train, test = (tuple(first + step * k for k in range(num_dates)) for first in (end, first_test))
            return CheckPlan(as_ofs, Plan(end, until, fitting, left_out, train, test))
    return None


def self_check(
    tables: Tables, config: Config, *, space_id: str, versions: Versions, check: CheckPlan, report: Report
) -> SelfCheck:
    """Train the model that is checked, and judge it next to peers; or read what an earlier run has found.

    The features and item vectors of all dates are there. ``space_id``: of the space that is to be trained. Rows and
    checkpoints of the checked model are kept until it is judged. Cost: as ``training_inputs`` and ``gather`` in Spark,
    which grow with the log; then a training on at most 100,000 rows and probes on at most 19,000, which don't.

    Raises
    ------
    UsageError
        If the log has too few users for a training or for any task.
    """
    kept = f"{training_folder(config, check_id(space_id))}/{_key(tables, config, versions, check)}.json"
    if (found := _read(kept)) is not None:
        report("the result of an earlier run is used")
        return found
    model = checked_model(
        tables, config, space_id=space_id, versions=versions, as_ofs=check.as_ofs, until=check.plan.until, report=report
    )
    found = check_model(tables, config, model, versions=versions, plan=check.plan, num_dates=len(check.as_ofs))
    write_bytes(kept, found.model_dump_json().encode())
    drop_checked_model(tables, config, space_id)
    return found


def _read(uri: str) -> SelfCheck | None:
    try:
        return SelfCheck.model_validate_json(read_bytes(uri, max_bytes=_MAX_BYTES))
    except (OSError, ValueError):  # none, or not whole
        return None


def _key(tables: Tables, config: Config, versions: Versions, check: CheckPlan) -> str:
    """Hash what a check depends on: features, labels, settings and code."""
    sets = feature_sets(tables, versions.lineage_id)
    return short_hash([
        inputs_key(tables, config, versions.lineage_id, check.as_ofs),
        check.plan, [[sets[day].hash, sets[day].num_users] for day in check.plan.dates],
        tiles_fingerprint(tables, start=None, end=check.plan.end), sides_fingerprint(tables.spark, config),
        config.model.model_dump(), config.training.recipe, config.evaluation.model_dump(), code_hash(),
    ])  # fmt: skip


def check_model(
    tables: Tables, config: Config, artifact: Artifact, *, versions: Versions, plan: Plan, num_dates: int
) -> SelfCheck:
    """Judge a model on the dates of a plan, with one draw of each task's examples."""
    settings = config.evaluation
    settings = settings.model_copy(update={"max_rows": min(settings.max_rows, _ROWS), "num_seeds": 1})
    config = config.model_copy(update={"evaluation": settings})
    context, truth = gather(tables, config, artifact=artifact, versions=versions, plan=plan)
    tasks = tasks_of(plan, FeatureSpec.of(config).attributes, settings.attribute_names)
    some = [one for one in representations() if one.name in (EMBEDDING, *PEERS)]
    described = [fitted_and_described(one, context, _silent) for one in some]
    wanted = [task for task in tasks if not task.name.startswith(INPUT_ATTRIBUTES)]
    measured, left_out = measure(wanted, truth, described, config, _silent)
    check_measured(measured, left_out)
    if not counting(measured):
        raise UsageError("self-check: no task has 200 test examples of either kind.")
    values: dict[str, dict[str, float]] = {}
    for one in first_metrics(measured):
        values.setdefault(one.task, {})[one.representation] = round(one.value, 4)
    return SelfCheck(
        trained_until=plan.until,
        test_as_ofs=list(plan.test),
        num_training_dates=num_dates,
        num_test_users=len(np.unique(context.rows.user_N[context.rows.role_N == TEST])),
        values=values,
        ahead=leads([measured]),
        not_judged=sorted({one.task for one in first_metrics(measured) if not one.is_judged}),
        left_out=left_out,
    )


def check_gain(found: SelfCheck, min_gain: float | None, report: Report) -> None:
    """Warn if a peer is ahead of the embedding.

    Raises
    ------
    GateRefusedError
        If the embedding's lead over the best peer is below ``quality.min_gain``.
    """
    if min_gain is not None and found.gain.value < min_gain:
        for line in found.lines:
            report(line)
        raise GateRefusedError(
            f"self-check: {found.summary}; quality.min_gain is {min_gain:.1%}. No space was trained. "
            "Look at the table above, then change the model or its inputs, or set another quality.min_gain."
        )
    if found.gain.value < 0:
        report(f"warning: self-check: {found.summary}")


def _silent(line: str) -> None:
    del line
