"""What a space's self-check found, as its manifest keeps it."""

from datetime import date
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from userrep.logs import in_columns

MEAN = "mean"  # over families of tasks


class Lead(NamedTuple):
    """How far the embedding is ahead, relative (for R2 the difference), with the ends of its 90 % interval."""

    value: float
    low: float
    high: float


class SelfCheck(BaseModel):
    """A model of the same settings, trained on less of the log, and judged on the days after that.

    ``trained_until``: what the checked model was trained on ends there. ``test_as_ofs``: the dates it is judged on;
    their labels end by the ``trained_until`` of the space. ``values``: by task and representation. ``ahead``: by peer
    and family of tasks, with the mean over families, each counted once, under ``mean``. ``not_judged``: tasks with too
    few examples, which no lead is made of. ``left_out``: tasks without figures, and why.
    """

    model_config = ConfigDict(frozen=True)

    trained_until: date
    test_as_ofs: list[date]
    num_training_dates: int
    num_test_users: int
    values: dict[str, dict[str, float]]
    ahead: dict[str, dict[str, Lead]]
    not_judged: list[str] = Field(default_factory=list)
    left_out: dict[str, str] = Field(default_factory=dict)

    @property
    def best_peer(self) -> str:
        """The peer that the embedding is least ahead of."""
        return min(self.ahead, key=lambda peer: self.gain_over(peer).value)

    @property
    def gain(self) -> Lead:
        """The mean lead over the best peer."""
        return self.gain_over(self.best_peer)

    def gain_over(self, peer: str) -> Lead:
        """Return the mean lead over a peer."""
        return self.ahead[peer][MEAN]

    @property
    def summary(self) -> str:
        """One line: how the embedding compares with its best peer."""
        value, low, high = self.gain
        where = "ahead of" if value >= 0 else "behind"
        return f"the embedding is {abs(value):.1%} {where} {self.best_peer} [{low:+.1%}, {high:+.1%}]"

    @property
    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows: a line per task, a column per representation; last the embedding's mean lead over each."""
        names = list(dict.fromkeys(name for by_name in self.values.values() for name in by_name))
        rows = [
            [task, *(f"{by_name[name]:.4f}" if name in by_name else "" for name in names)]
            for task, by_name in self.values.items()
        ]
        means = [f"{self.gain_over(name).value:+.1%}" if name in self.ahead else "" for name in names]
        return ["task", *names], [*rows, ["embedding ahead by", *means]]

    @property
    def lines(self) -> list[str]:
        """The whole result for a person: the table, what it comes to, and what is not in it."""
        head, rows = self.table
        marked = [[f"{row[0]} *" if row[0] in self.not_judged else row[0], *row[1:]] for row in rows]
        notes = ["* fewer than 200 positives or negatives: not judged"] if self.not_judged else []
        notes += [f"left out: {task}: {reason}" for task, reason in self.left_out.items()]
        title = f"self-check, trained until {self.trained_until} and judged on the days after that:"
        return [title, *in_columns(head, marked), f"over all judged tasks: {self.summary}", *notes]
