"""What does one shared embedding save five teams that would otherwise each build features?

Five binary tasks on one generated log, with a logistic regression each. Without sharing, each team computes features
from the raw log, for the label dates to train and then every night for all users, to score them. With sharing, userrep
runs once (tiles, item vectors, features, the training of the autoencoder, snapshots of the label dates), ``daily`` runs
every night, and teams join with EmbeddingJoin. ``value`` is the share of CPU seconds saved over a cycle of 28 nights,
including all trainings. Nights are alike, so one night of the teams and two of userrep are measured. ``value_night`` is
the share for a night without a training, ``value_first_day`` that for the trainings alone. CPU seconds are those of all
processes: this one, the JVM and its Python workers. The line also has Spark's counts of bytes read and of rows and
bytes shuffled per cycle. Reads include cached rows, but not files that userrep's tasks read with pyarrow. AUC is
measured on dates after all training. Half an hour; the first time, a quarter more and 4 GB to draw the log.

    make bench-savings
    python -m benchmarks.savings --small
"""

import os
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from uuid import uuid4

from pyspark.ml import Pipeline as Stages
from pyspark.ml import PipelineModel
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.cpu_meter import CpuMeter
from benchmarks.report import Line, ask, print_line, progress
from benchmarks.savings_teams import TEAMS, WINDOWS_DAYS, Log, Team, asked_at, classifier, features, write_labels
from userrep.config import Config, parse_config
from userrep.joins.embedding_join import EmbeddingJoin
from userrep.spark.session import get_session
from userrep.spark.spark_work import SparkWork
from userrep.synthetic.generator import LogSpec, generate_log
from userrep.workflows import daily
from userrep.workflows.data_stages import build_activity_tiles, build_user_features, train_item_vectors
from userrep.workflows.run_context import RunContext
from userrep.workflows.space_stages import promote_first, train_autoencoder

FIRST_DAY = date(2023, 1, 1)
CYCLE = 28  # nights from one training to the next
TRAINED_DATES = 8  # of the embedding: full windows fit into the log for so many
NIGHTS = 2  # of userrep's: the first builds the window sums, the others move them on; teams' own nights are all alike
ALS_TILES = 2_000_000  # that item vectors are fitted on: some hundreds of the users of this log, who meet most items
TRAINING_ROWS = 250_000  # that the autoencoder is trained on, of a share of the users
# Label dates, as days before the log's end. The last training label's month ends before the first test date.
TRAIN, TEST = (95, 88, 81, 74), (37, 30)


@dataclass(frozen=True)
class SavingsSize:
    """A log: the number of users, and of events per active day of a user."""

    users: int
    events_per_day: float
    items: int = 2000
    days: int = 330
    seed: int = 7

    @property
    def name(self) -> str:
        return f"savings-{self.users}-{self.events_per_day:g}-{self.items}-{self.days}-seed{self.seed}"

    def of_users(self, users: int) -> "SavingsSize":
        return replace(self, users=users)

    def before_end(self, days: int) -> date:
        return FIRST_DAY + timedelta(days=self.days - days)

    @property
    def until(self) -> date:
        """The end of the embedding's training data: the first label date."""
        return self.before_end(TRAIN[0])


SIZE = SavingsSize(users=120_000, events_per_day=12.0)
SMALL = SavingsSize(users=600, events_per_day=1.0, items=200, days=180)


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


def measure(spark: SparkSession, size: SavingsSize, root: Path, teams: Sequence[Team] = TEAMS) -> Line:
    """Run both sides on the same days; return the line."""
    log, folder = drawn_log(spark, size, root), root / f"run-{uuid4().hex}"
    label_dates = [size.before_end(days) for days in (*TRAIN, *TEST)]
    nights = [label_dates[-1] + timedelta(days=k) for k in range(1, NIGHTS + 1)]
    try:
        about = write_labels(log, spark, label_dates, folder / "labels")
        progress("warming up")
        Own(spark, log, folder).train(teams[0], label_dates)  # the first to run pays for what all need
        own = Days.of(Own(spark, log, folder), teams, label_dates, nights[-1:])
        shared = Days.of(Shared(spark, log, folder, config_of(size, log, folder)), teams, label_dates, nights)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    spans = {
        "cycle": (own.cycle, shared.cycle),
        "night": (own.night, shared.night),
        "first_day": (own.first, shared.first),
    }
    saved = {name: round(1 - ours.cpu / theirs.cpu, 3) for name, (theirs, ours) in spans.items()}
    loss = [1 - shared.auc[name] / own.auc[name] for name in own.auc]
    return {
        "benchmark": "savings",
        "size": {**vars(size), "events": log.num_events(spark), "teams": len(teams), "cores": os.cpu_count()},
        "value": saved.pop("cycle"),
        **{f"value_{name}": value for name, value in saved.items()},
        "auc_loss": round(statistics.mean(loss), 4),
        "auc": {name: {"own": round(own.auc[name], 4), "shared": round(shared.auc[name], 4)} for name in own.auc},
        **{name: {"own": theirs.facts(), "shared": ours.facts()} for name, (theirs, ours) in spans.items()},
        "trained_and_published": shared.begun.facts(),
        **about,
    }


@dataclass(frozen=True)
class Days:
    """The cost of a side's days: shared work at the start, models, and nights."""

    begun: Cost
    models: Cost
    nights: list[Cost]
    auc: dict[str, float]

    @classmethod
    def of(cls, side: "Own | Shared", teams: Sequence[Team], label_dates: list[date], nights: list[date]) -> "Days":
        """Let a side train, and score all users night by night."""
        name = type(side).__name__.lower()
        with counted(side.spark, f"{name}: begin") as begun:
            side.begin(label_dates)
        models, auc = Cost(), {}
        for team in teams:
            with counted(side.spark, f"{name}: train {team.name}") as cost:
                auc[team.name] = side.train(team, label_dates)
            models += cost
        taken = []
        for day in nights:
            with counted(side.spark, f"{name}: refresh {day}") as cost:
                side.refresh(day)
            with counted(side.spark, f"{name}: score {day}") as scores:
                for team in teams:
                    side.score(team, day)
            taken.append(cost + scores)
        return cls(begun, models, taken, auc)

    @property
    def first(self) -> Cost:
        """The cost of the trainings of a cycle."""
        return self.begun + self.models

    @property
    def night(self) -> Cost:
        """The cost of a typical night."""
        return self.nights[-1]

    @property
    def cycle(self) -> Cost:
        """The cost of the trainings and all nights."""
        return self.first + self.nights[0] + self.night * (CYCLE - 1)


@dataclass
class Own:
    """Teams without sharing: features from the raw log each time."""

    spark: SparkSession
    log: Log
    folder: Path

    def begin(self, label_dates: list[date]) -> None:
        """Do nothing: nothing is shared."""

    def train(self, team: Team, label_dates: list[date]) -> float:
        """Train a team's model on features of its own; return its test AUC."""
        inputs = features(self.log, self.spark, team.facets, label_dates)
        labels = self.spark.read.parquet(str(self.folder / "labels" / team.name))
        rows = labels.join(inputs, on=["user_id", "as_of"], how="inner")
        return fitted(classifier("features"), rows, label_dates, self.folder / "own" / team.name)

    def refresh(self, day: date) -> None:
        """Do nothing: nothing is shared."""

    def score(self, team: Team, day: date) -> None:
        """Score everybody as of a day."""
        model = PipelineModel.load(str(self.folder / "own" / team.name))
        write_scores(model.transform(features(self.log, self.spark, team.facets, [day])), self.folder / "scores")


@dataclass
class Shared:
    """Teams with one embedding: userrep computes it, and they join."""

    spark: SparkSession
    log: Log
    folder: Path
    config: Config

    def begin(self, label_dates: list[date]) -> None:
        """Train the embedding on what lies before all label dates, and publish it at these."""
        work = self._work(label_dates[-1])
        dates = work.schedule.feature_dates()
        build_activity_tiles(work)
        train_item_vectors(work, dates)
        build_user_features(work, dates)
        space = train_autoencoder(work)
        daily.backfill(self._work(label_dates[-1]), label_dates)  # one that knows of the space
        promote_first(work, space)

    def train(self, team: Team, label_dates: list[date]) -> float:
        """Train a team's model on embeddings; return its test AUC."""
        join = EmbeddingJoin(root=self.config.root, missing="drop", vectors="vector")
        rows = join.transform(self.spark.read.parquet(str(self.folder / "labels" / team.name)).drop("as_of"))
        stages = Stages(stages=[join, *classifier("embedding").getStages()])
        return fitted(stages, rows, label_dates, self.folder / "shared" / team.name)

    def refresh(self, day: date) -> None:
        """Make the night's snapshot."""
        daily.daily(self._work(day), on_time=True)

    def score(self, team: Team, day: date) -> None:
        """Score everybody who has a vector."""
        users = self.spark.read.parquet(str(self.log.folder / "users")).select("user_id", asked_at(F.lit(day)))
        model = PipelineModel.load(str(self.folder / "shared" / team.name))
        write_scores(model.transform(users), self.folder / "scores")

    def _work(self, day: date) -> RunContext:
        return RunContext(self.config, self.spark, day, report=progress)


def fitted(stages: Stages, rows: DataFrame, label_dates: list[date], out: Path) -> float:
    """Fit and save a model on the rows of the training dates; return its AUC on those of the test dates."""
    first_test = F.lit(label_dates[len(TRAIN)]).cast("timestamp")
    rows = rows.cache()
    try:
        model = stages.fit(rows.where(F.col("label_at") < first_test))
        model.write().overwrite().save(str(out))
        test = model.transform(rows.where(F.col("label_at") >= first_test))
        return float(BinaryClassificationEvaluator(labelCol="label").evaluate(test))
    finally:
        rows.unpersist()


def write_scores(scored: DataFrame, out: Path) -> None:
    """Write the users' scores."""
    scores = scored.select("user_id", vector_to_array("probability")[1].alias("score"))
    scores.write.mode("overwrite").parquet(str(out))


def drawn_log(spark: SparkSession, size: SavingsSize, root: Path) -> Log:
    """Draw a log without faults, once."""
    folder, spec = root / size.name, LogSpec(
        num_users=size.users, num_items=size.items, first_day=FIRST_DAY, num_days=size.days,
        events_per_user_day=size.events_per_day, seed=size.seed,
        duplicate_share=0, late_share=0, malformed_share=0, heavy_user_share=0,
    )  # fmt: skip
    if not folder.exists():
        progress(f"drawing {folder}")
        staged = root / f".{size.name}-{uuid4().hex}"
        generate_log(spark, spec, str(staged))
        staged.rename(folder)
    return Log(folder, spec.num_genres, busy=round(7 * size.events_per_day))


def config_of(size: SavingsSize, log: Log, folder: Path) -> Config:
    """Return userrep's configuration: the teams' windows, dates that fit the log, and defaults otherwise."""
    columns = {name: name for name in ("user_id", "item_id", "event_at", "event_id", "event_type", "weight")}
    values = {
        "root": str(folder / "tables"),
        "events": {
            "path": str(log.folder / "events"),
            "columns": columns | {"context": ["device"]},
            "partition": {"column": "ingest_date", "holds": "event_date"},
        },
        "items": {"path": str(log.folder / "items"), "columns": {"item_id": "item_id", "text": "title"}},
        "windows_days": WINDOWS_DAYS,
        "history_days": 0,
        "item_vectors": {"behaviour": {"kind": "als", "max_tiles": ALS_TILES}, "content": {"kind": "text"}},
        "training": {"as_ofs": {"until": size.until, "max_dates": TRAINED_DATES}, "max_rows": TRAINING_ROWS},
        "snapshots": {"history_dates": 2},
        "tracking": {"mlflow": False},
        "quality": {"self_check": False},
    }
    return parse_config(values, "savings")


def main() -> None:
    """Run with the arguments of the command line, and print the line."""
    asked = ask("savings", SIZE, small=SMALL, runs=1, unit="users", number=SIZE.users, resized=SIZE.of_users)
    conf = {} if asked.is_small else {"spark.driver.memory": "6g"}
    spark = get_session(master=f"local[{os.cpu_count()}]", conf=conf, app_name="savings")

    progress(f"savings: {asked.size.name}")
    try:
        print_line("savings", lambda: measure(spark, asked.size, asked.root))
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
