"""Building tiles: which days are new or have changed, how each of them is made, and the commit that makes them count.

Days whose rows lie in plain files, few enough for one task, are made by tasks that read these files themselves
(``direct``); others by Spark (``tile_rows``). Both give the same tiles, to the bit.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from pyspark.sql import functions as F

from userrep.config import Config
from userrep.errors import UserrepError
from userrep.sources.open_log import OpenLog
from userrep.sources.tombstones import Tombstones, read_tombstones
from userrep.spark.session import shuffle_partitions
from userrep.store.buckets import power_of_two
from userrep.store.file_tables import FileTables
from userrep.store.schemas import REJECTED_EVENTS, TILE_DAYS, USER_ITEM_DAYS
from userrep.store.sql import sql_in
from userrep.store.tables import Tables
from userrep.tiles.arrow_tasks import MadeDay, counted_days, direct_days
from userrep.tiles.by_spark import tiles_of
from userrep.tiles.inventory.inventory import Inventory, LogDay, mapping_of
from userrep.tiles.inventory.read_days import has_event_ids, num_rejected_of, read_days
from userrep.tiles.ledger import NO_ROWS, TileLedger, tile_ledger
from userrep.utc import utc_now

_ATTEMPTS = 5  # each on the newest ledger
_ROWS_PER_SLICE = 4_000_000
_FILES_PER_TASK = 8  # on average; below spark.sql.maxConcurrentOutputFileWriters, rows need no second sort


@dataclass(frozen=True)
class TileBuild:
    """What a run of ``build_tiles`` did. ``days`` were made anew; of those in ``same`` the tiles came out as before."""

    days: list[date]
    num_up_to_date: int
    num_tiles: int
    num_events: int
    num_rejected: int
    same: tuple[date, ...] = ()


def build_tiles(tables: Tables, config: Config, inventory: Inventory, *, before: date) -> TileBuild:
    """Build the tiles of all days before ``before`` whose content in the log is new or may have changed.

    Rows are written first, under a revision that no other run has. One commit on ``tile_days`` then makes all days
    visible, if the ledger is still the one that the build started from. If another run has changed the ledger, the
    build removes its rows and starts again from the new ledger. A day whose tiles come out as they were keeps its
    revision: nothing that was made of it is stale. A killed run leaves rows of a revision that the ledger does not
    name. Cost: one read of the files that hold the days; for days that Spark makes, one shuffle, or two.

    Raises
    ------
    RejectedShareError
        If a day has too many malformed rows; nothing of it becomes visible then.
    UsageError
        If a day is too small; likewise.
    """
    for _ in range(_ATTEMPTS):
        build = _attempt(tables, config, inventory, before)
        if build is not None:
            return build
    raise UserrepError("tile_days: other runs keep on building tiles. Run the command again.")


def _attempt(tables: Tables, config: Config, inventory: Inventory, before: date) -> TileBuild | None:
    """Build what is stale by the ledger as it is now; None if another run has changed the ledger meanwhile."""
    since = tables.version(TILE_DAYS)
    events, ledger = config.events, tile_ledger(tables)
    undated = bool(inventory.num_undated) and ledger.undated.fingerprint != inventory.undated_fingerprint
    wanted = {day.day: day for day in inventory.days if day.day < before}
    stale, vanished = _stale_days(wanted, ledger, before, mapping_of(events))
    if not stale and not vanished and not undated:
        return TileBuild([], len(wanted), 0, 0, 0)
    inventory.check_days(events, list(stale))
    newest = max(day.revision for day in (*ledger.days.values(), ledger.undated))
    revision = tables.reserve(USER_ITEM_DAYS, "revision", first=newest + 1)
    days = [wanted[day] for day in sorted(stale)]
    made = _Build(tables, config, inventory.logs, revision, days, read_tombstones(tables)).run(undated=undated)
    inventory = inventory.counted({day: of.counts for day, of in (ledger.days | made).items()})
    inventory.check_days(events, list(stale))
    made |= {day: MadeDay.empty() for day in vanished}
    same = {
        day: old.revision
        for day, of in made.items()
        if (old := ledger.days.get(day)) and (old.content, old.num_rejected) == (of.content, of.num_rejected)
    }
    rows = [_row(day, of, stale.get(day, NO_ROWS), same.get(day, revision)) for day, of in sorted(made.items())]
    if undated:
        nothing = replace(MadeDay.empty(), num_rejected=inventory.num_undated)
        rows.append(_row(None, nothing, inventory.undated_fingerprint, revision))
    if not tables.add(TILE_DAYS, rows, replacing=_own_rows(revision, same), since=since):
        for table in (USER_ITEM_DAYS, REJECTED_EVENTS):
            tables.drop_partitions(table, [{"revision": revision}])
        return None
    num_tiles, num_events, num_rejected = (
        sum(row[name] for row in rows) for name in ("num_tiles", "num_events", "num_rejected")
    )
    return TileBuild(sorted(made), len(wanted) - len(stale), num_tiles, num_events, num_rejected, tuple(sorted(same)))


def _own_rows(revision: int, same: Mapping[date, int]) -> str:
    """Return the condition on the ledger's rows of a build: of its revision, and of days that keep an earlier one."""
    days_of: dict[int, list[date]] = defaultdict(list)
    for day, kept in same.items():
        days_of[kept].append(day)
    kept_days = (f"(revision = {kept} AND {sql_in('event_date', days)})" for kept, days in days_of.items())
    return " OR ".join([f"revision = {revision}", *kept_days])


def _stale_days(
    wanted: dict[date, LogDay], ledger: TileLedger, before: date, mapping: str
) -> tuple[dict[date, str], list[date]]:
    """Return the days to be made, with the fingerprints of their rows, and those that are gone from the log."""
    prints = {day: f"{of.fingerprint}:{mapping}" for day, of in wanted.items()}
    known = {day: of.fingerprint for day, of in ledger.days.items()}
    stale = {day: found for day, found in prints.items() if known.get(day) != found}
    gone = [d for d, of in ledger.days.items() if d < before and d not in wanted and of.fingerprint != NO_ROWS]
    return stale, gone


def _row(day: date | None, made: MadeDay, fingerprint: str, revision: int) -> dict[str, Any]:
    return {
        "event_date": day,
        "revision": revision,
        "fingerprint": fingerprint,
        "content": made.content,
        "num_events": made.num_events,
        "num_tiles": made.num_tiles,
        "num_rejected": made.num_rejected,
        "num_tiles_by_cell": made.num_tiles_by_cell,
        "built_at": utc_now(),
    }


@dataclass(frozen=True)
class _Build:
    """Makes the rows of some days under one revision."""

    tables: Tables
    config: Config
    logs: Sequence[OpenLog]
    revision: int
    days: list[LogDay]
    erased: Tombstones

    def run(self, *, undated: bool) -> dict[date, MadeDay]:
        """Write the days' tiles and rejected rows, and say what each day holds."""
        made: dict[date, MadeDay] = {}
        if isinstance(self.tables, FileTables):
            made, files = direct_days(self.tables, self.logs, self.days, self.revision, self.erased)
            if files:
                self.tables.add_files(USER_ITEM_DAYS, files)
        general = [day for day in self.days if day.day not in made]
        if general:
            self._write_tiles(general)
            has_context = bool(self.config.events.context)
            made |= counted_days(self.tables, [day.day for day in general], self.revision, has_context=has_context)
        counted = {day.day: day.num_rejected for day in self.days if day.num_rejected is not None}
        unclear = [day for day in made if counted.get(day, made[day].num_rejected) != 0]
        if undated or unclear:
            self._write_rejected(unclear, undated=undated)
            found = num_rejected_of(self.tables, self.revision, undated=undated)
            made |= {day: replace(made[day], num_rejected=found.get(day, 0)) for day in unclear}
        return {day: replace(of, num_rejected=of.num_rejected or 0) for day, of in made.items()}

    def _write_tiles(self, days: list[LogDay]) -> None:
        """Let Spark make the tiles of some days."""
        events, dates = self.config.events, [day.day for day in days]
        slices = power_of_two(max(day.expected_rows for day in days) / _ROWS_PER_SLICE)
        checked = read_days(self.tables, self.logs, dates, undated=False)
        tiles = tiles_of(
            self.erased.without(checked.where(F.col("event_date").isin(dates) & F.col("reason").isNull())),
            context=events.context,
            has_event_id=has_event_ids(events),
            slices=slices,
            tasks=max(shuffle_partitions(self.tables.spark), -(-len(days) * slices // _FILES_PER_TASK)),
        )
        self.tables.append(tiles.withColumn("revision", F.lit(self.revision)), USER_ITEM_DAYS)

    def _write_rejected(self, days: list[date], *, undated: bool) -> None:
        checked = read_days(self.tables, self.logs, days, undated=undated)
        in_days = F.col("event_date").isin(days)
        wanted = in_days | F.col("event_date").isNull() if undated else in_days
        rejected = checked.where(F.col("reason").isNotNull() & wanted).select(
            F.coalesce("event_date", F.current_date()).alias("event_date"),
            F.lit(self.revision).alias("revision"),
            "reason",
            F.coalesce("corrupt", F.to_json("raw")).alias("row"),
        )
        self.tables.append(self.erased.without_named(rejected), REJECTED_EVENTS)
