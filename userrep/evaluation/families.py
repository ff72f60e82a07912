"""How far the embedding is ahead of each other representation, by family of tasks.

A family counts once in the mean, however many tasks it has. Shapes: B resamplings of the users.
"""

from collections.abc import Sequence

import numpy as np

from userrep.evaluation.metrics import Floats
from userrep.evaluation.results import Interval, Measured
from userrep.model.self_check import MEAN, Lead

EMBEDDING = "embedding"
FAMILIES = {
    "items": ("next_item",), "return and volume": ("return", "volume"), "categories": ("next_categories",),
    "neighbours": ("neighbours",), "attributes": ("attribute",), "new users": ("new_users",),
}  # fmt: skip
INPUT_ATTRIBUTES = "neighbours_by_"  # tasks of no family: an attribute may be an input, and a peer may hold just that
_COUNTING = ("auc", "r2", "ndcg")


def counting(measured: Sequence[Measured]) -> list[Measured]:
    """Return the figures that leads are made of, of tasks with enough test examples of either kind."""
    return [one for one in first_metrics(measured) if one.is_judged and not one.task.startswith(INPUT_ATTRIBUTES)]


def first_metrics(measured: Sequence[Measured]) -> list[Measured]:
    """Return the figures that count: one for each task and representation."""
    return [one for one in measured if one.metric in _COUNTING]


def leads(found: Sequence[Sequence[Measured]], seed: int = 0) -> dict[str, dict[str, Lead]]:
    """Return the embedding's lead over each peer, by family and as the mean over families.

    ``found``: what was measured of each of several trainings, with a judged task at least; peers are those of the
    first. A lead is relative, but for R2 the difference. Intervals are over users and trainings: each resampling takes
    one of the trainings by chance.
    """
    by_training = [{(one.task, one.representation): one for one in counting(measured)} for measured in found]
    peers = sorted({peer for _, peer in by_training[0]} - {EMBEDDING})
    tasks = [task for task, name in by_training[0] if name == EMBEDDING]
    num_draws = len(next(iter(by_training[0].values())).bootstraps_B)
    training_B = np.random.default_rng(seed).integers(0, len(found), num_draws)
    return {peer: _leads_over(peer, tasks, by_training, training_B) for peer in peers}


def _leads_over(
    peer: str,
    tasks: Sequence[str],
    by_training: Sequence[dict[tuple[str, str], Measured]],
    training_B: np.typing.NDArray[np.int64],
) -> dict[str, Lead]:
    families: dict[str, Floats] = {}
    for family, prefixes in FAMILIES.items():
        some = [task for task in tasks if task.startswith(prefixes) and (task, peer) in by_training[0]]
        if some:
            ours = [[measured[task, EMBEDDING] for measured in by_training] for task in some]
            parts = [_lead(of_task, by_training[0][of_task[0].task, peer], training_B) for of_task in ours]
            families[family] = np.mean(parts, axis=0)
    families[MEAN] = np.mean(list(families.values()), axis=0)
    return {family: _with_interval(lead) for family, lead in families.items()}


def _lead(ours: Sequence[Measured], theirs: Measured, training_B: np.typing.NDArray[np.int64]) -> Floats:
    """Return the resampled leads at a task, and last the lead itself."""
    ours_B = np.stack([one.bootstraps_B for one in ours])[training_B, np.arange(len(training_B))]
    our_side = np.append(ours_B, np.mean([one.value for one in ours]))
    their_side = np.append(theirs.bootstraps_B, theirs.value)
    lead: Floats = our_side - their_side if theirs.metric == "r2" else our_side / np.maximum(their_side, 1e-9) - 1
    return lead


def _with_interval(lead: Floats) -> Lead:
    interval = Interval.of(float(lead[-1]), lead[:-1])
    return Lead(*(round(number, 4) for number in (interval.value, interval.low, interval.high)))
