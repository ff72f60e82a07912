"""Interface of user representations: what to implement, and which data a representation may use.

How to write one
----------------
A representation is a function, listed by name in ``representations/catalog.py``. It trains what it needs and returns
the function that computes vectors::

    def fit_average_of_last_ten(context: Context) -> Matrix:
        ...                            # any training, on events before context.plan.until

        def matrix(context: Context) -> Floats32:
            ...                        # x_NF: one row for each of context.rows, in the same order

        return matrix

An evaluation calls both functions once, times them, and fits the same probes to every matrix. For tasks about new users
it calls ``matrix`` again with *truncated* rows: the same users and dates, but features and history contain only the
newest events. A representation must not use anything else it knows about those users (check ``context.is_truncated``).

What a representation may use
-----------------------------
- ``context.rows``: the N rows. ``rows.user_ids[rows.user_N]`` and ``rows.as_of_N`` identify them, ``rows.role_N`` marks
  the rows that probes are fitted, tuned and tested on, and ``rows.features`` are the stored user features.
- ``context.raw()`` and ``context.layout``: the same features as numbers, laid out as the inputs of the space's encoder.
  ``context.scaled()``: scaled and clipped by the space's scaler.
- ``context.futures.history``: N x I sparse counts of the user's events with each item *before the row's date*. The
  columns are ``context.activity.item_ids``, the items of the sampled users; other items have no column. To fold a user
  in at a date, multiply by this matrix.
- ``context.interactions()``: events of all users before ``plan.until`` as a Spark DataFrame, one row per user_id and
  item_id, with num_events and weight. A model trained on it has seen exactly the events that the space has seen.
- ``context.earlier_rows``: a sample of all users' scaled features at dates up to ``until``, on the driver. It is read
  once; the first fit that uses it bears the cost.
- ``context.seed``: the seed for all random draws.

``als_refitted`` is the one exception: it is fitted at each row's date, on the events before that date.

What a representation must not do: read ``context.futures`` beyond ``history``; fit anything on test rows, their labels
or later events; draw random numbers without the seed; return anything but N rows of finite float32. A user without any
data is a row of zeros. The width is free: probes standardize each column over the training rows.

Shapes: N rows, B rows of a sample, F numbers, I items.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import Config
from userrep.evaluation.dates import EvaluationPlan
from userrep.evaluation.futures import Activity, Futures
from userrep.evaluation.metrics import Floats32
from userrep.evaluation.sampled_rows import Rows, common_features
from userrep.features.layout import InputLayout
from userrep.features.ledger import feature_sets
from userrep.model.artifact import Artifact
from userrep.store.arrow import one_batch
from userrep.store.tables import Tables
from userrep.tiles.ledger import TileLedger, read_tiles

_EARLIER_ROWS, _EARLIER_DATES = 20_000, 8  # approximate rows of the sample of features, and its dates


@dataclass(frozen=True, eq=False)
class Context:
    """Data that representations may use; see the module docstring. Two contexts are never equal.

    ``ledger``: the tile ledger, read once for the whole evaluation.
    """

    tables: Tables
    config: Config
    artifact: Artifact
    plan: EvaluationPlan
    ledger: TileLedger
    futures: Futures
    seed: int

    @property
    def is_truncated(self) -> bool:
        """Whether the rows show only the newest events of each user."""
        return self.futures.known is not None

    @property
    def rows(self) -> Rows:
        """The rows to describe."""
        return self.futures.rows

    @property
    def activity(self) -> Activity:
        """Events of the sampled users; a vector may use only events before the row's date."""
        return self.futures.activity

    @property
    def layout(self) -> InputLayout:
        """The layout of the space's inputs."""
        return self.artifact.layout

    def raw(self) -> Floats32:
        """Lay the rows' features out as unscaled numbers: x_NF.

        Not cached, so that the timing of each representation includes this step.
        """
        return self.layout.raw(self.rows.features)

    def scaled(self) -> Floats32:
        """Lay the rows' features out and scale them as inputs of the encoder: x_NF."""
        return self.artifact.scaler.apply(self.layout, self.raw())

    def interactions(self) -> DataFrame:
        """Read all users' events before ``plan.until``: user_id, item_id, num_events, weight. Cost: one shuffle."""
        tiles = read_tiles(self.tables, start=None, end=self.plan.until, ledger=self.ledger)
        return tiles.groupBy("user_id", "item_id").agg(
            F.sum("num_events").alias("num_events"), F.sum("weight").alias("weight")
        )

    def earlier_features(self, *, max_rows: int = _EARLIER_ROWS) -> DataFrame:
        """Sample the features of the newest eight dates up to ``plan.until``.

        Returns about ``max_rows`` rows, chosen by a hash of user and date. The share is computed from the row counts in
        the ledger. If dates were built for a sample of the users, rows of all dates are those of its users.
        """
        lineage_id = self.artifact.manifest.lineage_id
        sets = feature_sets(self.tables, lineage_id, sampled=True)
        dates = sorted(day for day in sets if day <= self.plan.until)[-_EARLIER_DATES:]
        features, num_rows = common_features(self.tables, self.config, lineage_id, [sets[day] for day in dates])
        share = min(1.0, max_rows / max(1, num_rows))
        draw = F.pmod(F.xxhash64("user_id", "as_of", F.lit(self.seed)), F.lit(2**40))
        return features.where(draw < int(share * 2**40))

    @cached_property
    def earlier_rows(self) -> Floats32:
        """About 20,000 scaled rows of ``earlier_features``, ordered by user and date: x_BF."""
        rows = self.earlier_features().toArrow().sort_by([("user_id", "ascending"), ("as_of", "ascending")])
        return self.artifact.scaler.apply(self.layout, self.layout.raw(one_batch(rows)))


Matrix = Callable[[Context], Floats32]  # returns x_NF: a vector for each of the rows, from data before the row's date
Fit = Callable[[Context], Matrix]
