"""New users: rows as if of their users' behaviour only the newest events were known, described and judged as such.

Rows of all users are cut so, for probes to be fitted on; tested are those of users who are new indeed. The features of
cut rows are made by the batch's own code, here on the driver. Shapes: N rows, U users.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.evaluation.activity import CutFutures
from userrep.evaluation.measure import Map, Report, described_by, measure
from userrep.evaluation.newest import NO_DAY, Newest, newest_of, newest_tiles
from userrep.evaluation.representation import Context, Representation
from userrep.evaluation.results import Measured
from userrep.evaluation.rows import NO_ROLE, TEST, Ints, Rows, only_sampled, places
from userrep.evaluation.tasks.newcomers import NewUsers
from userrep.evaluation.tasks.task import LeftOut, Truth
from userrep.features.sides import refresh_profiles
from userrep.features.spec import FeatureSpec
from userrep.features.sums.chunk import PROFILES, Chunk
from userrep.features.sums.item_files import dated_vectors, item_parts
from userrep.features.sums.item_matrix import VectorFiles
from userrep.features.sums.pooling import PoolingJob
from userrep.features.sums.shuffled import of_kind
from userrep.items.versions import Versions
from userrep.store.arrow import combined
from userrep.store.schemas import USER_PROFILES
from userrep.tiles.tiles import read_tiles
from userrep.utc import DAY_US, day_number

_NO_ITEM = "\0"  # an item that there is none of


@dataclass(frozen=True)
class Cutter:
    """What rows can be cut from: their newest tiles, and what is known of their users besides.

    ``profiles``: one row for each of the U users, as chunks have them, nulls where nothing is known. ``dated``: the
    rows' dates with the item vectors of each. ``item_parts``: in how many parts items are taken (sums/pooling.py).
    """

    rows: Rows
    spec: FeatureSpec
    newest: Newest
    profiles: pa.Table
    dated: tuple[tuple[date, VectorFiles], ...]
    item_parts: int

    def role_N(self, days: int) -> NDArray[np.int8]:
        """Return the rows' roles, but none for a test row whose user was there more than ``days`` days before."""
        first_day_U = np.minimum(self.newest.first_day_U, self._met_at_U // DAY_US)
        last_day_N = np.array([day_number(day) for day in self.rows.dates])[self.rows.date_N] - days
        is_old_N = first_day_U[self.rows.user_N] < last_day_N
        return np.where((self.rows.role_N == TEST) & is_old_N, NO_ROLE, self.rows.role_N).astype(np.int8)

    def features(self, most: int) -> pa.RecordBatch:
        """Make the rows' features of their ``most`` newest tiles, and of profiles as they are.

        Cost: of the driver, as a task's for these rows and tiles; the item vectors are read once for each version, in
        parts where they are in several, then for each date. Memory: those of a part and of a date's versions.
        """
        parts, order = [], []
        for d, (as_of, files) in enumerate(self.dated):
            mine = np.flatnonzero(self.rows.date_N == d)
            job = PoolingJob(self.spec, ((as_of, files),), ("features",), item_parts=self.item_parts)
            parts += [made.rows for made in job.alone(self._chunk(mine, as_of, most))]
            order.append(mine)
        made = pa.Table.from_batches(parts)
        assert made.num_rows == len(self.rows), f"{made.num_rows} cut rows, wanted {len(self.rows)}"
        made = made.take(pa.array(np.argsort(np.concatenate(order))))
        columns = {name: combined(made.column(name)) for name in made.column_names}
        columns["user_id"] = self.rows.user_ids.take(pa.array(self.rows.user_N))
        return pa.RecordBatch.from_pydict(columns)

    def _chunk(self, mine: Ints, as_of: date, most: int) -> Chunk:
        """Bring the tiles and profiles of some rows, all of one date, together; each row counts as a user."""
        inside = np.flatnonzero((self.newest.place_E < most) & np.isin(self.newest.row_E, mine))
        row_E, user_M = self.newest.row_E[inside], self.rows.user_N[mine]
        tiles = self.newest.tiles.take(pa.array(self.newest.tile_E[inside]))
        is_recent_E = tiles.column("day").to_numpy() >= day_number(as_of) - self.spec.longest
        is_known_M = (self._met_at_U[user_M] < day_number(as_of) * DAY_US) | np.isin(mine, row_E[is_recent_E])
        profiles = self.profiles.take(pa.array(user_M))
        return Chunk.of(
            tiles=_of_users(tiles, row_E),
            profiles=_of_users(_known(profiles, is_known_M), mine),
        )

    @cached_property
    def _met_at_U(self) -> Ints:
        """Return when each user registered or picked something first, in microseconds since 1970; NO_DAY for never."""
        met_at_U = self.profiles.column("registered_at").fill_null(NO_DAY).to_numpy().copy()
        picked_at = combined(self.profiles.column("picked_at"))
        lengths = picked_at.value_lengths().fill_null(0).to_numpy()
        np.minimum.at(met_at_U, np.repeat(np.arange(len(lengths)), lengths), picked_at.flatten().to_numpy())
        return met_at_U  # type: ignore[no-any-return]


def read_cutter(context: Context, versions: Versions, *, most: int) -> Cutter:
    """Read what cut rows are made of, as far as the ``most`` newest tiles of each.

    Cost: a pass over the sampled users' tiles of all days, with a shuffle, and one over the users' profiles, which are
    brought up to date. What reaches the driver: ``most`` tiles at most for each row, and as many for each user.
    """
    tables, config, rows = context.tables, context.config, context.rows
    spec = FeatureSpec.of(config)
    tiles = only_sampled(read_tiles(tables, start=None, end=rows.dates[-1]), rows, seed=context.seed)
    found = newest_tiles(tiles, rows.dates, most=max(1, most), context=bool(spec.context)).toArrow()
    newest = newest_of(found, rows, span=spec.span, most=most)
    dated = dated_vectors(tables, config, versions, rows.dates)
    num_parts = item_parts(tables, config, versions, rows.dates).num_parts
    return Cutter(rows, spec, newest, read_profiles(context), dated, num_parts)


def read_profiles(context: Context) -> pa.Table:
    """Read the profiles of the rows' U users, as chunks have them; nulls for users without one."""
    tables, rows, profiles = context.tables, context.rows, refresh_profiles(context.tables, context.config)
    found = PROFILES.empty_table()
    if profiles.version is not None:
        mine = only_sampled(tables.read(USER_PROFILES, version=profiles.version), rows, seed=context.seed)
        found = of_kind(mine, "profiles").select(PROFILES.names).toArrow().cast(PROFILES)
    place_U = places(rows.user_ids, combined(found.column("user_id")))
    return found.take(pa.array(place_U, mask=place_U < 0))


def measure_newcomers(
    tasks: Sequence[NewUsers],
    representations: Sequence[Representation],
    context: Context,
    truth: Truth,
    *,
    versions: Versions,
    report: Report,
    each: Map = map,
) -> tuple[list[Measured], dict[str, str]]:
    """Judge representations, which are fitted, at tasks of new users; return what was measured and what is left out.

    Cost: for each task, features of all rows on the driver, their vectors by each representation, and probes. ``each``:
    as ``measure`` has it.
    """
    measured: list[Measured] = []
    left_out: dict[str, str] = {}
    if not tasks:
        return measured, left_out
    cutter = read_cutter(context, versions, most=max(task.after for task in tasks))
    for task in tasks:
        rows = replace(context.rows, role_N=cutter.role_N(task.days))
        cut_truth, described = replace(truth, futures=replace(truth.futures, rows=rows)), []
        if not isinstance(task.problem(cut_truth, context.seed), LeftOut):
            cut = cut_context(context, cutter, task.after)
            described = [described_by(one, cut, fit_seconds=0) for one in representations]
        found, reasons = measure([task], cut_truth, described, context.config, report, each=each)
        measured, left_out = measured + found, left_out | reasons
    return measured, left_out


def cut_context(context: Context, cutter: Cutter, most: int) -> Context:
    """Return the context of the same rows as if only their ``most`` newest tiles were known."""
    rows = replace(context.rows, features=cutter.features(most))
    known = cutter.newest.history(most, len(rows), context.activity.item_ids)
    return context.cut(CutFutures(rows, context.activity, known))


def _known(profiles: pa.Table, is_known_M: NDArray[np.bool_]) -> pa.Table:
    """Let rows of whom nothing else is known have picked no item, long ago.

    Features are made of known users only, and so is a user that has come with its attributes and nothing more.
    """
    index = pa.array(np.where(is_known_M, np.arange(len(is_known_M)), len(is_known_M)))
    for name, stand_in in (("pick_items", _NO_ITEM), ("picked_at", 0)):
        place, field = profiles.column_names.index(name), PROFILES.field(name)
        column = pa.concat_arrays([combined(profiles.column(name)), pa.array([[stand_in]], field.type)])
        profiles = profiles.set_column(place, field, column.take(index))
    return profiles


def _of_users(table: pa.Table, number_M: Ints) -> pa.Table:
    """Say of each row of a table whose it is, by a number; they come out in the order of these."""
    numbers = pa.array(number_M.astype(np.int32))
    keys = {"user_bucket": numbers, "user_id": numbers.cast(pa.string())}
    return pa.table(keys | {name: table.column(name) for name in table.column_names if name not in keys})
