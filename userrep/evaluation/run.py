"""An evaluation from features that are built to figures: rows, labels, representations, heads, bootstraps."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from userrep.config import Config
from userrep.errors import UsageError
from userrep.evaluation.activity import Futures, read_activity
from userrep.evaluation.heads import SMALL, Heads
from userrep.evaluation.items import clustered, content_modality, read_item_vectors
from userrep.evaluation.metrics import Counts, bootstrapped, resampled_users, value_of
from userrep.evaluation.plan import Plan
from userrep.evaluation.representation import Context, Floats32, Representation, WithHeads
from userrep.evaluation.results import Cost, Measured, Results
from userrep.evaluation.rows import read_rows
from userrep.evaluation.tasks.catalog import tasks_of
from userrep.evaluation.tasks.task import LeftOut, Problem, Task, Truth
from userrep.events.tiles import tiles_fingerprint
from userrep.features.spec import FeatureSpec
from userrep.ids import code_hash, short_hash
from userrep.items.versions import Versions
from userrep.model.artifact import load_artifact
from userrep.schemas import JOB_RUNS
from userrep.spaces.registry import Space, artifact_folder
from userrep.tables import Tables

Report = Callable[[str], None]


@dataclass(frozen=True)
class Described:
    """A representation's vectors of all rows, x_NF, what they cost, and what reads them."""

    name: str
    x_NF: Floats32
    cost: Cost
    heads: Heads = SMALL


def evaluate(
    tables: Tables,
    config: Config,
    *,
    space: Space,
    versions: Versions,
    plan: Plan,
    representations: Sequence[Representation],
    report: Report,
) -> Results:
    """Judge a space's embedding beside other representations of the same users.

    ``plan``'s dates have their features and item vectors. Cost: one pass over the features of these dates and two over
    all tiles, in Spark; then heads on the driver, whose memory and time grow with ``evaluation.max_rows``.

    Raises
    ------
    UsageError
        If nobody of the sampled users has an event after the dates, or no task has examples enough.
    """
    context, truth = gather(tables, config, space=space, versions=versions, plan=plan)
    counts = context.rows.num_by_role
    report(f"{len(context.rows):,} rows of {len(context.rows.user_ids):,} users at {len(plan.dates)} dates: {counts}")
    described = [described_by(one, context, report) for one in representations]
    costs = {one.name: one.cost for one in described}
    costs["embedding"] = _with_training(costs["embedding"], tables, space)
    tasks = tasks_of(plan, FeatureSpec.of(config).attributes)
    measured, left_out = measure(tasks, truth, described, config, report)
    left_out |= {f"horizon of {days} days": plan.cure(days) for days in plan.left_out}
    has_heads = context.artifact.manifest.model.future_weight > 0
    akin = {task.name: has_heads and task.is_akin_to_training for task in tasks}
    return Results(_manifest(context, space), measured, costs, left_out, akin)


def gather(tables: Tables, config: Config, *, space: Space, versions: Versions, plan: Plan) -> tuple[Context, Truth]:
    """Read rows and futures: what representations may look at, and what labels are made from."""
    settings, seed = config.evaluation, config.evaluation.seed
    artifact = load_artifact(artifact_folder(config, space.space_id), space.content_hash)
    rows = read_rows(tables, config, space.lineage_id, plan, max_rows=settings.max_rows, seed=seed)
    activity = read_activity(tables, rows, plan, onboarding=config.onboarding, seed=seed)
    futures = Futures(rows, activity)
    check_futures(futures, plan)
    items = read_item_vectors(tables, config, versions, activity.item_ids, [plan.until, *plan.dates])
    vectors_IE, has_I = items.of(content_modality(config), plan.until)
    cluster_I = clustered(vectors_IE, has_I, num_clusters=settings.num_clusters, seed=seed)
    return Context(tables, config, artifact, plan, futures, seed), Truth(futures, items, cluster_I)


def check_futures(futures: Futures, plan: Plan) -> None:
    """Refuse rows without any event after their dates. Raises UsageError."""
    if not futures.num_events(plan.longest).nnz:
        raise UsageError(
            f"evaluate: none of the {len(futures.rows.user_ids):,} sampled users has an event in the {plan.longest} "
            f"days after {plan.dates[0]} to {plan.dates[-1]}; raise evaluation.max_rows, or look at the log."
        )


def described_by(one: Representation, context: Context, report: Report) -> Described:
    """Fit a representation and describe the rows by it, on the clock."""
    started = time.monotonic()
    one.fit(context)
    fitted = time.monotonic()
    x_NF = one.matrix(context)
    done = time.monotonic()
    assert x_NF.shape[0] == len(context.rows), f"{one.name}: {len(x_NF)} rows, wanted {len(context.rows)}"
    assert x_NF.dtype == np.float32, f"{one.name}: {x_NF.dtype}, wanted float32"
    assert np.isfinite(x_NF).all(), f"{one.name}: not all numbers are finite"
    report(f"{one.name}: {x_NF.shape[1]} numbers a row, fitted in {fitted - started:.1f} s")
    heads = one.heads(context) if isinstance(one, WithHeads) else SMALL
    return Described(one.name, x_NF, Cost(fitted - started, done - fitted, *x_NF.shape), heads)


def measure(
    tasks: Sequence[Task], truth: Truth, described: Sequence[Described], config: Config, report: Report
) -> tuple[list[Measured], dict[str, str]]:
    """Judge all representations at all tasks; return what was measured, and why tasks are left out.

    Raises
    ------
    UsageError
        If all are.
    """
    settings = config.evaluation
    weight_UB = resampled_users(len(truth.rows.user_ids), settings.num_bootstraps, settings.seed)
    measured: list[Measured] = []
    left_out: dict[str, str] = {}
    for task in tasks:
        started = time.monotonic()
        seeds = [settings.seed + k for k in range(settings.num_seeds)]
        made = [task.problem(truth, seed) for seed in seeds]
        problems = [problem for problem in made if not isinstance(problem, LeftOut)]
        if len(problems) < len(made):
            left_out[task.name] = next(str(reason) for reason in made if isinstance(reason, LeftOut))
            report(f"{task.name}: left out; {left_out[task.name]}")
            continue
        for one in described:
            if one.heads is not SMALL and not task.has_heads:
                continue
            measured += _measured(task, problems, one, seeds, weight_UB)
        report(f"{task.name}: {time.monotonic() - started:.0f} s")
    if not measured:
        raise UsageError([f"evaluate: {name}: {reason}." for name, reason in left_out.items()])
    return measured, left_out


def _measured(
    task: Task, problems: Sequence[Problem], one: Described, seeds: Sequence[int], weight_UB: Counts
) -> list[Measured]:
    """Choose the setting with the first seed, then train and test with each."""
    choice = problems[0].chosen(one.x_NF, seeds[0], one.heads)
    scores = [problem.scores(one.x_NF, choice, seed, one.heads) for problem, seed in zip(problems, seeds, strict=True)]
    return [
        Measured(
            task.name,
            metric,
            one.name,
            tuple(value_of(metric, of_seed) for of_seed in scores),
            np.mean([bootstrapped(metric, of_seed, weight_UB) for of_seed in scores], axis=0),
            str(choice),
            problems[0].num_examples,
        )
        for metric in task.metrics
    ]


def _with_training(cost: Cost, tables: Tables, space: Space) -> Cost:
    """Put the seconds of the space's training in the place of those of a fit that there was none of."""
    runs = tables.ledger(JOB_RUNS, ("outputs", "seconds"), stage="train_autoencoder")
    seconds = [run.seconds for run in runs if json.loads(run.outputs).get("space_id") == space.space_id]
    return replace(cost, fit_seconds=seconds[-1] if seconds else None)


def _manifest(context: Context, space: Space) -> dict[str, Any]:
    """Say what the figures depend on: the same of all of it gives the same figures."""
    config, plan, rows = context.config, context.plan, context.rows
    return {
        "space_id": space.space_id,
        "content_hash": space.content_hash,
        "trained_until": plan.until,
        "lineage_id": space.lineage_id,
        "tiles_hash": tiles_fingerprint(context.tables, start=None, end=plan.end),
        "config_hash": short_hash(config.model_dump()),
        "code_hash": code_hash(),
        "evaluation": config.evaluation.model_dump(),
        "horizons_days": plan.horizons,
        "train_as_ofs": plan.train,
        "test_as_ofs": plan.test,
        "num_users": len(rows.user_ids),
        "num_rows": rows.num_by_role,
    }
