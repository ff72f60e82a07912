"""``userrep evaluate``: build the features an evaluation needs, compare a space with baselines, write the results."""

from collections.abc import Sequence
from typing import Any

from userrep.config import Config, Storage
from userrep.errors import UsageError
from userrep.evaluation.dates import EvaluationPlan, make_plan
from userrep.evaluation.output import write_results
from userrep.evaluation.representations.catalog import representations
from userrep.evaluation.results import Results
from userrep.evaluation.run import evaluate
from userrep.spaces.registry import RETIRED, Space, check_lineage, find_space
from userrep.store.leases import held
from userrep.store.tables import Tables
from userrep.utc import newest_as_of, utc_now
from userrep.workflows import data_stages
from userrep.workflows.run_context import RunContext


def evaluate_space(
    work: RunContext, space_id: str | None, out: str, storages: Sequence[Storage] = ()
) -> tuple[Results, dict[str, Any]]:
    """Evaluate a space and write the results to ``out``. ``space_id`` None: the serving space.

    ``storages``: storage types in which the embedding is also evaluated.

    The caller has checked ``out``. Missing tiles, item vectors and features of the evaluation dates are built first.
    Nothing is published, and the registry does not change. Returns the results and the content of ``metrics.json``.

    Raises
    ------
    AlreadyRunningError
        If another process evaluates the space.
    UsageError
        If the space is unknown, retired or of another configuration, or if the log ends too soon after its training
        for labels.
    """
    work.check()
    space = find_evaluable_space(work.tables, work.config, space_id)
    with held(work.tables, f"evaluate-{space.space_id}"):
        plan = prepare_evaluation(work, space)
        with work.runs.stage("evaluate_space") as run:
            results = evaluate(
                work.tables,
                work.config,
                space=space,
                versions=work.schedule.versions,
                plan=plan,
                representations=representations(storages),
                ledger=work.tiles,
            )
            metrics = write_results(work.tables, results, out)
            run.num_rows = sum(results.manifest["num_rows"].values())
            run.reason = f"space {space.space_id}, {len(results.measured)} figures in {out}"
            run.outputs = {"evaluation_id": metrics["evaluation_id"], "space_id": space.space_id, "out": out}
            run.outputs["touched_by_training_heads"] = list(results.akin)
    return results, metrics


def prepare_evaluation(work: RunContext, space: Space) -> EvaluationPlan:
    """Choose the evaluation dates and build their missing tiles, item vectors and features; return the plan.

    The as-of date of ``work`` must be the day after the last day of the log, since labels are read from tiles.
    """
    plan = plan_of(work, space)
    assert work.schedule.as_of >= plan.end, f"tiles end on {work.schedule.as_of}, labels on {plan.end}"
    data_stages.build_activity_tiles(work)
    data_stages.train_item_vectors(work, list(plan.dates))
    data_stages.build_user_features(work, list(plan.dates))
    return plan


def plan_of(work: RunContext, space: Space) -> EvaluationPlan:
    """Choose the evaluation dates, after the training of the space and within the whole days of the log."""
    settings, last_day = work.config.evaluation, work.schedule.inventory.last_day
    return make_plan(
        until=space.trained_until,
        end=newest_as_of(last_day, utc_now()),
        horizons=settings.horizons_days,
        every_days=settings.every_days,
        max_dates=settings.max_dates,
        space=space.space_id,
    )


def find_evaluable_space(tables: Tables, config: Config, space_id: str | None) -> Space:
    """Return a space that can be evaluated with this configuration. ``space_id`` None: the serving space.

    Raises
    ------
    UsageError
        If the space is unknown or retired, or has another lineage than the configuration.
    """
    space = find_space(tables, space_id)
    if space.state == RETIRED:
        raise UsageError(f"space {space.space_id} is retired. Choose a space in use.")
    check_lineage(space, config)
    return space
