"""Users with so large a part of all events that somebody should look at them: bots, test accounts, shared tills."""

from datetime import date
from typing import NamedTuple

from pyspark.sql import functions as F

from userrep.config import Config
from userrep.features.build import stored_features
from userrep.store.tables import Tables

LARGE_SHARE = 0.01  # of all events
TIMES_THE_MEAN = 20  # and so many times what users have on average: in a small log 1 % is nothing


class HeavyUsers(NamedTuple):
    """How many users have a large part each of the events of the longest window, and the largest part that one has."""

    num_users: int
    largest_share: float
    window_days: int

    def __str__(self) -> str:
        who = f"{self.num_users} users have" if self.num_users > 1 else "one user has"
        each = f" {LARGE_SHARE:.0%} each or more, one of them" if self.num_users > 1 else ""
        return f"{who}{each} {self.largest_share:.1%} of all events of {self.window_days} days"


def heavy_users(tables: Tables, config: Config, lineage_id: str, as_of: date) -> HeavyUsers | None:
    """Look for users with 1 % of all events and 20 times the mean, by the features of an as-of date; None: nobody.

    Window: the longest of ``windows_days``. No ids: reports outlive users. Cost: one column of the features is read,
    twice where somebody is heavy; no shuffle but of counts.
    """
    window_days = config.windows_days[-1]
    num_events = F.col(f"num_events_{window_days}d")
    rows = stored_features(tables, config, lineage_id, [as_of]).select(num_events.alias("n"))
    total, mean, most = rows.agg(F.sum("n"), F.avg("n"), F.max("n")).first() or (0, 0, 0)
    least = max(LARGE_SHARE * (total or 0), TIMES_THE_MEAN * (mean or 0))
    if not total or most < least:
        return None
    return HeavyUsers(rows.where(F.col("n") >= least).count(), most / total, window_days)
