"""The build of activity tiles: finds new and changed days of the log, builds their tiles and commits them together.

A day is built without Spark if tasks can read its files themselves and one task can hold its rows (``arrow_tasks``),
otherwise by Spark SQL (``by_spark``). Both engines give the same tiles, to the bit.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
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
from userrep.store.sql import sql_any
from userrep.store.tables import Tables
from userrep.tiles.arrow_tasks import NO_TILES, BuiltDay, arrow_days, counted_days
from userrep.tiles.by_spark import tiles_of
from userrep.tiles.inventory.csv_headers import check_headers
from userrep.tiles.inventory.day_files import files_of_days, num_rejected_of, read_days
from userrep.tiles.inventory.inventory import Inventory, mapping_of
from userrep.tiles.inventory.log_days import LogDay
from userrep.tiles.ledger import NO_ROWS, TileLedger, revision_keys, tile_ledger
from userrep.utc import utc_now

_ATTEMPTS = 5  # each starts from the current ledger
_ROWS_PER_SLICE = 4_000_000
_FILES_PER_TASK = 8  # on average; up to spark.sql.maxConcurrentOutputFileWriters, Spark sorts rows only once


@dataclass(frozen=True)
class TileBuild:
    """The result of ``build_tiles``. ``days`` were built, and the counts are their totals.

    ``num_up_to_date``: days of the log that did not need a build. ``vanished``: those of ``days`` that are no longer in
    the log, so that their tiles no longer count.
    """

    days: list[date]
    num_up_to_date: int
    num_tiles: int
    num_events: int
    num_rejected: int
    vanished: list[date] = field(default_factory=list)


def build_tiles(tables: Tables, config: Config, inventory: Inventory, *, before: date) -> TileBuild:
    """Build the tiles of all days before ``before`` that are new in the log or may have changed.

    Rows are written first, under a revision that no other run uses. One commit on ``tile_days`` then makes all days
    visible, provided that no other run has changed the ledger since the build started. If one has, the build removes
    its rows and starts again from the current ledger. A day whose tiles did not change keeps its revision, so nothing
    derived from it becomes stale. A killed run leaves rows of a revision that the ledger does not name.

    Cost: one read of the files with rows of these days. For days that Spark builds, one or two shuffles.

    Raises
    ------
    RejectedShareError
        If a day has too many malformed rows. No day becomes visible.
    UsageError
        If a day has too few rows, or a CSV file another header. No day becomes visible.
    """
    for _ in range(_ATTEMPTS):
        build = _attempt(tables, config, inventory, before)
        if build is not None:
            return build
    raise UserrepError(
        f"tile_days: other runs changed the ledger during each of {_ATTEMPTS} attempts. Run the command again."
    )


def _attempt(tables: Tables, config: Config, inventory: Inventory, before: date) -> TileBuild | None:
    """Build the days that are stale by the current ledger; return None if another run changes it in the meantime."""
    since = tables.version(TILE_DAYS)
    events, ledger = config.events, tile_ledger(tables)
    undated = ledger.undated.fingerprint != inventory.undated_fingerprint
    log_days = {day.day: day for day in inventory.days if day.day < before}
    stale, vanished = stale_days(log_days, ledger, before, mapping_of(events))
    if not stale and not vanished and not undated:
        return TileBuild([], len(log_days), 0, 0, 0)
    inventory.check_days(events, stale)
    for log in inventory.logs:
        read = {file.path for file in files_of_days(tables, log, stale)} if log.settings.format == "csv" else ()
        check_headers(log, [file for file in log.files if file.path in read])
    newest = max(entry.revision for entry in (*ledger.days.values(), ledger.undated))
    revision = tables.reserve(USER_ITEM_DAYS, "revision", first=newest + 1)
    days = [log_days[day] for day in sorted(stale)]
    try:
        built = _Build(tables, config, inventory.logs, revision, days, read_tombstones(tables)).run(
            undated=undated and inventory.num_undated > 0
        )
        entries = {day: (entry.num_events, entry.num_rejected) for day, entry in (ledger.days | built).items()}
        inventory = inventory.counted({day: (num + rejected, rejected) for day, (num, rejected) in entries.items()})
        inventory.check_days(events, stale)
    except Exception:
        with suppress(Exception):  # an error here must not hide the first; maintenance removes such rows
            _drop(tables, revision)
        raise
    built |= dict.fromkeys(vanished, NO_TILES)
    same = _unchanged_days(built, ledger)
    rows = [
        _row(day, result, stale.get(day, NO_ROWS), same.get(day, revision)) for day, result in sorted(built.items())
    ]
    if undated:
        undated_rows = replace(NO_TILES, num_rejected=inventory.num_undated)
        rows.append(_row(None, undated_rows, inventory.undated_fingerprint, revision))
    own_rows = sql_any([{"revision": revision}, *revision_keys(same)])  # days that did not change keep a revision
    while not tables.add(TILE_DAYS, rows, replacing=own_rows, since=since):
        since, now = tables.version(TILE_DAYS), tile_ledger(tables)
        if (now.days, now.undated) != (ledger.days, ledger.undated):  # otherwise its files were only compacted
            _drop(tables, revision)
            return None
    num_tiles, num_events, num_rejected = (
        sum(row[name] for row in rows) for name in ("num_tiles", "num_events", "num_rejected")
    )
    num_up_to_date = len(log_days) - len(stale)
    return TileBuild(sorted(built), num_up_to_date, num_tiles, num_events, num_rejected, sorted(vanished))


def _drop(tables: Tables, revision: int) -> None:
    """Delete the rows of a build that the ledger does not name."""
    for table in (USER_ITEM_DAYS, REJECTED_EVENTS):
        tables.drop_partitions(table, [{"revision": revision}])


def stale_days(
    log_days: dict[date, LogDay], ledger: TileLedger, before: date, mapping: str
) -> tuple[dict[date, str], list[date]]:
    """Return the days to build, with the fingerprints of their rows, and the days that have vanished from the log."""
    fingerprints = {day: f"{log_day.fingerprint}:{mapping}" for day, log_day in log_days.items()}
    known = {day: entry.fingerprint for day, entry in ledger.days.items()}
    stale = {day: fingerprint for day, fingerprint in fingerprints.items() if known.get(day) != fingerprint}
    vanished = [day for day in known if day < before and day not in log_days and known[day] != NO_ROWS]
    return stale, vanished


def _unchanged_days(built: Mapping[date, BuiltDay], ledger: TileLedger) -> dict[date, int]:
    """Return the days whose tiles and number of rejected rows did not change, with their revision in the ledger."""
    return {
        day: old.revision
        for day, new in built.items()
        if (old := ledger.days.get(day)) and (old.content, old.num_rejected) == (new.content, new.num_rejected)
    }


def _row(day: date | None, built: BuiltDay, fingerprint: str, revision: int) -> dict[str, Any]:
    return vars(built) | {
        "event_date": day, "revision": revision, "fingerprint": fingerprint, "built_at": utc_now()
    }  # fmt: skip


@dataclass(frozen=True)
class _Build:
    """A build of some days under one revision."""

    tables: Tables
    config: Config
    logs: Sequence[OpenLog]
    revision: int
    days: list[LogDay]
    erased: Tombstones

    def run(self, *, undated: bool) -> dict[date, BuiltDay]:
        """Write the tiles and rejected rows of the days; return the result of each day."""
        built: dict[date, BuiltDay] = {}
        if isinstance(self.tables, FileTables):
            built, files = arrow_days(self.tables, self.logs, self.days, self.revision, self.erased)
            if files:
                self.tables.add_files(USER_ITEM_DAYS, files)
        spark_days = [day for day in self.days if day.day not in built]
        if spark_days:
            self._write_tiles(spark_days)
            has_context = bool(self.config.events.context)
            dates = [day.day for day in spark_days]
            built |= counted_days(self.tables, dates, self.revision, has_context=has_context)
        uncounted = {day.day for day in spark_days if day.num_rejected is None}
        with_rejects = [
            day.day for day in self.days if day.num_rejected or built[day.day].num_rejected or day.day in uncounted
        ]
        if undated or with_rejects:
            undated_on = utc_now().date() if undated else None
            self._write_rejected(with_rejects, undated_on=undated_on)
            if uncounted:
                stored = num_rejected_of(self.tables, self.revision, undated_on=undated_on)
                built |= {day: replace(built[day], num_rejected=stored.get(day, 0)) for day in uncounted}
        # Stored rows lack those that name an erased user, so they are counted only where nothing else is known.
        known = {day.day: day.num_rejected for day in spark_days if day.num_rejected is not None}
        return built | {day: replace(built[day], num_rejected=num) for day, num in known.items()}

    def _write_tiles(self, days: list[LogDay]) -> None:
        """Build the tiles of some days by Spark."""
        dates = [day.day for day in days]
        slices = power_of_two(max(day.expected_rows for day in days) / _ROWS_PER_SLICE)
        checked = read_days(self.tables, self.logs, dates, undated=False)
        tiles = tiles_of(
            self.erased.without(checked.where(F.col("event_date").isin(dates) & F.col("reason").isNull())),
            context=self.config.events.context,
            has_event_id=any(log.settings.columns.event_id for log in self.logs),
            slices=slices,
            tasks=max(shuffle_partitions(self.tables.spark), -(-len(days) * slices // _FILES_PER_TASK)),
        )
        self.tables.append(tiles.withColumn("revision", F.lit(self.revision)), USER_ITEM_DAYS)

    def _write_rejected(self, days: list[date], *, undated_on: date | None) -> None:
        """Write the rejected rows of some days and, under ``undated_on``, those without a day."""
        checked = read_days(self.tables, self.logs, days, undated=undated_on is not None)
        in_days = F.col("event_date").isin(days)
        is_included = in_days | F.col("event_date").isNull() if undated_on else in_days
        rejected = checked.where(F.col("reason").isNotNull() & is_included).select(
            F.coalesce("event_date", F.lit(undated_on)).alias("event_date"),
            F.lit(self.revision).alias("revision"),
            "reason",
            F.coalesce("corrupt", F.to_json("raw")).alias("row"),
        )
        self.tables.append(self.erased.without_named(rejected), REJECTED_EVENTS)
