"""Tasks of new users: rows truncated as if only the newest events of their users were known.

Probes are fitted on truncated rows of all users and tested on users who are really new. The features of truncated rows
are computed on the driver by the code of the batch stage. Shapes: N rows, U users, M rows of one date, E tiles of rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from userrep.evaluation.futures import Futures
from userrep.evaluation.measure import describe, measure
from userrep.evaluation.metrics import Ints, Mask
from userrep.evaluation.newest_tiles import NO_DAY, NewestTiles, newest_by_row, newest_tiles
from userrep.evaluation.representation import Context, Matrix
from userrep.evaluation.results import Measured
from userrep.evaluation.sampled_rows import NO_ROLE, TEST, Rows, row_of_each
from userrep.evaluation.tasks.task import LeftOut, Task, Truth
from userrep.features.profiles import refresh_profiles
from userrep.features.spec import FeatureSpec
from userrep.features.sums.chunk import PROFILES, Chunk
from userrep.features.sums.item_matrix import VectorFiles, item_parts, vector_files
from userrep.features.sums.pooling import PoolingJob
from userrep.features.sums.shuffled import in_common_schema
from userrep.items.versions import Versions
from userrep.store.arrow import combined, one_batch
from userrep.store.schemas import USER_PROFILES
from userrep.tiles.ledger import read_tiles
from userrep.utc import DAY_US, day_number

_NO_ITEM = "\0"  # not the id of any item


@dataclass(frozen=True)
class TruncatedRows:
    """The data that truncated rows are computed from: the newest tiles and the profiles of their users.

    ``profiles``: one row for each of the U users, with the columns of chunks; nulls for unknown values. ``dated``: the
    rows' dates with the item vectors of each. ``item_parts``: number of parts that items are processed in
    (sums/pooling.py).
    """

    rows: Rows
    spec: FeatureSpec
    newest: NewestTiles
    profiles: pa.Table
    dated: tuple[tuple[date, VectorFiles], ...]
    item_parts: int

    def role_N(self, days: int) -> NDArray[np.int8]:
        """Return the rows' roles, NO_ROLE for test rows of users known for more than ``days`` days."""
        first_day_U = np.minimum(self.newest.first_day_U, self._known_since_U // DAY_US)
        is_old_N = first_day_U[self.rows.user_N] < self.rows.as_of_N.astype(np.int64) - days
        return np.where((self.rows.role_N == TEST) & is_old_N, NO_ROLE, self.rows.role_N).astype(np.int8)

    def features(self, most: int) -> pa.RecordBatch:
        """Compute the rows' features from their ``most`` newest tiles and from unchanged profiles.

        Cost on the driver: that of one Spark task for these rows and tiles. Item vectors are read once per version, or
        once per part and date if items are in several parts. Memory: the vectors of one part and of one date's
        versions.
        """
        parts = []
        for d, (as_of, files) in enumerate(self.dated):
            chunk = self._chunk(np.flatnonzero(self.rows.date_N == d), as_of, most)
            job = PoolingJob(self.spec, ((as_of, files),), ("features",), item_parts=self.item_parts)
            parts += [result.rows for result in job.run([chunk])]
        table = pa.Table.from_batches(parts)
        assert table.num_rows == len(self.rows), f"expected {len(self.rows)} truncated rows, got {table.num_rows}"
        table = table.take(pc.sort_indices(table["user_id"].cast(pa.int64())))  # numbers of rows: see ``_keyed_by``
        user_ids = self.rows.user_ids.take(pa.array(self.rows.user_N))
        return one_batch(table.set_column(table.column_names.index("user_id"), "user_id", user_ids))

    def _chunk(self, row_M: Ints, as_of: date, most: int) -> Chunk:
        """Collect the tiles and profiles of some rows of one date; each row is treated as a user."""
        kept = np.flatnonzero((self.newest.rank_E < most) & np.isin(self.newest.row_E, row_M))
        row_E, user_M = self.newest.row_E[kept], self.rows.user_N[row_M]
        tiles = self.newest.tiles.take(pa.array(kept))
        is_recent_E = tiles.column("day").to_numpy() >= day_number(as_of) - self.spec.longest
        is_known_M = (self._known_since_U[user_M] < day_number(as_of) * DAY_US) | np.isin(row_M, row_E[is_recent_E])
        profiles = self.profiles.take(pa.array(user_M))
        return Chunk(
            tiles=_keyed_by(tiles, row_E), profiles=_keyed_by(_with_stand_in_picks(profiles, is_known_M), row_M)
        )

    @cached_property
    def _known_since_U(self) -> Ints:
        """First registration or pick of each user, in microseconds since 1970; NO_DAY if none."""
        known_since_U = self.profiles.column("registered_at").fill_null(NO_DAY).to_numpy().copy()
        picked_at = combined(self.profiles.column("picked_at"))
        np.minimum.at(known_since_U, pc.list_parent_indices(picked_at).to_numpy(), picked_at.flatten().to_numpy())
        return known_since_U  # type: ignore[no-any-return]


def read_truncated_rows(context: Context, versions: Versions, *, most: int) -> TruncatedRows:
    """Read the data of truncated rows, up to the ``most`` newest tiles of each.

    Cost: one pass with a shuffle over all of the sampled users' tiles, and one pass over the user profiles, which are
    refreshed first. The driver receives at most ``most`` tiles per row.
    """
    tables, config, rows = context.tables, context.config, context.rows
    spec = FeatureSpec.of(config)
    tiles = rows.only_own(read_tiles(tables, start=None, end=rows.dates[-1], ledger=context.ledger))
    candidates = newest_tiles(tiles, rows.dates, most=max(1, most), context=bool(spec.context)).toArrow()
    newest = newest_by_row(candidates, rows, span=spec.span)
    dated = tuple(vector_files(tables, versions, rows.dates).items())
    num_parts = item_parts(tables, config, versions, rows.dates).num_parts
    return TruncatedRows(rows, spec, newest, read_profiles(context), dated, num_parts)


def read_profiles(context: Context) -> pa.Table:
    """Read the profiles of the rows' U users with the columns of chunks; nulls for users without one."""
    tables, rows, profiles = context.tables, context.rows, refresh_profiles(context.tables, context.config)
    table = PROFILES.empty_table()
    if profiles.version is not None:
        sampled = rows.only_own(tables.read(USER_PROFILES, version=profiles.version))
        table = in_common_schema(sampled, "profiles").select(PROFILES.names).toArrow().cast(PROFILES)
    return row_of_each(rows.user_ids, table)


def measure_newcomers(
    tasks: Mapping[int, Task],
    matrices: Mapping[str, Matrix],
    context: Context,
    truth: Truth,
    *,
    versions: Versions,
) -> tuple[list[Measured], dict[str, str]]:
    """Evaluate fitted representations at tasks of new users; return results and reasons for tasks left out.

    ``tasks``: by the number of known events. ``matrices``: by representation.

    Cost per task: features of all rows on the driver, vectors by each representation, and probes.
    """
    measured: list[Measured] = []
    left_out: dict[str, str] = {}
    if not tasks:
        return measured, left_out
    truncated_rows = read_truncated_rows(context, versions, most=max(tasks))
    rows = replace(context.rows, role_N=truncated_rows.role_N(context.plan.longest))
    truth = replace(truth, futures=replace(truth.futures, rows=rows))
    for after, task in tasks.items():
        described = []
        if not isinstance(task.problem(truth, context.seed), LeftOut):
            truncated = truncated_context(context, truncated_rows, after)
            described = [describe(name, matrix, truncated) for name, matrix in matrices.items()]
        results, reasons = measure([task], truth, described, context.config.evaluation)
        measured, left_out = measured + results, left_out | reasons
    return measured, left_out


def truncated_context(context: Context, truncated_rows: TruncatedRows, most: int) -> Context:
    """Return the context of the same rows with only their ``most`` newest tiles."""
    rows = replace(context.rows, features=truncated_rows.features(most))
    history = truncated_rows.newest.history(most, len(rows), context.activity.item_ids)
    return replace(context, futures=Futures(rows, context.activity, history))


def _with_stand_in_picks(profiles: pa.Table, is_known_M: Mask) -> pa.Table:
    """Replace the picks of rows without any other data by one old pick of an item that does not exist.

    Features are computed for known users only, but a user whose attributes alone are known must get features too.
    """
    for name, stand_in in (("pick_items", _NO_ITEM), ("picked_at", 0)):
        position, field = profiles.column_names.index(name), PROFILES.field(name)
        column = pc.if_else(pa.array(is_known_M), profiles.column(name), pa.scalar([stand_in], field.type))
        profiles = profiles.set_column(position, field, column)
    return profiles


def _keyed_by(table: pa.Table, key_M: Ints) -> pa.Table:
    """Replace a table's user columns by numbers, so that each evaluated row is processed as a user."""
    numbers = pa.array(key_M.astype(np.int32))
    keys = {"user_bucket": numbers, "user_id": numbers.cast(pa.string())}
    return pa.table(keys | {name: table.column(name) for name in table.column_names if name not in keys})
