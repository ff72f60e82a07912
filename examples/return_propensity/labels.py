"""Labels of the example: whether a user has an event in the days after an as-of date."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.store.tables import Tables
from userrep.tiles.ledger import read_tiles

HORIZON_DAYS = 7  # after the as-of date, that a label covers
NUM_DATES = 4  # largest number of as-of dates of training labels, and again of test labels


@dataclass(frozen=True)
class LabelDates:
    """As-of dates of training and test labels; each training label ends before the first test label begins."""

    train: list[date]
    test: list[date]

    @property
    def all(self) -> list[date]:
        return sorted([*self.train, *self.test])


def label_dates(
    published: Collection[date],
    *,
    until: date,
    as_of: date,
    horizon_days: int = HORIZON_DAYS,
    num_dates: int = NUM_DATES,
) -> LabelDates:
    """Choose published as-of dates ``horizon_days`` apart, from ``until`` on, the end of the space's training data.

    Earlier dates are in-sample: the encoder has seen the events after them. All labels end by ``as_of``. The later half
    of the dates is for the test, and each half keeps at most its ``num_dates`` latest dates. Both lists are empty if
    there are not enough dates.
    """
    step = timedelta(days=horizon_days)
    grid = [day for k in range((as_of - until) // step) if (day := until + k * step) in published]
    num_test = min(num_dates, len(grid) // 2)
    train, test = grid[: len(grid) - num_test][-num_dates:], grid[len(grid) - num_test :]
    return LabelDates(train, test) if test else LabelDates([], [])


def return_labels(
    tables: Tables, users: DataFrame, dates: LabelDates, *, publish_delay: timedelta, horizon_days: int = HORIZON_DAYS
) -> DataFrame:
    """Label each user known at an as-of date: 1 if the user has an event in the following days, else 0.

    Parameters
    ----------
    users : one row per as_of and user_id.

    Returns
    -------
    One row per row of ``users``: user_id, label_date, label_at (as-of date + publish delay), label (1.0: an event at or
    after label_at and before label_date + horizon_days), split (train | test). Cost: one shuffle by user.
    """
    labels = users.select(
        "user_id",
        F.col("as_of").alias("label_date"),
        (F.col("as_of").cast("timestamp") + F.lit(publish_delay)).alias("label_at"),
        F.when(F.col("as_of").isin(dates.test), "test").otherwise("train").alias("split"),
    )
    tiles = read_tiles(tables, start=dates.all[0], end=dates.all[-1] + timedelta(days=horizon_days))
    active = tiles.groupBy("user_id", "event_date").agg(F.max("last_event_at").alias("last_event_at"))
    label_events = active.select(
        "user_id",
        "last_event_at",
        F.explode(F.array(*(F.date_sub("event_date", k) for k in range(horizon_days)))).alias("label_date"),
    ).where(F.col("label_date").isin(dates.all))
    last_events = label_events.groupBy("user_id", "label_date").agg(F.max("last_event_at").alias("last_event_at"))
    joined = labels.join(last_events, on=["user_id", "label_date"], how="left")
    has_event = F.coalesce(F.col("last_event_at") >= F.col("label_at"), F.lit(False))
    return joined.select("user_id", "label_date", "label_at", "split", has_event.cast("double").alias("label"))
