"""Five teams with one task each on the users of one log: their labels, and their own features from the raw log.

A team's pipeline is what a good Spark engineer would write: it reads only the folders of the needed days and the needed
columns, the first shuffle aggregates by user and day on the map side, and all label dates share that one pass. A team
either rescans the log each time or keeps these daily sums. Items are joined by broadcast, for teams that use genres.
The log has no faults, so the teams need no cleaning, which tiles always do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.report import Line
from userrep.synthetic.generator import DEVICES, EVENT_TYPES, GENRES

WINDOWS_DAYS = (7, 30, 180)
_LONGEST = WINDOWS_DAYS[-1]
_MONTH = timedelta(days=30)


@dataclass(frozen=True)
class Team:
    """A task, and the columns whose values the team counts; ``genre`` needs a join with the items."""

    name: str
    facets: tuple[str, ...]


TEAMS = (
    Team("return_7d", ("part_of_day", "device")),
    Team("return_30d", ("weekday", "event_type")),
    Team("busy_7d", ("weekday", "part_of_day", "event_type")),
    Team("genre_7d", ("genre", "event_type")),
    Team("new_genre_7d", ("genre", "device")),
)


@dataclass(frozen=True)
class Log:
    """The location of a log. ``num_genres``: of its items. ``busy``: the number of events of a busy week."""

    folder: Path
    num_genres: int
    busy: int

    def events(self, spark: SparkSession, *, start: date, end: date) -> DataFrame:
        """Read the days ``[start, end)`` from their folders only."""
        rows = spark.read.parquet(str(self.folder / "events"))
        return rows.where((F.col("ingest_date") >= F.lit(start)) & (F.col("ingest_date") < F.lit(end)))

    def num_events(self, spark: SparkSession) -> int:
        return spark.read.parquet(str(self.folder / "events")).count()

    def with_genre(self, events: DataFrame) -> DataFrame:
        """Add each event's genre."""
        items = events.sparkSession.read.parquet(str(self.folder / "items")).select("item_id", "genre")
        return events.join(F.broadcast(items), on="item_id", how="left")

    @property
    def genres(self) -> list[str]:
        return list(GENRES)[: self.num_genres]


def daily_sums(log: Log, spark: SparkSession, facets: Sequence[str], *, start: date, end: date) -> DataFrame:
    """Sum a team's counts by user and day, for the days ``[start, end)``.

    Returns user_id, day, events, weight, last_at, and the events of each value of a facet; a weekday needs no column.
    Cost: one pass over these days of the log, one shuffle.
    """
    values = {"part_of_day": range(4), "event_type": EVENT_TYPES, "device": DEVICES, "genre": log.genres}
    events = log.events(spark, start=start, end=end)
    if "genre" in facets:
        events = log.with_genre(events)
    events = events.withColumn("part_of_day", F.floor(F.hour("event_at") / 6))
    counted = {
        f"{facet}_{k}": F.count_if(F.col(facet) == value)
        for facet in facets
        if facet != "weekday"
        for k, value in enumerate(values[facet])
    }
    return events.groupBy("user_id", F.col("ingest_date").alias("day")).agg(
        F.count("*").alias("events"), F.sum("weight").alias("weight"), F.max("event_at").alias("last_at"),
        *(column.alias(name) for name, column in counted.items()),
    )  # fmt: skip


def first_day(as_ofs: Sequence[date]) -> date:
    """Return the first day whose events count at one of these dates."""
    return min(as_ofs) - timedelta(days=_LONGEST)


def features(days: DataFrame, facets: Sequence[str], as_ofs: Sequence[date]) -> DataFrame:
    """Make a team's features of all users with an event in the longest window before these dates, from daily sums.

    Returns user_id, as_of and ``features``. For each window events, weight and active days; recency; of each facet's
    values the events of the two longer windows; all but recency as logarithms. Cost: a shuffle of sums by user and day.
    """
    counted = [name for name in days.columns if name not in ("user_id", "day", "events", "weight", "last_at")]
    dates = days.sparkSession.createDataFrame([(day,) for day in as_ofs], "as_of DATE")
    age = F.datediff("as_of", "day")
    seen = days.join(F.broadcast(dates), on=(age >= 1) & (age <= _LONGEST), how="inner")

    def sums(column: Column, windows: Sequence[int], name: str) -> list[Column]:
        return [F.log1p(F.sum(F.when(age <= w, column).otherwise(0))).alias(f"{name}_{w}d") for w in windows]

    found = sums(F.col("events"), WINDOWS_DAYS, "events") + sums(F.col("weight"), WINDOWS_DAYS, "weight")
    found += sums(F.lit(1), WINDOWS_DAYS, "active_days")
    for name in counted:
        found += sums(F.col(name), WINDOWS_DAYS[1:], name)
    if "weekday" in facets:
        for k in range(7):
            found += sums(F.when(F.weekday("day") == k, F.col("events")).otherwise(0), WINDOWS_DAYS[1:], f"weekday_{k}")
    recency = F.log1p(F.min((F.unix_timestamp(F.col("as_of").cast("timestamp")) - F.unix_timestamp("last_at")) / 86400))
    tenure = F.log1p(F.max(age))
    rows = seen.groupBy("user_id", "as_of").agg(*found, recency.alias("recency"), tenure.alias("tenure"))
    names = [name for name in rows.columns if name not in ("user_id", "as_of")]
    return VectorAssembler(inputCols=names, outputCol="features").transform(rows).select("user_id", "as_of", "features")


def asked_at(day: Column) -> Column:
    """Return label_at of a day: 06:00 UTC, when snapshots are published."""
    return (day.cast("timestamp") + F.expr("INTERVAL 6 HOURS")).alias("label_at")


def classifier(inputs: str) -> Pipeline:
    """Return the model that both sides use."""
    return Pipeline(stages=[LogisticRegression(featuresCol=inputs, labelCol="label", maxIter=50, regParam=1e-3)])


def write_labels(log: Log, spark: SparkSession, as_ofs: Sequence[date], out: Path) -> Line:
    """Label all users with an event in the longest window before these dates, for each team; say how many are positive.

    A folder per team: user_id, as_of, label_at and label. Both sides read them; they stand for what a team has.
    """
    events = log.with_genre(log.events(spark, start=min(as_ofs) - timedelta(days=_LONGEST), end=max(as_ofs) + _MONTH))
    days = events.groupBy("user_id", F.col("ingest_date").alias("day")).agg(
        F.count("*").alias("events"),
        F.collect_set(F.when(F.col("event_type") != "skip", F.col("genre"))).alias("genres"),
    )
    dates = spark.createDataFrame([(day,) for day in as_ofs], "as_of DATE")
    ahead = F.datediff("day", "as_of")
    near = days.join(F.broadcast(dates), on=(ahead >= -_LONGEST) & (ahead < _MONTH.days), how="inner")

    def genres(first: int, last: int) -> Column:
        return F.array_distinct(F.flatten(F.collect_list(F.when(ahead.between(first, last), F.col("genres")))))

    this_week = ahead.between(0, 6)
    new = F.array_except(genres(0, 6), genres(-30, -1))
    rows = near.groupBy("user_id", "as_of").agg(
        F.count_if(ahead < 0).alias("before"),
        (F.count_if(this_week) > 0).cast("double").alias("return_7d"),
        (F.count_if(ahead >= 0) > 0).cast("double").alias("return_30d"),
        (F.sum(F.when(this_week, F.col("events")).otherwise(0)) >= log.busy).cast("double").alias("busy_7d"),
        F.array_contains(genres(0, 6), log.genres[1]).cast("double").alias("genre_7d"),
        (F.size(new) > 0).cast("double").alias("new_genre_7d"),
    )
    rows = rows.where("before > 0").select("*", asked_at(F.col("as_of"))).cache()
    try:
        for team in TEAMS:
            labels = rows.select("user_id", "as_of", "label_at", F.col(team.name).alias("label"))
            labels.coalesce(1).write.mode("overwrite").parquet(str(out / team.name))
        shares = rows.agg(*(F.round(F.avg(team.name), 3).alias(team.name) for team in TEAMS)).first()
        assert shares is not None
        return {"labels": rows.count(), "positive": shares.asDict()}
    finally:
        rows.unpersist()
