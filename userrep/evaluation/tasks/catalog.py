"""All tasks of an evaluation, depending on its dates, the users' attributes and the data about new users."""

from collections.abc import Sequence

from userrep.config import Config
from userrep.evaluation.dates import EvaluationPlan
from userrep.evaluation.tasks.attributes import attribute_value
from userrep.evaluation.tasks.look_alikes import look_alikes
from userrep.evaluation.tasks.neighbours import neighbours, neighbours_by
from userrep.evaluation.tasks.pairs import new_users, next_item
from userrep.evaluation.tasks.rows import next_categories, volume, will_return
from userrep.evaluation.tasks.task import Task
from userrep.features.spec import FeatureSpec

_NUM_SEEDS = (20, 100, 1000)  # of look-alike audiences


def tasks_of(plan: EvaluationPlan, inputs: Sequence[str], left_out: Sequence[str]) -> list[Task]:
    """Return the tasks: items at the shortest horizon, returns at all horizons, the others at the longest.

    ``inputs``: attributes that are features; ``left_out``: attributes that are not.
    """
    first, longest = plan.horizons[0], plan.longest
    return [
        next_item(first),
        next_item(first, only_new=True),
        *(will_return(days) for days in plan.horizons),
        volume(longest),
        next_categories(longest),
        neighbours(longest),
        *(neighbours_by(name) for name in [*inputs, *left_out]),
        *(attribute_value(name) for name in left_out),
    ]


def audience_tasks(plan: EvaluationPlan, left_out: Sequence[str]) -> list[Task]:
    """Return the tasks of look-alike audiences, by the number of seeds; ``left_out``: see ``tasks_of``."""
    return [look_alikes(seeds, plan.longest, attribute) for attribute in (None, *left_out) for seeds in _NUM_SEEDS]


def newcomer_tasks(plan: EvaluationPlan, config: Config) -> dict[int, Task]:
    """Return the tasks of new users on truncated rows, by the number of known events."""
    spec = FeatureSpec.of(config)
    is_blank = not (spec.onboarding or spec.attributes or spec.registered_at)
    return {after: new_users(after, plan.longest, is_blank=is_blank) for after in config.evaluation.newcomer_events}
