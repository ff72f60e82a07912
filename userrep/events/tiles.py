"""Activity tiles: what each user did with each item on each UTC day. No model in them.

A day of tiles is a pure function of that day of the log. Days have revisions; ``tile_days`` says which of them count.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from userrep.config import Config, Events
from userrep.events.buckets import NUM_BUCKETS, power_of_two, user_bucket, user_slice
from userrep.events.days import counts_of_days, has_event_ids, read_days
from userrep.events.inventory import Inventory, LogDay, mapping_of
from userrep.ids import short_hash
from userrep.schemas import REJECTED_EVENTS, TILE_DAYS, USER_ITEM_DAYS
from userrep.tables import Tables, sql_date

_ROWS_PER_SLICE = 4_000_000
_FILES_PER_TASK = 8  # on average; below spark.sql.maxConcurrentOutputFileWriters, rows need no second sort
NUM_CELLS = 256  # of user buckets, in which a day's tiles are counted
_WORTH_COUNTING = 1_000_000  # tiles, below which no task can be overfull
_PARTS_OF_DAY = {"num_night": 0, "num_morning": 1, "num_afternoon": 2, "num_evening": 3}


@dataclass(frozen=True)
class TileBuild:
    """What a run of ``build_tiles`` did. ``days`` were built or rebuilt, the others were up to date."""

    days: list[date]
    num_up_to_date: int
    num_tiles: int
    num_events: int
    num_rejected: int


def build_tiles(tables: Tables, config: Config, inventory: Inventory, *, before: date) -> TileBuild:
    """Build the tiles of all days before ``before`` whose content in the log is new or has changed.

    All days go through one Spark job: read the files that hold them, validate, deduplicate, aggregate; one shuffle.
    Rows are written under a new revision first; one commit on ``tile_days`` then makes all days visible. A run that
    was killed in between leaves rows that nobody reads and that the next run replaces.

    Raises
    ------
    RejectedShareError
        If a day has too many malformed rows; nothing of it becomes visible then.
    UsageError
        If a day is too small; likewise.
    """
    ledger = tile_ledger(tables)
    visible = ledger.latest
    undated = bool(inventory.num_undated) and ledger.undated[0] != inventory.undated_fingerprint
    wanted = {day.day: day for day in inventory.days if day.day < before}
    mapping = mapping_of(config.events)
    stale = [day for day in wanted.values() if visible.get(day.day, ("", 0))[0] != _fingerprint(day, mapping)]
    vanished = [day for day in visible if day < before and day not in wanted and visible[day][0] != "none"]
    stale += [LogDay(day, 0, 0, "none") for day in vanished]
    if not stale and not undated:
        return TileBuild([], len(wanted), 0, 0, 0)
    days = sorted(day.day for day in stale)
    inventory.check_days(config.events, days)
    revision = 1 + max(revision for _, revision in (*visible.values(), ledger.undated))
    slices = power_of_two(max((day.expected_rows for day in stale), default=1) / _ROWS_PER_SLICE)
    _write_rows(tables, config.events, days, revision, undated=undated, slices=slices)
    if any(day.num_rows is None for day in stale):
        inventory = inventory.counted(counts_of_days(tables, days, revision))
        inventory.check_days(config.events, days)
    rejected = {day.day: day.num_rejected or 0 for day in inventory.days}
    built: list[tuple[date | None, int, str, int]] = [
        (day.day, revision, _fingerprint(day, mapping), rejected.get(day.day, 0)) for day in stale
    ]
    if undated:
        built.append((None, revision, inventory.undated_fingerprint, inventory.num_undated))
    tables.append(_counted(tables, built, revision), TILE_DAYS)
    done = tables.read(TILE_DAYS).where(f"revision = {revision}").agg(
        F.sum("num_tiles").alias("tiles"), F.sum("num_events").alias("events"), F.sum("num_rejected").alias("rejected")
    ).first()  # fmt: skip
    assert done is not None
    return TileBuild(days, len(wanted) - len(stale) + len(vanished), done.tiles, done.events, done.rejected)


def tiles_of(events: DataFrame, *, context: Sequence[str], has_event_id: bool, slices: int, tasks: int) -> DataFrame:
    """Deduplicate valid events within their day and aggregate them.

    Of rows with one ``event_id`` (of equal rows, where there is none) the later in time counts, then the larger by
    all columns.

    Parameters
    ----------
    events : valid rows of ``with_validity``. ``slices``: files per day, by user. ``tasks``: partitions of the shuffle.

    Returns
    -------
    One row per event_date, user_id, item_id, event_type, sorted by event_date, user_bucket, user_id. Cost: one shuffle
    by day and slice of users; a second one where rows have an ``event_id``, whose copies may name different users, and
    days several slices.
    """
    contexts = [f"context_{k}" for k in range(len(context))]
    unique = _deduplicated(events, contexts, has_event_id=has_event_id, slices=slices, tasks=tasks)
    part = F.hour("event_at") / 6
    counted = unique.select(
        "event_date",
        "user_slice",
        "user_bucket",
        "user_id",
        "item_id",
        "event_type",
        "weight",
        "event_at",
        F.floor(part).alias("part"),
        _context_map(context).alias("context"),
    )
    keys = ["event_date", "user_slice", "user_bucket", "user_id", "item_id", "event_type"]
    tiles = counted.groupBy(*keys).agg(
        F.count("*").cast("int").alias("num_events"),
        F.sum("weight").alias("weight"),
        F.max("event_at").alias("last_event_at"),
        *(F.count_if(F.col("part") == k).cast("int").alias(name) for name, k in _PARTS_OF_DAY.items()),
        _summed_maps("context").alias("num_by_context")
        if context
        else F.lit(None).cast("map<string,bigint>").alias("num_by_context"),
    )
    return tiles.sortWithinPartitions("event_date", "user_slice", "user_bucket", "user_id")


def _deduplicated(events: DataFrame, contexts: list[str], *, has_event_id: bool, slices: int, tasks: int) -> DataFrame:
    """Keep one of equal events; the result is partitioned by event_date and user_slice."""
    payload = ["user_id", "item_id", "event_type", "event_at", "weight", *contexts]
    if not has_event_id:
        by = ["event_date", "user_slice"] if slices > 1 else ["event_date"]
        of_users = _with_slice(events, slices).repartition(tasks, *by)
        keys = ["event_date", "user_slice", "user_bucket", *payload]
        return of_users.groupBy(*keys, "raw").agg(F.lit(1)).select(*keys)
    share = F.pmod(F.xxhash64(F.coalesce("event_id", "user_id")), F.lit(slices))
    by = ["event_date", "share"] if slices > 1 else ["event_date"]  # a day in one slice is at its place already
    of_ids = events.withColumn("share", share).repartition(tasks, *by)
    whole_row = F.when(F.col("event_id").isNull(), F.col("raw"))
    copies = Window.partitionBy(*by, "event_id", whole_row).orderBy(F.desc("event_at"), F.desc("raw"))
    unique = of_ids.withColumn("copy", F.row_number().over(copies)).where("copy = 1")
    of_users = _with_slice(unique.select("event_date", *payload), slices)
    return of_users.repartition(tasks, "event_date", "user_slice") if slices > 1 else of_users


def _with_slice(events: DataFrame, slices: int) -> DataFrame:
    return events.withColumn("user_bucket", user_bucket()).withColumn("user_slice", user_slice(slices))


def latest_tile_days(tables: Tables) -> dict[date, tuple[str, int]]:
    """Return day -> (fingerprint, revision) of the newest revision of each day."""
    return tile_ledger(tables).latest


@dataclass(frozen=True)
class TileLedger:
    """The ledger of days as it is at one moment.

    ``latest`` : day -> (fingerprint, revision). ``undated`` : likewise of the rows without a readable time.
    """

    latest: dict[date, tuple[str, int]]
    undated: tuple[str, int]
    _tiles: dict[tuple[date, int], int]

    def num_tiles(self, days: Iterable[tuple[date, int]]) -> int:
        """Count the tiles of some (day, revision)."""
        return sum(self._tiles.get(day, 0) for day in days)


def tile_ledger(tables: Tables) -> TileLedger:
    """Read the ledger of days. Driver memory: one entry a day and revision."""
    columns = ("event_date", "revision", "fingerprint", "num_tiles")
    rows = sorted(tables.read(TILE_DAYS).select(*columns).collect(), key=lambda row: row.revision)
    latest = {row.event_date: (row.fingerprint, row.revision) for row in rows}
    undated = latest.pop(None, ("", 0))
    return TileLedger(latest, undated, {(row.event_date, row.revision): row.num_tiles for row in rows})


def read_tiles(tables: Tables, *, start: date | None, end: date) -> DataFrame:
    """Read the newest revision of the tiles of the days ``[start, end)``; all days before ``end`` without a start.

    The days' revisions are resolved here, once, into a predicate on the partition columns: only their files are read.
    """
    days = {d: r for d, (_, r) in latest_tile_days(tables).items() if d < end and (start is None or d >= start)}
    return rows_of_revisions(tables, days)


def tiles_by_cell(tables: Tables, ledger: TileLedger, days: Collection[tuple[date, int]]) -> NDArray[np.int64]:
    """Count the tiles of some (day, revision) by cell of user buckets; so few that it does not matter, as if even.

    Driver memory: one number a cell.
    """
    if (num_tiles := ledger.num_tiles(days)) < _WORTH_COUNTING:
        return np.full(NUM_CELLS, num_tiles // NUM_CELLS)
    wanted = tables.spark.createDataFrame(list(days), "event_date DATE, revision INT")
    counted = tables.read(TILE_DAYS).join(F.broadcast(wanted), on=["event_date", "revision"], how="left_semi")
    cells = counted.select(F.explode("num_tiles_by_cell").alias("cell", "num_tiles")).groupBy("cell").sum("num_tiles")
    found = np.zeros(NUM_CELLS, np.int64)
    for cell, num_tiles in cells.collect():
        found[cell] = num_tiles
    return found


def rows_of_revisions(tables: Tables, days: dict[date, int]) -> DataFrame:
    """Read the tiles of some days, each in the revision that is asked for; only their files are read."""
    return tables.read(USER_ITEM_DAYS).where(_revisions_predicate(days))


def tiles_fingerprint(tables: Tables, *, start: date | None, end: date) -> str:
    """Hash which content of the days ``[start, end)`` the tiles stand for."""
    return days_fingerprint(latest_tile_days(tables), start=start, end=end)


def days_fingerprint(days: dict[date, tuple[str, int]], *, start: date | None, end: date) -> str:
    """Hash the content of the days ``[start, end)``, given what ``latest_tile_days`` returns."""
    return short_hash(sorted((d, f) for d, (f, _) in days.items() if d < end and (start is None or d >= start)))


def _revisions_predicate(days: dict[date, int]) -> str:
    """Write (day, revision) pairs as ranges of days with one revision."""
    ranges: list[tuple[int, date, date]] = []
    for day in sorted(days):
        revision = days[day]
        if ranges and ranges[-1][0] == revision and ranges[-1][2] + timedelta(days=1) == day:
            ranges[-1] = (revision, ranges[-1][1], day)
        else:
            ranges.append((revision, day, day))
    parts = [f"(revision = {r} AND event_date BETWEEN {sql_date(a)} AND {sql_date(b)})" for r, a, b in ranges]
    return " OR ".join(parts) or "false"


def _write_rows(tables: Tables, events: Events, days: list[date], revision: int, *, undated: bool, slices: int) -> None:
    checked = read_days(tables, events, days, undated=undated)
    in_days = F.col("event_date").isin(days)
    tiles = tiles_of(
        checked.where(in_days & F.col("reason").isNull()),
        context=events.context,
        has_event_id=has_event_ids(events),
        slices=slices,
        tasks=max(tables.shuffle_partitions(), -(-len(days) * slices // _FILES_PER_TASK)),
    )
    tables.replace(tiles.withColumn("revision", F.lit(revision)), USER_ITEM_DAYS, f"revision = {revision}")
    wanted = in_days | F.col("event_date").isNull() if undated else in_days
    bad = checked.where(F.col("reason").isNotNull() & wanted)
    rejected = bad.select(
        F.coalesce("event_date", F.current_date()).alias("event_date"),
        F.lit(revision).alias("revision"),
        "reason",
        F.coalesce("corrupt", F.to_json("raw")).alias("row"),
    )
    tables.replace(rejected, REJECTED_EVENTS, f"revision = {revision}")


def _counted(tables: Tables, days: list[tuple[date | None, int, str, int]], revision: int) -> DataFrame:
    """Count what a revision's rows hold, one row per built day (no day: the rows without a readable time)."""
    built = tables.spark.createDataFrame(days, "event_date DATE, revision INT, fingerprint STRING, num_rejected BIGINT")
    cell = F.floor(F.col("user_bucket") / (NUM_BUCKETS // NUM_CELLS)).cast("int").alias("cell")
    cells = tables.read(USER_ITEM_DAYS).where(f"revision = {revision}").groupBy("event_date", cell).agg(
        F.sum("num_events").alias("num_events"), F.count("*").alias("num_tiles")
    )  # fmt: skip
    rows = cells.groupBy("event_date").agg(
        F.sum("num_events").alias("num_events"),
        F.sum("num_tiles").alias("num_tiles"),
        F.map_from_entries(F.collect_list(F.struct("cell", "num_tiles"))).alias("num_tiles_by_cell"),
    )
    return built.join(rows, on="event_date", how="left").select(
        "event_date",
        "revision",
        "fingerprint",
        F.coalesce("num_events", F.lit(0)).alias("num_events"),
        F.coalesce("num_tiles", F.lit(0)).alias("num_tiles"),
        "num_rejected",
        "num_tiles_by_cell",
        F.current_timestamp().alias("built_at"),
    )


def _fingerprint(day: LogDay, mapping: str) -> str:
    return day.fingerprint if day.fingerprint == "none" else f"{day.fingerprint}:{mapping}"


def _context_map(context: Sequence[str]) -> Column:
    """Write a row's context values as ``{"column=value": 1}``; a column that the row's source has not is left out."""
    if not context:
        return F.lit(None)
    keys = F.array_compact(
        F.array(*(F.concat(F.lit(f"{name}="), F.col(f"context_{k}")) for k, name in enumerate(context)))
    )
    return F.map_from_arrays(keys, F.array_repeat(F.lit(1).cast("bigint"), F.size(keys)))


def _summed_maps(column: str) -> Column:
    empty = F.create_map().cast("map<string,bigint>")

    def add(total: Column, one: Column) -> Column:
        return F.map_zip_with(total, one, lambda _, a, b: F.coalesce(a, F.lit(0)) + F.coalesce(b, F.lit(0)))

    return F.aggregate(F.collect_list(column), empty, add)
