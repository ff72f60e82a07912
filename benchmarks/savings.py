"""What does one shared embedding save teams that would otherwise each build features?

Five binary tasks on one generated log, with a logistic regression each. Without sharing, each team computes features
for the label dates, to train, and then every night for all users, to score them. There are two such peers: teams that
rescan the raw log each time (``savings_vs_rescan``), and teams that keep their own daily sums and add a day to them
every night (``savings``, and ``savings_ten_teams``). With sharing, userrep runs once (``pipeline`` with its defaults,
snapshots of the label dates), ``daily`` runs every night, and teams join with EmbeddingJoin.

``value`` is the share of CPU seconds saved over a cycle of 28 nights, including all trainings. Nights are alike, so one
night of the teams and two of userrep are measured. Costs of other numbers of teams follow from the mean cost of a team;
``break_even`` is the number of teams above which sharing saves. CPU seconds are those of all processes: this one, the
JVM and its Python workers, after a run of all sides on a small log. ``value_night`` is the share for a night without a
training, ``value_first_day`` that for the trainings. ``caps`` are the limits of our side, which are the defaults, and
``begin_seconds`` the duration of its stages before the teams' trainings. The line also has Spark's counts of bytes read
and of rows and bytes shuffled per cycle. Reads include cached rows, but not files that userrep's tasks read with
pyarrow. AUC is measured on dates after all training. An hour and a half; the first time, a quarter of an hour more and
6 GB to draw the log.

    make bench-savings
    python -m benchmarks.savings --small
"""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
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

from benchmarks.report import Line, ask, print_lines, progress
from benchmarks.savings_bill import NUM_TEAMS, Bill, Bills, line
from benchmarks.savings_teams import (
    TEAMS,
    WINDOWS_DAYS,
    Log,
    Team,
    asked_at,
    classifier,
    daily_sums,
    features,
    first_day,
    write_labels,
)
from userrep.config import AlsVectors, Config, parse_config
from userrep.joins.embedding_join import EmbeddingJoin
from userrep.spark.session import get_session
from userrep.synthetic.generator import LogSpec, generate_log
from userrep.workflows import daily
from userrep.workflows.pipeline import run_pipeline
from userrep.workflows.run_context import RunContext

FIRST_DAY = date(2023, 1, 1)
NIGHTS = 2  # of userrep's: the first may build the window sums, the others move them on; teams' nights are all alike
# Label dates, as days before the log's end. The last training label's month ends before the first test date.
TRAIN, TEST = (95, 88, 81, 74), (37, 30)


@dataclass(frozen=True)
class SavingsSize:
    """A log: the number of users, and of events per active day of a user."""

    users: int
    events_per_day: float
    items: int = 2000
    days: int = 480  # the default history window before the label dates
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


def measure(spark: SparkSession, size: SavingsSize, root: Path, runs: int, teams: Sequence[Team] = TEAMS) -> list[Line]:
    """Run all sides on the same days; return a line for each peer, and for ten teams."""
    log, bills = drawn_log(spark, size, root), []
    for _ in range(runs):
        folder = root / f"run-{uuid4().hex}"
        try:
            shared = Shared(spark, log, folder, config_of(size, log, folder))
            found, about = _bills(shared, size, teams)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        bills.append(found)
    facts = {**vars(size), "events": log.num_events(spark), "cores": os.cpu_count()}
    few, many = len(teams), NUM_TEAMS[-1]
    return [
        line("savings", bills, facts, few, peer="daily_sums") | about,
        line("savings_ten_teams", bills, facts, many, peer="daily_sums"),
        line("savings_vs_rescan", bills, facts, few, peer="rescan"),
    ]


def _bills(shared: "Shared", size: SavingsSize, teams: Sequence[Team]) -> tuple[Bills, Line]:
    """Run all sides once. Returns what they cost, and facts about the labels and our limits."""
    spark, log, folder, config = shared.spark, shared.log, shared.folder, shared.config
    label_dates = [size.before_end(days) for days in (*TRAIN, *TEST)]
    nights = [label_dates[-1] + timedelta(days=k) for k in range(1, NIGHTS + 1)]
    about = write_labels(log, spark, label_dates, folder / "labels")
    rescan = Bill.of(Own(spark, log, folder), teams, label_dates, nights[:1])
    sums = Bill.of(Summing(spark, log, folder), teams, label_dates, nights[:1])
    for name, auc in rescan.auc.items():
        if abs(auc - sums.auc[name]) > 1e-3:  # features are the same, up to the order of sums
            raise AssertionError(f"{name}: {auc} from a rescan, {sums.auc[name]} from daily sums")
    vectors, training = config.item_vectors["behaviour"], config.training
    assert isinstance(vectors, AlsVectors)
    caps = {"tiles": vectors.max_tiles, "training_rows": training.max_rows, "training_dates": training.as_ofs.max_dates}
    bills = {"rescan": rescan, "daily_sums": sums, "shared": Bill.of(shared, teams, label_dates, nights)}
    by_stage = {name: round(seconds, 1) for name, seconds in shared.seconds.items()}
    return bills, about | {"caps": caps, "begin_seconds": by_stage}


@dataclass
class Own:
    """Teams without sharing: features from the raw log each time."""

    spark: SparkSession
    log: Log
    folder: Path
    name = "rescan"

    def begin(self, label_dates: list[date]) -> None:
        """Do nothing: nothing is shared."""

    def train(self, team: Team, label_dates: list[date]) -> float:
        """Train a team's model on features of its own; return its test AUC."""
        labels = self.spark.read.parquet(str(self.folder / "labels" / team.name))
        rows = labels.join(self._features(team, label_dates), on=["user_id", "as_of"], how="inner")
        return fitted(classifier("features"), rows, label_dates, self.folder / self.name / team.name)

    def refresh(self, day: date) -> None:
        """Do nothing: nothing is shared."""

    def score(self, team: Team, day: date) -> None:
        """Score all users as of a day."""
        model = PipelineModel.load(str(self.folder / self.name / team.name))
        write_scores(model.transform(self._features(team, [day])), self.folder / "scores")

    def _features(self, team: Team, as_ofs: list[date]) -> DataFrame:
        return features(self._days(team, first_day(as_ofs), max(as_ofs)), team.facets, as_ofs)

    def _days(self, team: Team, start: date, end: date) -> DataFrame:
        return daily_sums(self.log, self.spark, team.facets, start=start, end=end)


class Summing(Own):
    """Teams that keep their daily sums: only days that are not there yet are read from the log."""

    name = "daily_sums"

    def _days(self, team: Team, start: date, end: date) -> DataFrame:
        folder = self.folder / "daily_sums" / "days" / team.name
        done = max((date.fromisoformat(path.name) for path in folder.glob("20*")), default=start)
        if done < end:
            new = super()._days(team, done, end).sortWithinPartitions("day")  # readers skip row groups of other days
            new.write.parquet(str(folder / end.isoformat()))
        kept = self.spark.read.parquet(*(str(path) for path in folder.glob("20*")))
        return kept.where(F.col("day") >= F.lit(start))


@dataclass
class Shared:
    """Teams with one embedding: userrep computes it, and they join."""

    spark: SparkSession
    log: Log
    folder: Path
    config: Config
    seconds: Counter[str] = field(default_factory=Counter)  # of the stages of ``begin``
    name = "shared"

    def begin(self, label_dates: list[date]) -> None:
        """Train the embedding on what lies before all label dates, and publish it at these."""
        works = [self._work(label_dates[-1]) for _ in range(2)]
        run_pipeline(works[0])
        daily.backfill(works[1], label_dates)
        for work in works:
            for stage in work.runs.stages:
                self.seconds[stage.stage] += stage.seconds

    def train(self, team: Team, label_dates: list[date]) -> float:
        """Train a team's model on embeddings; return its test AUC."""
        join = EmbeddingJoin(root=self.config.root, missing="drop", vectors="vector")
        rows = join.transform(self.spark.read.parquet(str(self.folder / "labels" / team.name)).drop("as_of"))
        stages = Stages(stages=[join, *classifier("embedding").getStages()])
        return fitted(stages, rows, label_dates, self.folder / self.name / team.name)

    def refresh(self, day: date) -> None:
        """Make the night's snapshot."""
        daily.daily(self._work(day), on_time=True)

    def score(self, team: Team, day: date) -> None:
        """Score all users who have a vector."""
        users = self.spark.read.parquet(str(self.log.folder / "users")).select("user_id", asked_at(F.lit(day)))
        model = PipelineModel.load(str(self.folder / self.name / team.name))
        write_scores(model.transform(users), self.folder / "scores")

    def _work(self, day: date) -> RunContext:
        return RunContext(self.config, self.spark, day)


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
    """Return userrep's configuration: the teams' windows, the end of the training, and defaults otherwise."""
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
        "item_vectors": {"behaviour": {"kind": "als"}, "content": {"kind": "text"}},
        "training": {"as_ofs": {"until": size.until}},
    }
    return parse_config(values, "savings")


def main() -> None:
    """Run with the arguments of the command line, and print the lines."""
    asked = ask("savings", SIZE, small=SMALL, runs=3, unit="users", number=SIZE.users, resized=SIZE.of_users)
    conf = {} if asked.is_small else {"spark.driver.memory": "6g"}
    spark = get_session(master=f"local[{os.cpu_count()}]", conf=conf, app_name="savings")
    try:
        if not asked.is_small:
            progress("savings: warming up")
            measure(spark, SMALL, asked.root, 1)
        progress(f"savings: {asked.size.name}")
        print_lines("savings", lambda: measure(spark, asked.size, asked.root, asked.runs))
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
