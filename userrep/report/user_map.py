"""A map of users: a fixed sample of a snapshot in the plane of its first two principal components.

Shapes: N users, D dimensions.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.config import Config
from userrep.features.build import feature_sets, features_table
from userrep.features.spec import FeatureSpec
from userrep.items.versions import lineage_of
from userrep.report.facts import Group, MapFacts
from userrep.spaces.registry import Space
from userrep.spaces.snapshots import Snapshot
from userrep.store.arrow import combined, stacked
from userrep.store.buckets import NUM_BUCKETS, user_bucket
from userrep.store.file_tables import FileTables
from userrep.store.hashing import bucket_of
from userrep.store.schemas import USER_EMBEDDINGS, TableSchema
from userrep.store.sql import sql_key
from userrep.store.storage import open_parquet
from userrep.store.tables import Tables, matches

MOST_USERS = 2_000
_MOST_GROUPS = 6  # with a colour of their own
_LEAST_USERS = 10  # of a group that is named: rarer values would tell of single users
_ENDS = (0, 1, 3, 10, 30, 100, 300)  # of ranges of numbers of events
_OTHER, _UNKNOWN = "other", "not known"


def map_users(tables: Tables, config: Config, space: Space, snapshot: Snapshot) -> MapFacts | None:
    """Draw a snapshot's users; None if fewer than three of them are in the sample.

    The users of the lowest buckets are taken, which are the same at every date. Groups are the values of the first of
    ``users.attributes``, without it ranges of the number of events in the longest window; where the features of the
    date are not there, all are one group. Cost: of each file of the snapshot and of the date's features, the row groups
    up to the last of these users, and no Spark where the tables have files; in a catalog two small Spark jobs. Driver
    memory: some 2,000 vectors and ids.
    """
    limit = math.ceil(NUM_BUCKETS * min(1.0, 1.2 * MOST_USERS / max(1, snapshot.num_users)))
    rows = _rows_below(limit, tables, USER_EMBEDDINGS, snapshot.key, ["user_bucket", "user_id", "embedding"])
    rows = rows.sort_by([("user_bucket", "ascending"), ("user_id", "ascending")]).slice(0, MOST_USERS)
    if rows.num_rows < 3:
        return None
    spec = FeatureSpec.of(config)
    is_ordered = not spec.attributes
    texts, by = [None] * rows.num_rows, "nothing: the features of the date are not there"
    if space.lineage_id == lineage_of(config) and snapshot.as_of in feature_sets(tables, space.lineage_id):
        column = f"attribute_{spec.attributes[0]}" if spec.attributes else f"num_events_{spec.longest}d"
        by = spec.attributes[0] if spec.attributes else f"events in {spec.longest} days"
        features = features_table(config, space.lineage_id)
        found = _rows_below(limit, tables, features, {"as_of": snapshot.as_of}, ["user_id", column])
        text_by_user = dict(zip(found["user_id"].to_pylist(), found[column].cast(pa.string()).to_pylist(), strict=True))
        texts = [text_by_user.get(user_id) for user_id in rows["user_id"].to_pylist()]
    vectors = combined(rows.column("embedding"))
    xy_N2, shares = plane(stacked(vectors, len(vectors[0])).astype(np.float64))
    return MapFacts(
        snapshot_id=snapshot.snapshot_id,
        as_of=snapshot.as_of,
        num_users=snapshot.num_users,
        shares=shares,
        coloured_by=by,
        is_ordered=is_ordered,
        groups=grouped(xy_N2, labelled(texts, is_ordered=is_ordered), is_ordered=is_ordered),
    )


def plane(z_ND: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Project onto the first two principal components, scaled to [-1, 1] together; and their shares of the variance.

    Signs are chosen so that the largest loading of each component is positive: the map does not flip between dates.
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


def grouped(xy_N2: NDArray[np.float64], labels: Sequence[str], *, is_ordered: bool) -> list[Group]:
    """Put points of the same label together, the largest group first, or in the order of ranges.

    Labels of few users, and those past the sixth, become ``other``.
    """
    counts = Counter(labels)
    if is_ordered:
        named = [label for label in _ranges() if counts[label]] + [_UNKNOWN] * bool(counts[_UNKNOWN])
    else:
        known = [label for label, num in counts.most_common() if num >= _LEAST_USERS and label != _UNKNOWN]
        named = known[:_MOST_GROUPS]
    points: dict[str, list[tuple[float, float]]] = {label: [] for label in named}
    for (x, y), label in zip(xy_N2.tolist(), labels, strict=True):
        kept = label if label in points else _UNKNOWN if label == _UNKNOWN else _OTHER
        points.setdefault(kept, []).append((round(x, 3), round(y, 3)))
    rest = [label for label in (_OTHER, _UNKNOWN) if label in points and label not in named]
    return [Group(label, points[label]) for label in [*named, *rest]]


def _rows_below(
    limit: int, tables: Tables, table: TableSchema, key: Mapping[str, Any], columns: Sequence[str]
) -> pa.Table:
    """Read the rows of a partition whose users lie in the buckets below ``limit``."""
    if not isinstance(tables, FileTables):
        return tables.read(table).where(sql_key(key)).where(user_bucket() < limit).select(*columns).toArrow()
    found = [pa.table({name: pa.nulls(0) for name in columns})]
    for file in tables.files(table, matches([key])):
        for rows in open_parquet(f"{tables.uri(table)}/{file.path}").iter_batches(columns=columns):
            bucket_N = bucket_of(rows.column("user_id"))
            found.append(pa.Table.from_batches([rows.filter(pa.array(bucket_N < limit))]))
            if (bucket_N >= limit).any():  # a file is in the order of buckets
                break
    return pa.concat_tables(found, promote_options="permissive")


def labelled(texts: Sequence[str | None], *, is_ordered: bool) -> list[str]:
    """Name each user's group: its value, or the range that its number lies in."""
    if not is_ordered:
        return [_UNKNOWN if text is None else text for text in texts]
    ranges = _ranges()
    places = np.searchsorted(_ENDS, [-1 if text is None else int(text) for text in texts], "right") - 1
    return [_UNKNOWN if text is None else ranges[place] for text, place in zip(texts, places, strict=True)]


def _ranges() -> list[str]:
    pairs = zip(_ENDS, [*(end - 1 for end in _ENDS[1:]), None], strict=True)
    return [f"{first:,} or more" if last is None else str(first) if first == last else f"{first} to {last}"
            for first, last in pairs]  # fmt: skip
