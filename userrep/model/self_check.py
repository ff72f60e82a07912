"""The result of a space's self-check, as stored in its manifest."""

from datetime import date
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from userrep.logs import in_columns

MEAN = "mean"  # key of the mean over families of tasks
OTHERS_MEAN = "mean without *"  # key of the mean over families without tasks akin to training
AKIN_NOTE = "*: the task's labels resemble the training's objectives, on later days"


class Interval(NamedTuple):
    """A value with the ends of its 90 % interval."""

    value: float
    low: float
    high: float


def marked(task: str, is_akin: bool) -> str:
    """Return a task's name for tables, with a mark if the task is akin to training; ``AKIN_NOTE`` explains it."""
    return f"{task} *" if is_akin else task


class SelfCheck(BaseModel):
    """Evaluation of a model with the space's settings that was trained on a shorter part of the log.

    The training data of the checked model ends at ``trained_until``. ``test_as_ofs`` are the dates of its evaluation;
    their labels end by the ``trained_until`` of the space. ``values`` has one value per task and representation.
    ``ahead`` has the embedding's relative lead (for R2 the difference) by peer and family of tasks, and under ``mean``
    the unweighted mean over families.
    ``not_judged`` lists tasks with too few examples, which do not enter any lead; ``akin`` lists the tasks akin to
    training. ``left_out`` gives the reason for each task without values.
    """

    model_config = ConfigDict(frozen=True)

    trained_until: date
    test_as_ofs: list[date]
    num_training_dates: int
    num_test_users: int
    values: dict[str, dict[str, float]]
    ahead: dict[str, dict[str, Interval]]
    not_judged: list[str] = Field(default_factory=list)
    akin: list[str] = Field(default_factory=list)
    left_out: dict[str, str] = Field(default_factory=dict)

    @property
    def best_peer(self) -> str:
        """The peer with the smallest lead of the embedding."""
        return min(self.ahead, key=lambda peer: self.ahead[peer][MEAN].value)

    @property
    def gain(self) -> Interval:
        """Mean lead over the best peer."""
        return self.ahead[self.best_peer][MEAN]

    @property
    def summary(self) -> str:
        """One line that compares the embedding with its best peer."""
        value, low, high = self.gain
        relation = "ahead of" if value >= 0 else "behind"
        return f"the embedding is {abs(value):.1%} {relation} {self.best_peer} [{low:+.1%}, {high:+.1%}]"

    @property
    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows: one row per task, one column per representation, and a last row of mean leads."""
        names = list(dict.fromkeys(name for by_name in self.values.values() for name in by_name))
        rows = [
            [marked(task, task in self.akin) + " ?" * (task in self.not_judged)]
            + [f"{by_name[name]:.4f}" if name in by_name else "" for name in names]
            for task, by_name in self.values.items()
        ]
        means = [f"{self.ahead[name][MEAN].value:+.1%}" if name in self.ahead else "" for name in names]
        return ["task", *names], [*rows, ["embedding ahead by", *means]]

    @property
    def notes(self) -> list[str]:
        """The meaning of the table's marks, and the tasks that were left out."""
        notes = [AKIN_NOTE] * any(task in self.akin for task in self.values)
        notes += ["?: not judged, with fewer than 200 test examples, or 200 of a class"] * bool(self.not_judged)
        return notes + [f"left out: {task}: {reason}" for task, reason in self.left_out.items()]

    @property
    def lines(self) -> list[str]:
        """The printed result: the table, the summary and the notes."""
        title = f"self-check, trained until {self.trained_until} and judged on the days after that:"
        return [title, *in_columns(*self.table), f"over all judged tasks: {self.summary}", *self.notes]
