"""A sample of a snapshot's users with their vectors and features, in the memory of one process.

Shapes: N users, D dimensions.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from userrep.audiences.snapshot_users import SnapshotUsers
from userrep.config import Config
from userrep.errors import UsageError
from userrep.features.ledger import feature_sets, features_table
from userrep.features.spec import FeatureSpec
from userrep.spaces.registry import Space, check_lineage
from userrep.spaces.snapshots import Snapshot
from userrep.store.arrow import combined, one_batch, stacked
from userrep.store.bucket_reader import rows_below
from userrep.store.buckets import buckets_of_share
from userrep.store.tables import Tables
from userrep.store.xxhash import hash64

MOST_USERS = 20_000
_LEAST_USERS = 50
_HELD_OUT = 5  # one user in five is held out
_SEED = 8  # of the hash that holds users out; independent of the bucket hash, which draws the sample

Floats32 = NDArray[np.float32]


@dataclass(frozen=True)
class SampledUsers:
    """Users of a snapshot who have features of the same date. ``limit``: they are in the buckets below it.

    ``features``: the columns of ``user_features``, in the order of ``user_ids``.
    """

    user_ids: pa.Array
    z_ND: Floats32
    features: pa.RecordBatch
    limit: int

    def __len__(self) -> int:
        return len(self.user_ids)

    @cached_property
    def is_held_out_N(self) -> NDArray[np.bool_]:
        """Mask of the users that are held out of all fits: a fifth, by a hash of the id."""
        return np.asarray(hash64(self.user_ids, seed=_SEED) % np.uint64(_HELD_OUT) == 0)


def sample_users(
    tables: Tables, config: Config, space: Space, snapshot: Snapshot, *, most_users: int = MOST_USERS
) -> SampledUsers:
    """Read about ``most_users`` users, or all if the snapshot has fewer. Erased users are left out.

    Cost: the row groups of the snapshot and of the features of its date that have the lowest buckets, without Spark
    below a root; two Spark jobs in a catalog. Memory: the sample, about 3 kB per user with 640 pooled numbers.

    Raises
    ------
    UsageError
        If the configuration has another lineage than the space, the features of the snapshot's date do not exist, or
        fewer than 50 users have both.
    """
    check_lineage(space, config)
    if snapshot.as_of not in feature_sets(tables, space.lineage_id):
        raise UsageError(
            f"explain: no features of {snapshot.as_of}, the date of snapshot {snapshot.snapshot_id}. Build them with "
            f"`userrep run build_user_features --as-of {snapshot.as_of}`, or choose another --as-of."
        )
    share = most_users / max(1, snapshot.num_users)
    vectors, limit = SnapshotUsers(tables, snapshot).sample(share), buckets_of_share(share)
    names = ["user_id", *(name for name, _ in FeatureSpec.of(config).stored_columns())]
    table = features_table(config, space.lineage_id)
    features = rows_below(limit, tables, table, [{"as_of": snapshot.as_of}], names)
    row_N = pc.index_in(vectors["user_id"], value_set=combined(features["user_id"]).cast(pa.string()))
    vectors, features = vectors.filter(row_N.is_valid()), features.take(row_N.drop_null())
    if vectors.num_rows < _LEAST_USERS:
        raise UsageError(
            f"explain: {vectors.num_rows} users of snapshot {snapshot.snapshot_id} have features of its date, fewer "
            f"than {_LEAST_USERS}. Choose an --as-of with more users."
        )
    z_ND = stacked(combined(vectors["embedding"]), len(vectors["embedding"][0]))
    return SampledUsers(combined(vectors["user_id"]), z_ND, one_batch(features), limit)
