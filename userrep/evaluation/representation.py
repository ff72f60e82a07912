"""What is compared: ways to describe a user at a date by a vector, and what each of them may look at.

How to write one
----------------
A representation is a class without arguments, named in ``representations/catalog.py``::

    class AverageOfLastTen:
        name = "average_of_last_ten"   # of its column in the results; a valid name (ids.py)

        def fit(self, context: Context) -> None:
            ...                        # whatever training it needs, on events before context.plan.until

        def matrix(self, context: Context) -> Floats32:
            ...                        # x_NF, one row for each of context.rows, in their order

An evaluation calls ``fit`` once, then ``matrix``, takes the seconds of each, and fits the same probes to every matrix.
For tasks of new users it calls ``matrix`` again, with *cut* rows: the same users at the same dates,
whose features and history hold the newest events only. Who knows more of a user by its id must not use it there
(``context.is_cut``). What it may look at:

- ``context.rows``: the N rows. ``rows.user_ids[rows.user_N]`` and ``rows.as_of_N`` say whose they are, ``rows.role_N``
  which of them probes are fitted, tuned and tested on, ``rows.features`` are their user features as stored.
- ``context.raw()`` and ``context.layout``: the same features as numbers, laid out as the space's encoder takes them;
  ``context.scaled()``: scaled and clipped by the space's scaler.
- ``context.futures.history``: N x I counts, sparse: the row's user's events with each item *before the row's date*.
  Its columns are ``context.activity.item_ids``, the items of sampled users; an item that no sampled user has met is in
  no column. Folding a user in at a date is a product with this matrix.
- ``context.interactions()``: all users' events before ``plan.until`` as a Spark DataFrame, one row per user_id and
  item_id: num_events, weight. What is trained on it has seen what the space has seen, and no more. ``rows`` before
  ``until`` other than these, a sample of all users': ``context.earlier_features()``.
- ``context.sample``: the same of a bounded number of users and items, as a matrix of counts on the driver, for what is
  not trained in Spark. It is read once: its seconds are those of the fit of the first that asks for it.
- ``context.picked``: N x I, true where the user has picked the item at onboarding before the row's date.
- ``context.seed``: for whatever is drawn.

``als_refitted`` is the one exception: it is fitted at each row's date, on what lies before that.

What it must not do: look at ``context.futures`` beyond ``history``; fit anything on test rows, their labels or later
events; draw without the seed; return anything but finite float32 in N rows. What nothing is known of is zeros. A
representation may have any width; probes standardize it by training rows.

Shapes: N rows, F numbers, I items.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.sparse import csr_array

from userrep.config import Config
from userrep.evaluation.activity import Activity, Futures
from userrep.evaluation.plan import Plan
from userrep.evaluation.rows import Rows
from userrep.evaluation.sample import Sample, read_sample
from userrep.features.build import feature_sets, stored_features
from userrep.features.layout import InputLayout
from userrep.inference.encoder import Encoder
from userrep.model.artifact import Artifact
from userrep.store.tables import Tables
from userrep.tiles.tiles import read_tiles

Floats32 = NDArray[np.float32]


class Representation(Protocol):
    """A way to describe users; the module's docstring says how to write one."""

    @property
    def name(self) -> str:
        """Name its column in the results."""

    def fit(self, context: "Context") -> None:
        """Train whatever ``matrix`` needs, on what lies before ``context.plan.until``."""

    def matrix(self, context: "Context") -> Floats32:
        """Return x_NF: one row for each of ``context.rows``, each from what lies before its own date."""


@dataclass(frozen=True)
class Context:
    """What representations may look at; the module's docstring says what is what.

    ``whole``: of cut rows, the context that representations have been fitted on.
    """

    tables: Tables
    config: Config
    artifact: Artifact
    plan: Plan
    futures: Futures
    seed: int
    whole: "Context | None" = None

    def cut(self, futures: Futures) -> "Context":
        """Return the context of the same rows of which less is known."""
        return replace(self, futures=futures, whole=self)

    @property
    def is_cut(self) -> bool:
        """Say whether of the rows' behaviour but the newest events are to be known."""
        return self.whole is not None

    @property
    def rows(self) -> Rows:
        """The rows to be described."""
        return self.futures.rows

    @property
    def activity(self) -> Activity:
        """What their users did; of it only what lies before a row's date may go into its vector."""
        return self.futures.activity

    @property
    def layout(self) -> InputLayout:
        """The layout of the space's inputs."""
        return self.artifact.layout

    @cached_property
    def encoder(self) -> Encoder:
        """The space's encoder, the one that snapshots are made with."""
        return self.whole.encoder if self.whole else Encoder(self.artifact)

    def raw(self) -> Floats32:
        """Lay the rows' features out as numbers, unscaled: x_NF. Each caller pays for it, as costs are compared."""
        return self.layout.raw(self.rows.features)

    def scaled(self) -> Floats32:
        """Lay the rows out and scale them as the encoder takes them: x_NF."""
        return self.artifact.scaler.apply(self.layout, self.raw())

    @property
    def picked(self) -> csr_array:
        """The onboarding picks of each row's user: N x I."""
        return csr_array(self.activity.picked[self.rows.user_N])

    def interactions(self) -> DataFrame:
        """Read all users' events before ``plan.until``: user_id, item_id, num_events, weight. Cost: one shuffle."""
        tiles = read_tiles(self.tables, start=None, end=self.plan.until)
        return tiles.groupBy("user_id", "item_id").agg(
            F.sum("num_events").alias("num_events"), F.sum("weight").alias("weight")
        )

    @cached_property
    def sample(self) -> Sample:
        """The events before ``plan.until`` of a bounded sample of all users, the rows' users first."""
        return self.whole.sample if self.whole else read_sample(self.interactions(), seed=self.seed)

    def history_of_sample(self) -> csr_array:
        """Return each row's events before its date with the items of ``sample``: N x V. Each caller pays for it."""
        return self.sample.columns_of(self.futures.history, self.activity.item_ids)

    def earlier_features(self, *, max_rows: int, max_dates: int = 8) -> DataFrame:
        """Sample features of all users at the newest dates at or before ``plan.until``, which they don't see past.

        About ``max_rows`` rows, drawn by a hash of user and date. The ledger knows how many there are.
        """
        lineage_id = self.artifact.manifest.lineage_id
        sets = feature_sets(self.tables, lineage_id)
        dates = sorted(day for day in sets if day <= self.plan.until)[-max_dates:]
        share = min(1.0, max_rows / max(1, sum(sets[day].num_users for day in dates)))
        chance = F.pmod(F.xxhash64("user_id", "as_of", F.lit(self.seed)), F.lit(2**40))
        return stored_features(self.tables, self.config, lineage_id, dates).where(chance < int(share * 2**40))
