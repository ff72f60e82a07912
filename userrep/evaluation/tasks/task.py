"""What a task is: labels of rows, pairs or neighbours, and how a representation is judged by them.

A task makes, for a seed, a problem, which all representations are given alike: the same examples, the same probes, the
same choice among settings by validation. New kinds of tasks are new classes with these two methods; which tasks there
are stands in ``tasks/catalog.py``.

Shapes: N rows, F numbers of a representation, I items.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.evaluation.activity import Activity, Futures
from userrep.evaluation.items import ItemVectors
from userrep.evaluation.metrics import Scores
from userrep.evaluation.rows import Ints, Rows

LEAST = 10  # examples of either kind, in each role; with fewer a task is left out

Floats32 = NDArray[np.float32]

_ATTRIBUTE = "attribute_"  # what columns of features begin with that hold one


class LeftOut(str):
    """Why a task is not there, in one line."""

    __slots__ = ()


def too_few_values(attribute: str, num_values: int) -> LeftOut | None:
    """Say that an attribute does not tell users apart, if it has not two values among them."""
    if num_values < 2:
        return LeftOut(f"attribute {attribute} has {num_values} value{'s' * (num_values != 1)} here")
    return None


@dataclass(frozen=True)
class Truth:
    """All that labels are made from. ``cluster_I``: of each item, -1 for none.

    ``attributes``: what is known of the U users besides, and is no input: text, null where unknown.
    """

    futures: Futures
    items: ItemVectors
    cluster_I: Ints
    attributes: Mapping[str, pa.StringArray] = field(default_factory=dict)

    @property
    def rows(self) -> Rows:
        """The rows that are labelled."""
        return self.futures.rows

    @property
    def activity(self) -> Activity:
        """What their users did."""
        return self.futures.activity

    def lean(self) -> "Truth":
        """Leave out of the rows' features what no label is made of: all but attributes."""
        names = [name for name in self.rows.features.schema.names if name.startswith(_ATTRIBUTE)]
        rows = replace(self.rows, features=self.rows.features.select(names))
        return replace(self, futures=replace(self.futures, rows=rows))

    def attributes_of_rows(self, name: str) -> pa.StringArray:
        """Return each row's value of an attribute, be it an input or not."""
        if name in self.attributes:
            return self.attributes[name].take(pa.array(self.rows.user_N))
        return self.rows.features.column(_ATTRIBUTE + name).cast(pa.string())


class Problem(Protocol):
    """A task's examples, as one seed draws them."""

    def chosen(self, x_NF: Floats32) -> Any:
        """Choose a setting for a representation, by the validation examples alone."""

    def scores(self, x_NF: Floats32, choice: Any) -> Mapping[str, Scores]:
        """Fit all but the test examples with that setting; score these, by metric."""

    @property
    def num_examples(self) -> dict[str, int]:
        """Count the examples by role."""


class Task(Protocol):
    """Something that a user embedding may be used for."""

    @property
    def name(self) -> str:
        """Name its line in the results."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Name its figures of merit; the first is the one that counts."""

    @property
    def is_drawn(self) -> bool:
        """Whether the examples are a random draw, which another seed would change."""

    @property
    def is_akin_to_training(self) -> bool:
        """Whether the labels resemble what a space is trained to predict about the days after an as-of date."""

    def problem(self, truth: Truth, seed: int) -> Problem | LeftOut:
        """Make the examples; or say why there are too few."""
