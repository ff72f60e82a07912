"""All tasks that an evaluation has, by its dates, the users' attributes and what is known of new users."""

from collections.abc import Sequence

from userrep.config import Config
from userrep.evaluation.plan import Plan
from userrep.evaluation.tasks.attributes import WhichValue
from userrep.evaluation.tasks.neighbours import NeighboursByAttribute, NeighboursByFavourite
from userrep.evaluation.tasks.newcomers import NewUsers
from userrep.evaluation.tasks.pairs import NextItem
from userrep.evaluation.tasks.rows import NextCategories, Return, Volume
from userrep.evaluation.tasks.task import Task
from userrep.features.spec import FeatureSpec


def tasks_of(plan: Plan, inputs: Sequence[str], left_out: Sequence[str]) -> list[Task]:
    """Return the tasks: items in the shortest horizon, returns in all of them, the others in the longest.

    ``inputs``: attributes that went into features; ``left_out``: those that did not.
    """
    first, longest = plan.horizons[0], plan.longest
    return [
        NextItem(first),
        NextItem(first, only_new=True),
        *(Return(days) for days in plan.horizons),
        Volume(longest),
        NextCategories(longest),
        NeighboursByFavourite(longest),
        *(NeighboursByAttribute(name) for name in [*inputs, *left_out]),
        *(WhichValue(name) for name in left_out),
    ]


def newcomer_tasks(plan: Plan, config: Config) -> list[NewUsers]:
    """Return the tasks of new users, whose rows are cut: one for each number of events that are known."""
    spec = FeatureSpec.of(config)
    is_blank = not (spec.onboarding or spec.attributes or spec.registered_at)
    return [NewUsers(after, plan.longest, is_blank) for after in config.evaluation.newcomer_events]
