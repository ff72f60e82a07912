"""All tasks of an evaluation, depending on its dates, the users' attributes and the data about new users."""

from collections.abc import Sequence

from userrep.config import Config
from userrep.evaluation.dates import Plan
from userrep.evaluation.tasks.attributes import AttributeValue
from userrep.evaluation.tasks.look_alikes import LookAlikes
from userrep.evaluation.tasks.neighbours import NeighboursByAttribute, NeighboursByFavourite
from userrep.evaluation.tasks.pairs import NewUsers, NextItem
from userrep.evaluation.tasks.rows import NextCategories, Return, Volume
from userrep.evaluation.tasks.task import Task
from userrep.features.spec import FeatureSpec

_NUM_SEEDS = (20, 100, 1000)  # of look-alike audiences


def tasks_of(plan: Plan, inputs: Sequence[str], left_out: Sequence[str]) -> list[Task]:
    """Return the tasks: items at the shortest horizon, returns at all horizons, the others at the longest.

    ``inputs``: attributes that are features; ``left_out``: attributes that are not.
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
        *(AttributeValue(name) for name in left_out),
    ]


def audience_tasks(plan: Plan, left_out: Sequence[str]) -> list[LookAlikes]:
    """Return the tasks of look-alike audiences, by the number of seeds; ``left_out``: see ``tasks_of``."""
    return [LookAlikes(seeds, plan.longest, attribute) for attribute in (None, *left_out) for seeds in _NUM_SEEDS]


def newcomer_tasks(plan: Plan, config: Config) -> list[NewUsers]:
    """Return the tasks of new users: one for each number of known events, on truncated rows."""
    spec = FeatureSpec.of(config)
    is_blank = not (spec.onboarding or spec.attributes or spec.registered_at)
    return [NewUsers(after, plan.longest, is_blank) for after in config.evaluation.newcomer_events]
