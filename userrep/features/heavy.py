"""Detection of users with a suspiciously large share of all events, such as bots, test accounts and shared tills."""

from datetime import date
from typing import NamedTuple

from pyspark.sql import functions as F

from userrep.config import Config
from userrep.features.build import stored_features
from userrep.store.tables import Tables

LARGE_SHARE = 0.01  # of all events
TIMES_THE_MEAN = 20  # events, relative to the mean per user: in a small log, 1 % of all events is not unusual


class HeavyUsers(NamedTuple):
    """The number of heavy users, and the largest share of the events of the longest window that one user has."""

    num_users: int
    largest_share: float
    window_days: int

    def __str__(self) -> str:
        several = f"{self.num_users} users have {LARGE_SHARE:.0%} or more each, the largest"
        subject = several if self.num_users > 1 else "one user has"
        return f"{subject} {self.largest_share:.1%} of all events of {self.window_days} days"


def heavy_users(tables: Tables, config: Config, lineage_id: str, as_of: date) -> HeavyUsers | None:
    """Find users with at least 1 % of all events and 20 times the mean at an as-of date; None if there are none.

    Window: the longest of ``windows_days``. The result contains no ids, because reports outlive users. Cost: one column
    of the features is read, twice if there are heavy users; only counts are shuffled.
    """
    window_days = config.windows_days[-1]
    num_events = F.col(f"num_events_{window_days}d")
    rows = stored_features(tables, config, lineage_id, [as_of]).select(num_events.alias("n"))
    total, mean, largest = rows.agg(F.sum("n"), F.avg("n"), F.max("n")).first() or (0, 0, 0)
    threshold = max(LARGE_SHARE * (total or 0), TIMES_THE_MEAN * (mean or 0))
    if not total or largest < threshold:
        return None
    return HeavyUsers(rows.where(F.col("n") >= threshold).count(), largest / total, window_days)
