"""Run an evaluation from built features to results: rows, labels, representations, probes, bootstraps."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from userrep.config import Config
from userrep.errors import UsageError
from userrep.evaluation.dates import EvaluationPlan
from userrep.evaluation.futures import Futures, read_activity
from userrep.evaluation.item_vectors import clustered, clustered_modality, read_item_vectors
from userrep.evaluation.measure import check_measured, fit_and_describe, measure
from userrep.evaluation.newcomers import measure_newcomers
from userrep.evaluation.representation import Context, Fit
from userrep.evaluation.representations.catalog import PICKS, REFITTED
from userrep.evaluation.results import Cost, Results
from userrep.evaluation.sampled_rows import num_by_role, read_rows
from userrep.evaluation.tasks.attributes import read_attributes
from userrep.evaluation.tasks.catalog import audience_tasks, newcomer_tasks, tasks_of
from userrep.evaluation.tasks.task import Task, Truth, is_akin_to_training
from userrep.features.profiles import profiles_fingerprint
from userrep.features.spec import FeatureSpec
from userrep.ids import code_hash, short_hash
from userrep.items.versions import Versions
from userrep.model.artifact import Artifact, load_artifact
from userrep.spaces.registry import Space, artifact_folder
from userrep.store.schemas import JOB_RUNS
from userrep.store.tables import Tables
from userrep.tiles.ledger import TileLedger, days_fingerprint

logger = logging.getLogger(__name__)


def evaluate(
    tables: Tables,
    config: Config,
    *,
    space: Space,
    versions: Versions,
    plan: EvaluationPlan,
    representations: Mapping[str, Fit],
    ledger: TileLedger,
) -> Results:
    """Evaluate a space's embedding and other representations of the same users.

    The features and item vectors of ``plan``'s dates must be built. ``ledger``: the tile ledger pinned by the run.
    Raises UsageError if no sampled user has an event after the dates, or no task has enough examples. Cost: in Spark,
    one pass over the features of these dates and two over all tiles, and one more over the tiles for new users; then
    probes on the driver, whose memory and time grow with ``evaluation.max_rows``.
    """
    artifact = load_artifact(artifact_folder(tables, space), space.content_hash)
    context, truth = read_context_and_truth(
        tables, config, artifact=artifact, versions=versions, plan=plan, ledger=ledger
    )
    rows, counts = context.rows, num_by_role(context.rows.role_N)
    logger.info(f"{len(rows):,} rows of {len(rows.user_ids):,} users at {len(plan.dates)} dates: {counts}")
    too_long = [days for days in config.evaluation.horizons_days if days not in plan.horizons]
    left_out = {f"horizon of {days} days": plan.advice(days) for days in too_long} | reasons_without_picks(context)
    fits = {name: fit for name, fit in representations.items() if name not in left_out}
    matrices, described = zip(*(fit_and_describe(name, fit, context) for name, fit in fits.items()), strict=True)
    inputs, others = FeatureSpec.of(config).attributes, config.evaluation.attribute_names
    tasks, newcomers = [*tasks_of(plan, inputs, others), *audience_tasks(plan, others)], newcomer_tasks(plan, config)
    measured, reasons = measure(tasks, truth, described, config.evaluation)
    costs = {entry.name: entry.cost for entry in described}
    del described  # frees the vectors; those of new users are as large
    reusable = {name: matrix for name, matrix in zip(fits, matrices, strict=True) if name != REFITTED}
    more, more_reasons = measure_newcomers(newcomers, reusable, context, truth, versions=versions)
    measured, left_out = measured + more, left_out | reasons | more_reasons
    check_measured(measured, left_out)
    costs["embedding"] = _with_training(costs["embedding"], tables, space)
    akin = akin_to_training(artifact, [*tasks, *newcomers.values()])
    return Results(_manifest(context, space, list(fits)), measured, costs, left_out, akin)


def akin_to_training(artifact: Artifact, tasks: Sequence[Task]) -> list[str]:
    """Return the names of the tasks whose labels resemble the targets that the artifact was trained on."""
    looks_ahead = artifact.manifest.model.looks_ahead
    return [task.name for task in tasks if looks_ahead and is_akin_to_training(task.name)]


def read_context_and_truth(
    tables: Tables,
    config: Config,
    *,
    artifact: Artifact,
    versions: Versions,
    plan: EvaluationPlan,
    ledger: TileLedger,
) -> tuple[Context, Truth]:
    """Read the data of an evaluation: what representations may use, and what labels are computed from."""
    settings, seed = config.evaluation, config.evaluation.seed
    rows = read_rows(tables, config, artifact.manifest.lineage_id, plan, max_rows=settings.max_rows, seed=seed)
    activity = read_activity(tables, rows, plan, onboarding=config.onboarding, ledger=ledger)
    futures = Futures(rows, activity)
    check_futures(futures, plan)
    items = read_item_vectors(tables, config, versions, activity.item_ids, [plan.until, *plan.dates])
    vectors_IE, has_I = items.of(clustered_modality(config), plan.until)
    cluster_I = clustered(vectors_IE, has_I, num_clusters=settings.num_clusters, seed=seed)
    attributes = read_attributes(tables.spark, config, rows)
    return Context(tables, config, artifact, plan, ledger, futures, seed), Truth(futures, items, cluster_I, attributes)


def check_futures(futures: Futures, plan: EvaluationPlan) -> None:
    """Raise UsageError if no row has an event after its as-of date."""
    if not futures.num_events(plan.longest).nnz:
        raise UsageError(
            f"evaluate: none of the {len(futures.rows.user_ids):,} sampled users has an event in the {plan.longest} "
            f"days after {plan.dates[0]} to {plan.dates[-1]}. Raise evaluation.max_rows, or check the log."
        )


def reasons_without_picks(context: Context) -> dict[str, str]:
    """Return the reason why the onboarding-picks representation is left out, if it is."""
    if context.config.onboarding is None:
        return {PICKS: "the configuration has no onboarding"}
    if not context.activity.picked.nnz:
        return {PICKS: f"none of the {len(context.rows.user_ids):,} sampled users picked an item at onboarding"}
    return {}


def _with_training(cost: Cost, tables: Tables, space: Space) -> Cost:
    """Replace the fit time by the seconds of the space's training, which ran in another job."""
    runs = tables.ledger(JOB_RUNS, ("outputs", "seconds"), stage="train_autoencoder")
    seconds = [run.seconds for run in runs if json.loads(run.outputs).get("space_id") == space.space_id]
    return replace(cost, fit_seconds=seconds[-1] if seconds else None)


def _manifest(context: Context, space: Space, names: list[str]) -> dict[str, Any]:
    """Return the inputs that determine the results: equal manifests give equal results."""
    config, plan, rows = context.config, context.plan, context.rows
    return {
        "space_id": space.space_id,
        "content_hash": space.content_hash,
        "trained_until": plan.until,
        "lineage_id": space.lineage_id,
        "tiles_hash": days_fingerprint(context.ledger.latest, start=None, end=plan.end),
        "sides_hash": profiles_fingerprint(context.tables.spark, config),
        "config_hash": short_hash(config.model_dump()),
        "code_hash": code_hash(),
        "evaluation": config.evaluation.model_dump(),
        "horizons_days": plan.horizons,
        "train_as_ofs": plan.train,
        "test_as_ofs": plan.test,
        "num_users": len(rows.user_ids),
        "num_rows": num_by_role(rows.role_N),
        "representations": names,
    }
