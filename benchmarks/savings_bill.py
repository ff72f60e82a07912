"""What the sides of the benchmark of savings cost: CPU seconds at the start, every night, and for each team."""

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

from pyspark.sql import SparkSession

from benchmarks.cpu_meter import CpuMeter
from benchmarks.report import Line, progress, span
from benchmarks.savings_teams import Team
from userrep.spark.spark_work import SparkWork

CYCLE = 28  # nights from one training to the next
NUM_TEAMS = (1, 2, 5, 10)
PEERS = {"rescan": "teams that rescan the log", "daily_sums": "teams with daily sums of their own"}
SPANS = ("cycle", "night", "first_day")


class Side(Protocol):
    """What a side does, in this order: begin, train each team's model, and every night refresh and score each team."""

    name: str
    spark: SparkSession

    def begin(self, label_dates: list[date]) -> None: ...

    def train(self, team: Team, label_dates: list[date]) -> float: ...

    def refresh(self, day: date) -> None: ...

    def score(self, team: Team, day: date) -> None: ...


@dataclass
class Cost:
    """The cost of some work: CPU seconds of all processes, and Spark's counts."""

    cpu: float = 0.0
    spark: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.cpu + other.cpu, self.spark + other.spark)

    def __mul__(self, times: float) -> "Cost":
        return Cost(self.cpu * times, Counter({name: round(value * times) for name, value in self.spark.items()}))

    def facts(self) -> Line:
        return {"cpu_seconds": round(self.cpu, 1), **dict(sorted(self.spark.items()))}


@contextmanager
def counted(spark: SparkSession, what: str) -> Iterator[Cost]:
    """Count the cost of the block."""
    cost, work, start = Cost(), SparkWork(spark), time.monotonic()
    with CpuMeter() as meter:
        before = meter.seconds()
        yield cost
        time.sleep(0.5)  # Spark updates its counts asynchronously
        cost.cpu = meter.seconds() - before
    cost.spark = Counter({name: round(value) for name, value in work.found().items()})
    progress(f"{what}: {cost.cpu:.1f} CPU s in {time.monotonic() - start:.1f} s")


@dataclass(frozen=True)
class Bill:
    """The cost of a side's days: shared work at the start and every night, and the work of all teams."""

    begun: Cost
    models: Cost
    refreshes: list[Cost]
    scores: list[Cost]
    auc: dict[str, float]

    @classmethod
    def of(cls, side: Side, teams: Sequence[Team], label_dates: list[date], nights: list[date]) -> "Bill":
        """Let a side train, and score all users night by night."""
        with counted(side.spark, f"{side.name}: begin") as begun:
            side.begin(label_dates)
        models, auc = Cost(), {}
        for team in teams:
            with counted(side.spark, f"{side.name}: train {team.name}") as cost:
                auc[team.name] = side.train(team, label_dates)
            models += cost
        refreshes, scores = [], []
        for day in nights:
            with counted(side.spark, f"{side.name}: refresh {day}") as refresh:
                side.refresh(day)
            with counted(side.spark, f"{side.name}: score {day}") as score:
                for team in teams:
                    side.score(team, day)
            refreshes.append(refresh)
            scores.append(score)
        return cls(begun, models, refreshes, scores, auc)

    def first_day(self, num_teams: float) -> Cost:
        """The cost of the trainings of a cycle."""
        return self.begun + self.models * (num_teams / len(self.auc))

    def night(self, num_teams: float, k: int = -1) -> Cost:
        """The cost of a typical night."""
        return self.refreshes[k] + self.scores[k] * (num_teams / len(self.auc))

    def cycle(self, num_teams: float) -> Cost:
        """The cost of the trainings and all nights."""
        return self.first_day(num_teams) + self.night(num_teams, 0) + self.night(num_teams) * (CYCLE - 1)


Bills = dict[str, Bill]  # of "rescan", "daily_sums" and "shared"


def line(name: str, runs: Sequence[Bills], size: Line, num_teams: int, *, peer: str) -> Line:
    """Return the line of a peer for a number of teams: medians over runs, and costs of the last run."""
    saved = {what: [1 - cpu(run, "shared", what, num_teams) / cpu(run, peer, what, num_teams) for run in runs]
             for what in SPANS}  # fmt: skip
    last = runs[-1]
    auc = {
        team: {"own": round(own, 4), "shared": round(last["shared"].auc[team], 4)}
        for team, own in last[peer].auc.items()
    }
    costs = {
        what: {side: getattr(last[of], what)(num_teams).facts() for side, of in (("own", peer), ("shared", "shared"))}
        for what in SPANS
    }
    per_team = {
        str(num): {side: round(cpu(last, side, "cycle", num) / num, 1) for side in (peer, "shared")}
        for num in NUM_TEAMS
    }
    return {
        "benchmark": name,
        "size": size | {"teams": num_teams},
        "peer": PEERS[peer],
        "value": round(statistics.median(saved["cycle"]), 3),
        "runs": len(runs),
        "range": {"value": span(saved["cycle"])},
        "value_night": round(statistics.median(saved["night"]), 3),
        "value_first_day": round(statistics.median(saved["first_day"]), 3),
        "break_even": break_even(last, peer),
        "cpu_per_team": per_team,
        "auc_loss": round(statistics.mean(1 - found["shared"] / found["own"] for found in auc.values()), 4),
        "auc": auc,
        **costs,
    }


def cpu(bills: Bills, side: str, what: str, num_teams: float) -> float:
    """Return a side's CPU seconds of a cycle, a night or the first day, for a number of teams."""
    cost: Cost = getattr(bills[side], what)(num_teams)
    return cost.cpu


def break_even(bills: Bills, peer: str) -> float | None:
    """Return the number of teams above which sharing costs less; None if each further team costs more with it."""
    fixed = cpu(bills, "shared", "cycle", 0)
    own, shared = (cpu(bills, side, "cycle", 1) - cpu(bills, side, "cycle", 0) for side in (peer, "shared"))
    return round(fixed / (own - shared), 2) if own > shared else None
