"""Interface of evaluation tasks: examples with labels, and how a representation is scored on them.

For a seed, a task builds a problem: a set of examples that is the same for all representations, with the same probes
and the same choice of settings on validation examples. To add a kind of task, write a function that returns a ``Task``
and list it in ``tasks/catalog.py``.

Shapes: N rows, F numbers of a representation, I items.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from userrep.evaluation.futures import Activity, Futures
from userrep.evaluation.item_vectors import ItemVectors
from userrep.evaluation.metrics import Floats32, Ints, Scores
from userrep.evaluation.sampled_rows import Rows

MIN_EXAMPLES = 10  # of each class and split; with fewer a task is left out


_ATTRIBUTE = "attribute_"  # prefix of feature columns with an attribute, and of tasks that predict one


class LeftOut(str):
    """The reason, in one line, why a task is left out."""

    __slots__ = ()


def too_few_values(attribute: str, num_values: int) -> LeftOut | None:
    """Return a reason to leave out a task of an attribute with fewer than two values."""
    if num_values < 2:
        return LeftOut(f"attribute {attribute} needs at least 2 distinct values, got {num_values}")
    return None


def is_akin_to_training(task: str) -> bool:
    """Return whether a task's labels resemble the training targets, which are about the days after an as-of date.

    ``task``: its name. The tasks about an attribute, ``attribute_NAME`` and those that end in ``_by_NAME``, do not.
    """
    return not task.startswith(_ATTRIBUTE) and "_by_" not in task


@dataclass(frozen=True)
class Truth:
    """The data that labels are computed from.

    ``cluster_I``: cluster of each item, -1 for none. ``attributes``: by name, attributes of the U users that are not
    inputs, as text; null if unknown.
    """

    futures: Futures
    items: ItemVectors
    cluster_I: Ints
    attributes: Mapping[str, pa.StringArray] = field(default_factory=dict)

    @property
    def rows(self) -> Rows:
        """The rows to label."""
        return self.futures.rows

    @property
    def activity(self) -> Activity:
        """Events of the rows' users."""
        return self.futures.activity

    def attributes_of_rows(self, name: str) -> pa.StringArray:
        """Return each row's value of an attribute, whether it is an input or not."""
        if name in self.attributes:
            return self.attributes[name].take(pa.array(self.rows.user_N))
        return self.rows.features.column(_ATTRIBUTE + name).cast(pa.string())


class Problem(Protocol):
    """A task's examples for one seed."""

    def choose(self, x_NF: Floats32) -> Any:
        """Choose a setting for a representation on the validation examples."""

    def scores(self, x_NF: Floats32, choice: Any) -> Mapping[str, Scores]:
        """Fit that setting on all but the test examples; return scores of the test examples by metric.

        The first metric is the primary one.
        """

    @property
    def num_examples(self) -> dict[str, int]:
        """Number of examples by role."""


class Task(NamedTuple):
    """A use of user embeddings that can be measured.

    ``name``: in the results. ``problem``: builds the examples for a seed, or returns why there are too few.
    ``is_drawn``: whether the examples are a random draw that depends on the seed.
    """

    name: str
    problem: Callable[[Truth, int], Problem | LeftOut]
    is_drawn: bool = True
