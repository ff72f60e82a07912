"""Leads of the embedding over the other representations, by family of tasks.

Each family counts once in the mean, regardless of its number of tasks. Shapes: B resamplings of the users.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from userrep.evaluation.metrics import Floats
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


def leads(measured: Sequence[Measured], akin: Collection[str]) -> dict[str, dict[str, Interval]]:
    """Return the embedding's lead over each peer, by family and as the mean over families.

    A second mean leaves out the tasks akin to training, if any family remains. A lead is the relative difference, for
    R2 the absolute one. ``akin``: names of the tasks akin to training.
    """
    judged = {(result.task, result.representation): result for result in lead_inputs(measured)}
    peers = sorted({peer for _, peer in judged} - {EMBEDDING})
    return {peer: _leads_over(peer, judged, akin) for peer in peers}


def _leads_over(peer: str, judged: Mapping[tuple[str, str], Measured], akin: Collection[str]) -> dict[str, Interval]:
    tasks = [task for task, name in judged if name == EMBEDDING and (task, peer) in judged]
    families: dict[str, Floats] = {}
    others: list[Floats] = []
    for family, prefixes in FAMILIES.items():
        parts = {
            task: _lead(judged[task, EMBEDDING], judged[task, peer]) for task in tasks if task.startswith(prefixes)
        }
        if parts:
            families[family] = np.mean(list(parts.values()), axis=0)
        if unlike := [lead for task, lead in parts.items() if task not in akin]:
            others.append(np.mean(unlike, axis=0))
    families[MEAN] = np.mean(list(families.values()), axis=0)
    if others:
        families[OTHERS_MEAN] = np.mean(others, axis=0)
    return {family: _with_interval(lead) for family, lead in families.items()}


def _lead(ours: Measured, theirs: Measured) -> Floats:
    """Return the lead at a task for each resampling, and the point estimate last."""
    embedding, peer = (np.append(result.bootstraps_B, result.value) for result in (ours, theirs))
    return np.asarray(embedding - peer if theirs.metric == "r2" else embedding / np.maximum(peer, 1e-9) - 1)


def _with_interval(lead: Floats) -> Interval:
    return Interval(*(round(number, 4) for number in interval_of(float(lead[-1]), lead[:-1])))
