"""All tasks that an evaluation has, by its dates and the users' attributes."""

from collections.abc import Sequence

from userrep.evaluation.plan import Plan
from userrep.evaluation.tasks.neighbours import NeighboursByAttribute, NeighboursByFavourite
from userrep.evaluation.tasks.pairs import NextItem
from userrep.evaluation.tasks.rows import NextCategories, Return, Volume
from userrep.evaluation.tasks.task import Task


def tasks_of(plan: Plan, attributes: Sequence[str]) -> list[Task]:
    """Return the tasks: items in the shortest horizon, returns in all of them, the others in the longest."""
    first, longest = plan.horizons[0], plan.longest
    return [
        NextItem(first),
        NextItem(first, only_new=True),
        *(Return(days) for days in plan.horizons),
        Volume(longest),
        NextCategories(longest),
        NeighboursByFavourite(longest),
        *(NeighboursByAttribute(name) for name in attributes),
    ]
