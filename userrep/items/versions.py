"""Versions of the item vectors by date: one valid from V has seen events before V only.

Versions of a lineage lie ``refit_days`` apart. The first one that a lineage gets anchors the grid.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import reduce
from typing import NamedTuple

from pyspark.errors import PythonException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import AlsVectors, Config, Items, TextVectors
from userrep.errors import UsageError, UserrepError
from userrep.ids import short_hash
from userrep.items.als import TOO_LITTLE_MEMORY, PlannedFit, behaviour_vectors, interactions
from userrep.items.text import content_vectors, fit_basis, tokens
from userrep.items.vectors import given_vectors
from userrep.sources.columns import as_text, check_columns, id_text, named, type_of
from userrep.sources.source import read_source
from userrep.store.buckets import buckets_of_share, item_bucket, power_of_two, slice_number
from userrep.store.schemas import ITEM_INDEX, ITEM_VECTOR_VERSIONS, ITEM_VECTORS
from userrep.store.sql import sql_any, sql_date
from userrep.store.storage import artifacts_root, exists
from userrep.store.tables import Tables
from userrep.tiles.tiles import TileLedger, read_tiles, tile_ledger
from userrep.utc import utc_now

_GROUP_TILES = 10_000_000  # of the versions that one task fits, all together
_TEXT_PARTITIONS = 8  # a fixed number, so that vectors do not depend on the session's settings
_ATTEMPTS = 20  # to number items, each on the newest numbers
_FILE_BYTES = 2**26  # of vectors in a file, about


def lineage_of(config: Config) -> str:
    """Name what features depend on besides data: which columns mean what, the windows, how item vectors are made.

    On how many tiles these are fitted is no part of it: a version that has seen other users lies on the axes of before.
    """
    parts = {
        "events": config.events.meaning,
        "items": config.items.columns.model_dump() if config.items else None,
        "users": config.users.model_dump(exclude={"path", "format"}) if config.users else None,
        "onboarding": config.onboarding.columns.model_dump() if config.onboarding else None,
        "windows_days": config.windows_days,
        **({"history_days": config.history_window} if config.history_window else {}),  # none: the features of before
        "item_vectors": {
            name: vectors.model_dump(exclude={"max_tiles"}) for name, vectors in config.item_vectors.items()
        },
    }
    return f"l{short_hash(parts, 9)}"


@dataclass(frozen=True)
class Versions:
    """The grid of a lineage's versions, and which of them are there."""

    lineage_id: str
    anchor: date
    refit_days: int
    present: frozenset[date]

    def valid_at(self, as_of: date) -> date:
        """Return the newest version date at or before ``as_of``."""
        steps = (as_of - self.anchor).days // self.refit_days
        return self.anchor + timedelta(days=steps * self.refit_days)

    def missing(self, as_ofs: Iterable[date]) -> list[date]:
        """Return the versions that these as-of dates need and that are not there, in order."""
        return sorted({self.valid_at(as_of) for as_of in as_ofs} - self.present)


def versions_of(tables: Tables, config: Config, *, anchor: date) -> Versions:
    """Read a lineage's versions; where it has none yet, the grid is laid through ``anchor``."""
    lineage_id = lineage_of(config)
    rows = tables.ledger(ITEM_VECTOR_VERSIONS, ("lineage_id", "valid_from"), lineage_id=lineage_id)
    present = frozenset(row.valid_from for row in rows)
    return Versions(lineage_id, min(present, default=anchor), config.refit_days, present)


def train_versions(
    tables: Tables, config: Config, versions: Versions, wanted: Sequence[date], report: Callable[[str], None]
) -> int:
    """Make the versions ``wanted``, oldest first. Returns the vectors written.

    Small versions are made and committed together, ten million tiles at a time: one Spark job for all costs less than
    one for each. Cost: one pass over the items of all tiles before the last version, and one over the tiles of the
    users that ALS is fitted on (sorted by user in their files, so that little of other users is read); their counts by
    user, item and version are cached. Then one ALS fit per version and behavior modality, and a few passes over the
    item table.
    """
    items = _items(tables, config.items) if config.items else None
    index = _extended_index(tables, versions.lineage_id, items, end=max(wanted)).cache()
    learned = {name: of for name, of in config.item_vectors.items() if isinstance(of, AlsVectors)}
    ledger = tile_ledger(tables)
    limits = {v: {name: _bucket_limit(ledger, v, of.max_tiles) for name, of in learned.items()} for v in wanted}
    widest = {version: max(by_name.values(), default=0) for version, by_name in limits.items()}
    pairs = interactions(read_tiles(tables, start=None, end=max(wanted)), index, widest).cache()
    inputs = _Inputs(tables, config, versions.lineage_id, index, items, pairs, limits)
    num_vectors = 0
    try:
        done = 0
        for group in _groups(config, ledger, sorted(wanted)):
            with _memory_error_told():
                num_vectors += _write_versions(inputs, group, {*versions.present, *sorted(wanted)[:done]})
            done += len(group)
            valid = f"{group[0]} to {group[-1]}" if len(group) > 1 else f"{group[0]}"
            report(f"item vectors valid from {valid} ({done} of {len(wanted)})")
    finally:
        for cached in (pairs, index, *inputs.constant.values()):
            cached.unpersist()
    return num_vectors


def _groups(config: Config, ledger: TileLedger, wanted: Sequence[date]) -> Iterator[list[date]]:
    """Put versions that follow each other together; those that Spark fits stay alone."""
    kinds = config.item_vectors.values()
    is_alone = any(isinstance(kind, AlsVectors) and kind.solver == "spark" for kind in kinds)
    group: list[date] = []
    tiles = 0
    for version in wanted:
        more = ledger.num_tiles((day, tiled.revision) for day, tiled in ledger.days.items() if day < version)
        if group and (is_alone or tiles + more > _GROUP_TILES):
            yield group
            group, tiles = [], 0
        group.append(version)
        tiles += more
    if group:
        yield group


@contextmanager
def _memory_error_told() -> Iterator[None]:
    """Turn the error of a task that could not hold the interactions into a line with the cure."""
    try:
        yield
    except PythonException as error:
        text = str(error)
        if TOO_LITTLE_MEMORY not in text:
            raise
        reason = text[text.index(TOO_LITTLE_MEMORY) :].splitlines()[0]
        raise UserrepError(
            f"item_vectors: {reason} Lower max_tiles to fit fewer users, or give executors more memory "
            "(spark.executor.memoryOverhead)."
        ) from error


def read_vectors(tables: Tables, lineage_id: str, version: date) -> DataFrame:
    """Read a version: one row per modality and item."""
    return tables.read(ITEM_VECTORS).where(f"lineage_id = '{lineage_id}' AND valid_from = {sql_date(version)}")


def items_without_vector(tables: Tables, lineage_id: str, version: date) -> dict[str, int]:
    """Count, per modality, the items known at a version that have no vector in it."""
    made = made_versions(tables, lineage_id).get(version)
    return {name: made.num_items - count for name, count in made.num_vectors.items()} if made else {}


class MadeVersion(NamedTuple):
    """What the ledger says of a version. ``largest``: the largest absolute component of all its vectors; 0 if none."""

    num_items: int
    num_vectors: dict[str, int]
    largest: float


def made_versions(tables: Tables, lineage_id: str) -> dict[date, MadeVersion]:
    """Return a lineage's complete versions by the date they are valid from. Driver memory: one entry a version."""
    rows = tables.ledger(ITEM_VECTOR_VERSIONS, lineage_id=lineage_id)
    return {row.valid_from: MadeVersion(row.num_items, dict(row.num_vectors), row.largest) for row in rows}


@dataclass(frozen=True)
class _Inputs:
    """What all versions of a run are made from; ``items`` is None without an item table."""

    tables: Tables
    config: Config
    lineage_id: str
    index: DataFrame
    items: DataFrame | None
    pairs: DataFrame
    bucket_limits: Mapping[date, Mapping[str, int]]  # by version and modality
    constant: dict[str, DataFrame] = field(default_factory=dict)  # modalities that all versions share, cached

    def vectors(self, group: Sequence[date], present: AbstractSet[date]) -> DataFrame:
        """Return all modalities of some versions: modality, valid_from, item_index, vector."""
        parts = (self._modality(name, group, present) for name in self.config.item_vectors)
        return reduce(DataFrame.unionByName, parts)

    def _modality(self, name: str, group: Sequence[date], present: AbstractSet[date]) -> DataFrame:
        settings = self.config.item_vectors[name]
        if isinstance(settings, AlsVectors):
            vectors = self._behaviour(name, settings, group, present)
        else:
            if name not in self.constant:
                if isinstance(settings, TextVectors):
                    self.constant[name] = self._content(name, settings).cache()
                else:
                    self.constant[name] = given_vectors(self._numbered_items(), dim=settings.dim).cache()
            versions = F.explode(F.array(*(F.lit(version) for version in group)))
            vectors = self.constant[name].withColumn("valid_from", versions)
        return vectors.select(F.lit(name).alias("modality"), "valid_from", "item_index", "vector")

    def _behaviour(
        self, name: str, settings: AlsVectors, group: Sequence[date], present: AbstractSet[date]
    ) -> DataFrame:
        plan, stored = [], set()
        for k, version in enumerate(group):
            there = {*present, *group[:k]}
            earlier, later = [made for made in there if made < version], [made for made in there if made > version]
            before = max(earlier) if earlier else min(later, default=None)  # a later one gives its axes only
            plan.append(PlannedFit(version, self.bucket_limits[version][name], before, starts_there=bool(earlier)))
            stored |= {before} & present
        known = None
        if stored:
            of_versions = F.col("valid_from").isin(sorted(stored)) & (F.col("modality") == name)
            known = self.tables.read(ITEM_VECTORS).where(F.col("lineage_id") == self.lineage_id).where(of_versions)
        return behaviour_vectors(self.pairs, plan, known, settings=settings)

    def _content(self, name: str, settings: TextVectors) -> DataFrame:
        with_text = self._numbered_items().where(F.trim("text") != "")
        tokenised = with_text.select("item_index", tokens(F.col("text")).alias("tokens"))
        tokenised = tokenised.repartition(_TEXT_PARTITIONS, "item_index").sortWithinPartitions("item_index")
        path = f"{artifacts_root(self.config)}/artifacts/text/{self.lineage_id}-{name}.safetensors"
        if not exists(path):
            fit_basis(tokenised, settings=settings, path=path)
        return content_vectors(tokenised, path=path)

    def _numbered_items(self) -> DataFrame:
        assert self.items is not None
        return self.items.join(self.index, on="item_id", how="inner")


def _write_versions(inputs: _Inputs, group: Sequence[date], present: AbstractSet[date]) -> int:
    """Write all modalities of some versions in one commit, then record that they are complete; return the vectors.

    Files hold equal ranges of item buckets, sorted, some 64 MB each of the widest modality, so that a task that wants
    some items only reads their row groups. Cost: the vectors are cached, and shuffled once.
    """
    keys: list[dict[str, str | date | int]] = [
        {"lineage_id": inputs.lineage_id, "valid_from": version} for version in group
    ]
    rows = inputs.vectors(group, present).join(inputs.index, on="item_index", how="inner").cache()
    try:
        largest = F.greatest(F.array_max("vector"), -F.array_min("vector")).cast("double")
        found = (
            rows.groupBy("valid_from", "modality")
            .agg(F.count("*").alias("num_vectors"), F.max(largest).alias("largest"))
            .collect()
        )
        num_items = inputs.index.count()
        widest = max(settings.dim for settings in inputs.config.item_vectors.values())
        num_files = power_of_two(num_items * widest * 4 / _FILE_BYTES)
        keyed = rows.withColumns({"lineage_id": F.lit(inputs.lineage_id), "item_bucket": item_bucket()})
        in_order = keyed.repartitionById(num_files, slice_number(num_files, "item_bucket"))
        in_order = in_order.sortWithinPartitions("valid_from", "modality", "item_bucket", "item_id")
        inputs.tables.replace(in_order, ITEM_VECTORS, keys)
    finally:
        rows.unpersist()
    done = []
    for key in keys:
        mine = [row for row in found if row.valid_from == key["valid_from"]]
        num_vectors = {row.modality: row.num_vectors for row in mine}
        made = MadeVersion(num_items, num_vectors, max((row.largest for row in mine), default=0.0))
        done.append({**key, **made._asdict(), "built_at": utc_now()})
    inputs.tables.add(ITEM_VECTOR_VERSIONS, done, replacing=sql_any(keys))
    return sum(row.num_vectors for row in found)


def _bucket_limit(ledger: TileLedger, version: date, max_tiles: int) -> int:
    """Return below which user bucket there are some ``max_tiles`` tiles before a version; all are, of fewer."""
    num_tiles = ledger.num_tiles((day, of.revision) for day, of in ledger.days.items() if day < version)
    return buckets_of_share(max_tiles / max(1, num_tiles))


def _extended_index(tables: Tables, lineage_id: str, items: DataFrame | None, *, end: date) -> DataFrame:
    """Give every item of the log before ``end`` and of the item table a dense number that it keeps.

    New items are numbered in the order of their ids. Cost: one pass over the items of all tiles; one task sorts the ids
    of the new ones.
    Two runs that number new items at once would give a number to two items. So numbers are committed only onto the
    very numbers that they continue; a run that comes second starts again from those of the first.
    """
    seen = read_tiles(tables, start=None, end=end).select("item_id")
    if items is not None:
        seen = seen.unionByName(items.select("item_id"))
    for _ in range(_ATTEMPTS):
        since = tables.version(ITEM_INDEX)
        known = tables.read(ITEM_INDEX, version=since).where(f"lineage_id = '{lineage_id}'")
        new = seen.distinct().join(known.select("item_id"), on="item_id", how="left_anti")
        top = known.agg(F.max("item_index").alias("top")).first()
        start = 0 if top is None or top.top is None else top.top + 1
        in_order = new.select("item_id").repartition(1).sortWithinPartitions("item_id")
        number = (F.lit(start) + F.monotonically_increasing_id()).cast("int")  # 0, 1, ... in the only partition
        numbered = in_order.select(F.lit(lineage_id).alias("lineage_id"), "item_id", number.alias("item_index"))
        if tables.append(numbered, ITEM_INDEX, since=since):
            return tables.read(ITEM_INDEX).where(f"lineage_id = '{lineage_id}'").select("item_id", "item_index")
    raise UserrepError("item_index: other runs keep on numbering items. Run the command again.")


def _items(tables: Tables, items: Items) -> DataFrame:
    """Read the item table: item_id, text, vector (null where not mapped); of several rows of an item the largest."""
    source = read_source(tables.spark, items, what="items")
    columns = items.columns.model_dump(exclude_none=True)
    check_columns(source, {f"columns.{key}": name for key, name in columns.items()}, "items")
    if items.columns.vector and not isinstance(kind := type_of(source, items.columns.vector), T.ArrayType):
        raise UsageError(
            f"items.columns.vector: column {items.columns.vector!r} is {kind.simpleString()}; wanted a list of numbers."
        )
    mapped = source.select(
        id_text(source, items.columns.item_id).alias("item_id"),
        (as_text(source, items.columns.text) if items.columns.text else F.lit(None).cast("string")).alias("text"),
        (named(source, items.columns.vector) if items.columns.vector else F.lit(None))
        .cast("array<double>")
        .alias("vector"),
    )
    known = mapped.where(F.col("item_id").isNotNull())
    return known.groupBy("item_id").agg(F.max("text").alias("text"), F.max("vector").alias("vector"))
