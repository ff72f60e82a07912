"""The rows of an evaluation: sampled users at its as-of dates, with their features.

Shapes: N rows, U users.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep.config import Config
from userrep.errors import UsageError
from userrep.evaluation.dates import EvaluationPlan
from userrep.evaluation.metrics import Ints
from userrep.features.build import stored_features
from userrep.features.ledger import FeatureSet, feature_sets
from userrep.store.arrow import combined, one_batch
from userrep.store.buckets import NUM_BUCKETS, user_bucket
from userrep.store.tables import Tables
from userrep.store.xxhash import hash64

TRAIN, VALID, TEST = 0, 1, 2
NO_ROLE = -1  # the row is not used by a task
ROLES = {"train": TRAIN, "valid": VALID, "test": TEST}
_DRAWS = 2**40  # a user's draw is a hash below this number
_VALID_EVERY = 5  # one in five users is a validation user


@dataclass(frozen=True)
class Rows:
    """N rows (user, as-of date), ordered by user id and date. A user has a row at every date at which it is known.

    ``user_ids`` are distinct and ascend; ``user_N`` and ``date_N`` are indices into ``user_ids`` and ``dates``.
    ``role_N``: TRAIN or VALID at training dates, by user; TEST at test dates. A task may assign other roles, and
    NO_ROLE to rows that it does not use. ``features``: the rows of ``user_features``, all columns. ``seed``, ``limit``:
    users whose draw for this seed is at most ``limit`` are sampled.
    """

    user_ids: pa.StringArray
    dates: tuple[date, ...]
    user_N: Ints
    date_N: Ints
    role_N: NDArray[np.int8]
    features: pa.RecordBatch
    seed: int = 0
    limit: int = _DRAWS

    def __len__(self) -> int:
        return len(self.user_N)

    @cached_property
    def as_of_N(self) -> NDArray[np.datetime64]:
        """As-of date of each row."""
        return np.array(self.dates, "datetime64[D]")[self.date_N]

    def only_own(self, frame: DataFrame) -> DataFrame:
        """Keep the rows of users with an evaluated row. Cost: a filter by draw, and a broadcast of the users' ids.

        The filter by draw keeps users who are no longer known at the dates; in an old log, these are most users.
        """
        return where_in(frame.where(draw(self.seed) <= F.lit(self.limit)), "user_id", self.user_ids)


def read_rows(
    tables: Tables, config: Config, lineage_id: str, plan: EvaluationPlan, *, max_rows: int, seed: int
) -> Rows:
    """Sample users by a hash of their id, and read their features at the plan's dates, which must be built.

    The users are those of ``common_features``. The filter runs in Spark in one pass over the features. At most
    ``max_rows`` rows reach the driver, as Arrow. Driver memory: a small multiple of 4 bytes per row and input.

    Raises
    ------
    UsageError
        If no sampled user is known at one of the dates.
    """
    sets = feature_sets(tables, lineage_id, sampled=True)
    features, total = common_features(tables, config, lineage_id, [sets[day] for day in plan.dates])
    max_draw = _DRAWS if total <= max_rows else int(_DRAWS * max_rows / total)
    drawn = features.withColumn("draw", draw(seed)).where(F.col("draw") < max_draw).toArrow()
    kept, limit = _at_most(drawn, max_rows)
    return rows_of(kept.drop_columns(["draw"]), plan, seed=seed, limit=limit)


def common_features(
    tables: Tables, config: Config, lineage_id: str, sets: Sequence[FeatureSet]
) -> tuple[DataFrame, float]:
    """Read the features of some dates, of the users that were built at all of them; return also their expected number.

    These are all users, unless a date was only trained on, on a sample of them.
    """
    num_buckets = min((built.num_buckets for built in sets), default=NUM_BUCKETS)
    features = stored_features(tables, config, lineage_id, [built.as_of for built in sets])
    if num_buckets < NUM_BUCKETS:
        features = features.where(user_bucket() < num_buckets)
    return features, sum(built.num_users * num_buckets / built.num_buckets for built in sets)


def num_by_role(role_N: NDArray[np.int8]) -> dict[str, int]:
    """Count rows, pairs or other examples by the name of their role."""
    return {name: int((role_N == role).sum()) for name, role in ROLES.items()}


def draw(seed: int) -> Column:
    """Return a user's draw: a hash of ``user_id`` and the seed, in ``[0, 2^40)``."""
    return F.pmod(F.xxhash64("user_id", F.lit(seed)), F.lit(_DRAWS))


def where_in(frame: DataFrame, column: str, ids: pa.StringArray) -> DataFrame:
    """Keep the rows whose ``column`` is one of ``ids``, by a broadcast join."""
    keys = frame.sparkSession.createDataFrame(pa.table({column: ids}))
    return frame.join(F.broadcast(keys), on=column, how="left_semi")


def rows_of(features: pa.Table, plan: EvaluationPlan, *, seed: int, limit: int = _DRAWS) -> Rows:
    """Sort rows of user features and assign roles.

    Raises
    ------
    UsageError
        If one of the plan's dates has no row.
    """
    empty = set(plan.dates) - set(features.column("as_of").unique().to_pylist())
    if empty:
        raise UsageError(
            f"evaluate: no sampled user is known at {', '.join(map(str, sorted(empty)))}. "
            "Raise evaluation.max_rows, or check the log of the preceding days."
        )
    batch = one_batch(features.sort_by([("user_id", "ascending"), ("as_of", "ascending")]))
    users = batch.column("user_id").cast(pa.string())
    user_ids = users.unique()
    user_N, date_N = indices_in(users, user_ids), indices_in(batch.column("as_of"), pa.array(plan.dates, pa.date32()))
    is_valid_U = hash64(user_ids, seed=seed) % _VALID_EVERY == 0
    role_N = np.where(date_N >= len(plan.train), TEST, np.where(is_valid_U[user_N], VALID, TRAIN))
    return Rows(user_ids, plan.dates, user_N, date_N, role_N.astype(np.int8), batch, seed, limit)


def _at_most(drawn: pa.Table, max_rows: int) -> tuple[pa.Table, int]:
    """Drop the users with the largest draws until at most ``max_rows`` rows are left; return the draw limit."""
    draw_N = drawn.column("draw").to_numpy()
    if len(draw_N) <= max_rows:
        return drawn, int(draw_N.max(initial=0))
    limit = int(np.partition(draw_N, max_rows)[max_rows]) - 1  # a user whose rows do not all fit is dropped
    return drawn.filter(pa.array(draw_N <= limit)), limit


def indices_in(values: pa.Array, among: pa.Array) -> Ints:
    """Return the index of each value in ``among``, -1 if absent."""
    indices = pc.index_in(values, value_set=among).fill_null(-1)
    return indices.to_numpy(zero_copy_only=False).astype(np.int64)  # type: ignore[no-any-return]


def row_of_each(user_ids: pa.StringArray, table: pa.Table) -> pa.Table:
    """Return each user's row of a table with a column ``user_id``; nulls for users without one."""
    return table.take(pc.index_in(user_ids, value_set=combined(table["user_id"]).cast(pa.string())))
