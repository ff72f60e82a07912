"""The map of users: a fixed sample of a snapshot in the plane of its first two principal components.

Shapes: N users, D dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from userrep.audiences.snapshot_users import SnapshotUsers
from userrep.config import Config
from userrep.features.ledger import feature_sets, features_table
from userrep.features.spec import FeatureSpec
from userrep.items.versions import lineage_of
from userrep.spaces.registry import Space
from userrep.spaces.snapshots import Snapshot
from userrep.store.arrow import combined, stacked
from userrep.store.bucket_reader import rows_below
from userrep.store.buckets import buckets_of_share
from userrep.store.tables import Tables

_NUM_USERS = 2_000
# Ranges of event counts by their first numbers.
_RANGES = {0: "0", 1: "1 to 2", 3: "3 to 9", 10: "10 to 29", 30: "30 to 99", 100: "100 to 299", 300: "300 or more"}
UNKNOWN = "not known"


@dataclass(frozen=True)
class Group:
    """Users on the map in the same range of event counts, and their points."""

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class MapFacts:
    """Sampled users of a snapshot in the plane of its first two principal components, without ids.

    ``shares``: share of the variance in each of the two components. ``coloured_by``: name of the number that groups the
    users by ranges. ``groups``: in the order of the ranges.
    """

    snapshot_id: str
    as_of: date
    num_users: int
    shares: tuple[float, float]
    coloured_by: str
    groups: Sequence[Group]


def map_users(tables: Tables, config: Config, space: Space, snapshot: Snapshot) -> MapFacts | None:
    """Project a sample of a snapshot's users onto a plane and group them; None if the sample has fewer than 3 users.

    The sample has about 2,000 users, those in the lowest buckets, so it is the same at every date. Erased users are
    left out. Users are grouped by ranges of their number of events in the longest window. If the features of the date
    do not exist, all users form one group.

    Cost: the row groups of the snapshot's and the features' files up to the last of these users, without Spark below a
    root; two small Spark jobs in a catalog. Driver memory: the sample's vectors and ids.
    """
    share = _NUM_USERS / max(1, snapshot.num_users)
    rows = SnapshotUsers(tables, snapshot).sample(share)
    if rows.num_rows < 3:
        return None
    counted, num_by_user = _num_events(share, tables, config, space, snapshot)
    nums = [num_by_user.get(user_id) for user_id in rows["user_id"].to_pylist()]
    vectors = combined(rows.column("embedding"))
    xy_N2, shares = plane(stacked(vectors, len(vectors[0])).astype(np.float64))
    groups = grouped(xy_N2, [*map(activity_range, nums)])
    return MapFacts(snapshot.snapshot_id, snapshot.as_of, snapshot.num_users, shares, counted, groups)


def _num_events(
    share: float, tables: Tables, config: Config, space: Space, snapshot: Snapshot
) -> tuple[str, Mapping[str, int]]:
    """Return what is counted, and the number by user id."""
    if space.lineage_id != lineage_of(config) or snapshot.as_of not in feature_sets(tables, space.lineage_id):
        return "nothing (the features of this date do not exist)", {}
    longest = FeatureSpec.of(config).longest
    columns = ["user_id", f"num_events_{longest}d"]
    table = features_table(config, space.lineage_id)
    rows = rows_below(buckets_of_share(share), tables, table, [{"as_of": snapshot.as_of}], columns)
    return f"events in {longest} days", dict(zip(*(rows[name].to_pylist() for name in columns), strict=True))


def plane(z_ND: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Project vectors onto their first two principal components; return points and both components' variance shares.

    Both axes are scaled by the same factor, to [-1, 1]. The largest loading of each component is made positive, so that
    the map does not flip between dates.
    """
    centred_ND = z_ND - z_ND.mean(axis=0)
    _, singular_K, components_KD = np.linalg.svd(centred_ND, full_matrices=False)
    axes_2D = np.zeros((2, z_ND.shape[1]))
    axes_2D[: len(components_KD)] = components_KD[:2]
    largest = np.abs(axes_2D).argmax(axis=1)
    axes_2D *= np.where(axes_2D[[0, 1], largest] < 0, -1.0, 1.0)[:, None]
    xy_N2 = centred_ND @ axes_2D.T
    total = max(float((singular_K**2).sum()), 1e-300)
    shares = [*(float(s**2) / total for s in singular_K[:2]), 0.0]
    return xy_N2 / max(float(np.abs(xy_N2).max()), 1e-300), (shares[0], shares[1])


def grouped(xy_N2: NDArray[np.float64], labels: Sequence[str]) -> list[Group]:
    """Group points by label, in the order of the ranges."""
    points: dict[str, list[tuple[float, float]]] = {label: [] for label in [*_RANGES.values(), UNKNOWN]}
    for (x, y), label in zip(xy_N2.tolist(), labels, strict=True):
        points[label].append((round(x, 3), round(y, 3)))
    return [Group(label, own) for label, own in points.items() if own]


def activity_range(num: int | None) -> str:
    """Return the range that contains a number of events."""
    return UNKNOWN if num is None else _RANGES[max(first for first in _RANGES if first <= num)]
