"""Generated logs for benchmarks: drawn once from a seed, kept below a root folder, and used by both sides.

The activity of users is long-tailed (lognormal), the popularity of items follows Zipf's law, and all days are alike.
Weights are multiples of 1/256 and vectors of 2^-16, as in the tables, so that answers can be compared exactly.
"""

import inspect
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from userrep.config import Config, parse_config
from userrep.ids import short_hash
from userrep.items.version_training import train_versions
from userrep.items.versions import Versions, versions_of
from userrep.store.filesystem import file_system
from userrep.store.open import open_tables
from userrep.store.schemas import TILE_DAYS, USER_ITEM_DAYS
from userrep.store.tables import Tables
from userrep.tiles import arrow_rows, arrow_tasks, build, by_arrow, by_spark, day_events, ledger
from userrep.tiles.build import build_tiles
from userrep.tiles.inventory.inventory import take_inventory

AS_OF = date(2024, 7, 1)  # the first day after every log
ANCHOR = AS_OF - timedelta(days=14)  # item vectors change on no date that a benchmark goes over
WINDOWS_DAYS = [7, 30, 180]
WITH_HISTORY = [*WINDOWS_DAYS, 360]  # and the default history window: of counts and vectors, not of who is active
DIM = 64
MODALITIES = ("behaviour", "content")

_DAY_US = 86_400_000_000
_EPOCH = date(1970, 1, 1)
_BUILDERS = (arrow_rows, day_events, by_arrow, arrow_tasks, build, by_spark, ledger)  # what kept tiles depend on
_UTC = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class LogSize:
    """The size of a log.

    ``copies``: rows have an ``event_id``, and 1% of them are duplicated. ``skewed``: one user has 10% of the events, a
    bot has 5%, each with another item, and half of all other events are with one item.
    """

    events: int
    users: int
    items: int = 20_000
    days: int = 365  # the history window, and days that leave it
    copies: bool = False
    skewed: bool = False
    seed: int = 7

    @property
    def name(self) -> str:
        kind = ("-copies" if self.copies else "") + ("-skewed" if self.skewed else "")
        return f"log-{self.events}-{self.users}-{self.items}-{self.days}{kind}-seed{self.seed}"

    def of_events(self, events: int) -> "LogSize":
        """Return a log with this number of events, and the same number of events per user."""
        return replace(self, events=events, users=max(2, round(self.users * events / self.events)))

    def facts(self) -> dict[str, Any]:
        """Return the fields of ``size`` in a benchmark's line."""
        return {
            **{name: value for name, value in asdict(self).items() if name not in ("copies", "skewed", "seed")},
            "cores": os.cpu_count(),
        }


SMALL = LogSize(events=20_000, users=300, items=200, days=60)


@dataclass(frozen=True)
class Site:
    """Tables with tiles and item vectors of a log, and the files they were built from."""

    tables: Tables
    config: Config
    versions: Versions
    log: Path
    items: Path

    @property
    def folder(self) -> Path:
        """The site's own folder, which is deleted after the benchmark."""
        assert self.config.root is not None
        return Path(self.config.root)

    def tile_files(self) -> list[str]:
        """Return the Parquet files of all windows' tiles, for readers other than Spark."""
        start = AS_OF - timedelta(days=WITH_HISTORY[-1])
        return local_files(ledger.read_tiles(self.tables, start=start, end=AS_OF))


def local_files(rows: DataFrame) -> list[str]:
    """Return the paths of the files that a frame is read from."""
    return sorted(file_system(file)[1] for file in rows.inputFiles())


def log_files(size: LogSize, root: Path) -> tuple[Path, Path]:
    """Return the folder of the log, with one file per day, and the item file; draw them if they are missing."""
    folder = root / size.name
    if not folder.exists():
        print(f"drawing {folder}", file=sys.stderr)
        staged = root / f".{size.name}-{uuid4().hex}"  # a killed run leaves no half of a log behind
        _write_events(size, staged / "events")
        _write_items(size, staged / "items.parquet")
        staged.rename(folder)
    return folder / "events", folder / "items.parquet"


@contextmanager
def open_site(spark: SparkSession, size: LogSize, root: Path, *, as_ofs: list[date] | None = None) -> Iterator[Site]:
    """Open tables with the tiles of a log and item vectors for ``as_ofs``: a copy that may be changed and is deleted.

    ``build_tiles`` builds the tiles once. They are kept next to the log until the code that builds them changes.
    """
    log, items = log_files(size, root)
    kept = (
        log.parent
        / f"tables-{short_hash([*map(inspect.getsource, _BUILDERS), USER_ITEM_DAYS.columns, TILE_DAYS.columns])}"
    )
    if not kept.exists():
        for outdated in log.parent.glob("tables-*"):
            shutil.rmtree(outdated)
        staged = log.parent / f".tables-{uuid4().hex}"
        print(f"building tiles and item vectors in {kept}", file=sys.stderr)
        _build(spark, site_config(staged, log, items), [AS_OF])
        staged.rename(kept)
    folder = root / f"run-{uuid4().hex}"
    link_files(kept, folder)
    try:
        config = site_config(folder, log, items)
        tables, versions = _build(spark, config, as_ofs or [AS_OF])
        yield Site(tables, config, versions, log, items)
    finally:
        shutil.rmtree(folder)


def site_config(root: Path, log: Path, items: Path, *, event_id: bool = False, log_format: str = "parquet") -> Config:
    """Return the configuration that all feature benchmarks share."""
    columns = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at", "weight": "weight"}
    values = {
        "root": str(root),
        "events": {
            "path": str(log),
            "format": log_format,
            "columns": columns | ({"event_id": "event_id"} if event_id else {}),
        },
        "items": {"path": str(items), "columns": {"item_id": "item_id", "vector": "vec"}},
        "windows_days": WINDOWS_DAYS,
        "item_vectors": {modality: {"kind": "vector", "dim": DIM} for modality in MODALITIES},
    }
    return parse_config(values, "benchmark")


def link_files(source: Path, target: Path) -> None:
    """Copy a folder. Parquet files are hard-linked, since they are never changed in place."""

    def link(file: str, copy: str) -> None:
        if file.endswith(".parquet") and "_delta_log" not in file:
            os.link(file, copy)
        else:
            shutil.copy2(file, copy)

    shutil.copytree(source, target, copy_function=link)


def with_own_log(kept: Site) -> Site:
    """Give a site its own copy of the log, to which files may be added, and update the inventory."""
    log = kept.folder / "log"
    link_files(kept.log, log)
    site = replace(kept, log=log, config=site_config(kept.folder, log, kept.items))
    build_site_tiles(site)
    return site


def build_site_tiles(site: Site) -> None:
    """Bring a site's tiles up to date with its log."""
    build_tiles(site.tables, site.config, take_inventory(site.tables, site.config.events), before=AS_OF)


def add_next_day(size: LogSize, log: Path) -> None:
    """Add a day after the last one to a log, as large as the others."""
    num = size.events // size.days
    pq.write_table(
        _Draw(size).events(AS_OF, num, np.random.default_rng([size.seed, size.days])), log / f"{AS_OF}.parquet"
    )


def add_late_events(size: LogSize, log: Path, day: date, *, num: int) -> None:
    """Add a file with ``num`` more events of a day to a log."""
    pq.write_table(_Draw(size).events(day, num, np.random.default_rng([size.seed, 1 << 21])), log / "late.parquet")


def _build(spark: SparkSession, config: Config, as_ofs: list[date]) -> tuple[Tables, Versions]:
    """Bring tiles and item vectors up to date. Cost if they are: a listing."""
    tables = open_tables(config, spark)
    if not ledger.tile_ledger(tables).days:
        build_tiles(tables, config, take_inventory(tables, config.events), before=AS_OF)
    missing = versions_of(tables, config, anchor=ANCHOR).missing(as_ofs)
    if missing:
        train_versions(tables, config, versions_of(tables, config, anchor=ANCHOR), missing)
    return tables, versions_of(tables, config, anchor=ANCHOR)


class _Draw:
    """The activity of users and the popularity of items, the same for all days of a log."""

    def __init__(self, size: LogSize) -> None:
        random = np.random.default_rng(size.seed)
        self._user_cdf = _cdf(random.lognormal(sigma=1.2, size=size.users))
        self._item_cdf = _cdf(random.permutation(1 / np.arange(1, size.items + 1)))
        self._user_ids, self._item_ids = _ids("u", size.users), _ids("i", size.items)

    def events(self, day: date, num: int, random: np.random.Generator) -> pa.Table:
        """Draw the events of a day, ordered by time: user_id, item_id, event_at, weight."""
        at = np.sort(random.integers(_DAY_US, size=num)) + (day - _EPOCH).days * _DAY_US
        columns = {
            "user_id": self._user_ids.take(pa.array(np.searchsorted(self._user_cdf, random.random(num)))),
            "item_id": self._item_ids.take(pa.array(np.searchsorted(self._item_cdf, random.random(num)))),
            "event_at": pa.array(at).cast(_UTC),
            "weight": pa.array(random.integers(1, 1025, size=num) / 256),
        }
        return pa.table(columns)


def _write_events(size: LogSize, folder: Path) -> None:
    """Write one file per day."""
    folder.mkdir(parents=True)
    draw = _Draw(size)
    for k in range(size.days):
        day, random = AS_OF - timedelta(days=size.days - k), np.random.default_rng([size.seed, k])
        num = size.events * (k + 1) // size.days - size.events * k // size.days
        table = draw.events(day, num, random)
        if size.skewed:
            table = _skewed(table, k, random)
        if size.copies:
            ids = pc.binary_join_element_wise(f"e{k}", pa.array(np.arange(num)).cast(pa.string()), "-")
            table = _with_copies(table.append_column("event_id", ids), day, random)
        pq.write_table(table, folder / f"{day}.parquet")


def _skewed(table: pa.Table, day: int, random: np.random.Generator) -> pa.Table:
    """Give far more events than average to a user, a bot and an item."""
    draw = random.random(len(table))
    is_heavy, is_bot = pa.array(draw < 0.1), pa.array((draw >= 0.1) & (draw < 0.15))
    is_hit = pa.array((random.random(len(table)) < 0.5) & (draw >= 0.15))
    users = pc.if_else(is_bot, "bot", pc.if_else(is_heavy, "heavy", table.column("user_id")))
    numbers = pa.array(np.arange(len(table))).cast(pa.string())
    rare = pc.binary_join_element_wise(f"r{day}", numbers, "-")
    items = pc.if_else(is_bot, rare, pc.if_else(is_hit, "i0000000", table.column("item_id")))
    return table.set_column(0, "user_id", users).set_column(1, "item_id", items)


def _with_copies(table: pa.Table, day: date, random: np.random.Generator) -> pa.Table:
    """Duplicate 1% of the rows: half of them unchanged, half later on the same day with another weight."""
    copies = table.take(pa.array(np.flatnonzero(random.random(len(table)) < 0.01)))
    is_later = random.random(len(copies)) < 0.5
    last = (day - _EPOCH).days * _DAY_US + _DAY_US - 1
    at = copies.column("event_at").cast(pa.int64()).to_numpy()
    at = np.where(is_later, np.minimum(at + random.integers(_DAY_US, size=len(at)), last), at)
    weight = copies.column("weight").to_numpy()
    weight = np.where(is_later, random.integers(1, 1025, size=len(at)) / 256, weight)
    copies = copies.set_column(2, "event_at", pa.array(at).cast(_UTC)).set_column(3, "weight", pa.array(weight))
    return pa.concat_tables([table, copies]).sort_by("event_at")


def _write_items(size: LogSize, path: Path) -> None:
    """Write item_id and vec; 1% of the items have no vector."""
    random = np.random.default_rng([size.seed, 1 << 20])
    vectors = np.rint(random.standard_normal((size.items, DIM)) / np.sqrt(DIM) * 2**16) / 2**16
    has_vector = random.random(size.items) >= 0.01
    lists = [vector if has else None for vector, has in zip(vectors.astype(np.float32), has_vector, strict=True)]
    pq.write_table(pa.table({"item_id": _ids("i", size.items), "vec": pa.array(lists, pa.list_(pa.float32()))}), path)


def _cdf(shares: np.ndarray) -> np.ndarray:
    total = np.cumsum(shares)
    return total[:-1] / total[-1]


def _ids(letter: str, num: int) -> pa.Array:
    return pc.binary_join_element_wise(letter, pc.utf8_lpad(pa.array(np.arange(num)).cast(pa.string()), 7, "0"), "")
