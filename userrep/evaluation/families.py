"""Leads of the embedding over the other representations, by family of tasks.

Each family counts once in the mean, regardless of its number of tasks. Shapes: B resamplings of the users.
"""

from collections.abc import Collection, Sequence

import numpy as np

from userrep.evaluation.metrics import Floats, Ints
from userrep.evaluation.results import Measured, interval_of
from userrep.model.self_check import MEAN, OTHERS_MEAN, Interval
from userrep.store.vector_storage import STORED

EMBEDDING = "embedding"
FAMILIES = {
    "items": ("next_item",), "return and volume": ("return", "volume"), "categories": ("next_categories",),
    "neighbours": ("neighbours",), "attributes": ("attribute_",), "new users": ("new_users",),
}  # fmt: skip
INPUT_ATTRIBUTES = "neighbours_by_"  # tasks of no family: the attribute may be an input, and a peer just that input
_PREFIXES = tuple(prefix for prefixes in FAMILIES.values() for prefix in prefixes)
_PRIMARY_METRICS = ("auc", "r2", "ndcg")


def lead_inputs(measured: Sequence[Measured]) -> list[Measured]:
    """Return the primary results that enter leads: of tasks in families, with enough test examples per class.

    The embedding in other storage types is left out.
    """
    return [
        result
        for result in first_metrics(measured)
        if result.is_judged
        and result.task.startswith(_PREFIXES)
        and not result.task.startswith(INPUT_ATTRIBUTES)
        and not result.representation.startswith(STORED)
    ]


def first_metrics(measured: Sequence[Measured]) -> list[Measured]:
    """Return the primary results: one for each task and representation."""
    return [result for result in measured if result.metric in _PRIMARY_METRICS]


def leads(
    trainings: Sequence[Sequence[Measured]], akin: Collection[str], seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """Return the embedding's lead over each peer, by family and as the mean over families.

    A second mean leaves out the tasks akin to training, if any family remains. A lead is the relative difference, for
    R2 the absolute one. Intervals are over users and trainings: each resampling uses one of the trainings at random.

    Parameters
    ----------
    trainings : results of each of several trainings, with at least one judged task; the first one names the peers.
    akin : names of the tasks akin to training.
    """
    by_training = [
        {(result.task, result.representation): result for result in lead_inputs(measured)} for measured in trainings
    ]
    peers = sorted({peer for _, peer in by_training[0]} - {EMBEDDING})
    tasks = [task for task, name in by_training[0] if name == EMBEDDING]
    num_draws = len(next(iter(by_training[0].values())).bootstraps_B)
    training_B = np.random.default_rng(seed).integers(0, len(trainings), num_draws)
    return {peer: _leads_over(peer, tasks, by_training, training_B, akin) for peer in peers}


def _leads_over(
    peer: str,
    tasks: Sequence[str],
    by_training: Sequence[dict[tuple[str, str], Measured]],
    training_B: Ints,
    akin: Collection[str],
) -> dict[str, Interval]:
    families: dict[str, Floats] = {}
    others: list[Floats] = []
    for family, prefixes in FAMILIES.items():
        parts = {
            task: _lead([measured[task, EMBEDDING] for measured in by_training], by_training[0][task, peer], training_B)
            for task in tasks
            if task.startswith(prefixes) and (task, peer) in by_training[0]
        }
        if parts:
            families[family] = np.mean(list(parts.values()), axis=0)
        if unlike := [lead for task, lead in parts.items() if task not in akin]:
            others.append(np.mean(unlike, axis=0))
    families[MEAN] = np.mean(list(families.values()), axis=0)
    if others:
        families[OTHERS_MEAN] = np.mean(others, axis=0)
    return {family: _with_interval(lead) for family, lead in families.items()}


def _lead(ours: Sequence[Measured], theirs: Measured, training_B: Ints) -> Floats:
    """Return the lead at a task for each resampling, and the point estimate last."""
    ours_B = np.stack([result.bootstraps_B for result in ours])[training_B, np.arange(len(training_B))]
    embedding = np.append(ours_B, np.mean([result.value for result in ours]))
    peer = np.append(theirs.bootstraps_B, theirs.value)
    lead: Floats = embedding - peer if theirs.metric == "r2" else embedding / np.maximum(peer, 1e-9) - 1
    return lead


def _with_interval(lead: Floats) -> Interval:
    return Interval(*(round(number, 4) for number in interval_of(float(lead[-1]), lead[:-1])))
