"""Evaluate a space on the owner's log: build what its dates lack, judge it beside baselines, write what was found."""

from datetime import timedelta
from typing import Any

from userrep.config import Config
from userrep.errors import UsageError
from userrep.evaluation.output import write_results
from userrep.evaluation.plan import Plan, make_plan
from userrep.evaluation.representations.catalog import representations
from userrep.evaluation.results import Results
from userrep.evaluation.run import evaluate
from userrep.items.versions import lineage_of
from userrep.spaces import registry
from userrep.spaces.registry import Space, find_space
from userrep.store.tables import Tables
from userrep.workflows.pipeline import Pipeline


def evaluate_space(work: Pipeline, space_id: str | None, out: str) -> tuple[Results, dict[str, Any]]:
    """Evaluate a space, the one that serves without an id; ``out`` is checked already.

    Returns the results, and what ``metrics.json`` holds of them.

    Tiles, item vectors and features of the evaluation's dates are built by the pipeline's own stages where they are
    missing. Nothing is published, and no registry is touched.

    Raises
    ------
    UsageError
        If the space cannot be evaluated: unknown, retired, of another configuration, or trained up to so late a date
        that the log has no room for labels after it.
    """
    work.check()
    space = evaluable(work.tables, work.config, space_id)
    plan = prepared(work, space)
    with work.runs.stage("evaluate_space") as run:
        results = evaluate(
            work.tables,
            work.config,
            space=space,
            versions=work.schedule.versions,
            plan=plan,
            representations=representations(),
            report=work.report,
        )
        found = write_results(work.tables, results, out)
        run.num_rows = sum(results.manifest["num_rows"].values())
        run.reason = f"space {space.space_id}, {len(results.measured)} figures in {out}"
        touched = [task for task, is_akin in results.akin.items() if is_akin]
        run.outputs = {"evaluation_id": found["evaluation_id"], "space_id": space.space_id, "out": out}
        run.outputs["touched_by_training_heads"] = touched
    return results, found


def prepared(work: Pipeline, space: Space) -> Plan:
    """Choose the dates, and build what they lack. ``work``: of the day after the log's last, for labels are tiles."""
    plan = plan_of(work, space)
    assert work.schedule.as_of >= plan.end, f"tiles end on {work.schedule.as_of}, labels on {plan.end}"
    work.build_activity_tiles()
    work.train_item_vectors(list(plan.dates))
    work.build_user_features(list(plan.dates))
    return plan


def plan_of(work: Pipeline, space: Space) -> Plan:
    """Choose the dates by the log and by what the space was trained on."""
    settings = work.config.evaluation
    return make_plan(
        until=space.trained_until,
        end=work.schedule.inventory.last_day + timedelta(days=1),
        horizons=settings.horizons_days,
        every_days=settings.every_days,
        max_dates=settings.max_dates,
        space=space.space_id,
    )


def evaluable(tables: Tables, config: Config, space_id: str | None) -> Space:
    """Return a space, the one that serves without an id, if it is in use and of this configuration.

    Raises
    ------
    UsageError
        If it is not.
    """
    space = find_space(tables, space_id)
    if space.state == registry.RETIRED:
        raise UsageError(f"space {space.space_id} is retired; evaluate one that is in use.")
    lineage_id = lineage_of(config)
    if space.lineage_id != lineage_id:
        raise UsageError(
            f"space {space.space_id} was trained with other columns, windows or item vectors than this configuration "
            f"has ({space.lineage_id}, here {lineage_id}); use the configuration of then."
        )
    return space
