"""Versions of the item vectors by date: one valid from V has seen events before V only.

Versions of a lineage lie ``refit_days`` apart. The first one that a lineage gets anchors the grid.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from userrep.events.buckets import buckets_of_share, item_bucket, power_of_two, slice_number
from userrep.events.columns import as_text, check_columns, id_text, named, type_of
from userrep.events.source import read_source
from userrep.events.tiles import TileLedger, read_tiles, tile_ledger
from userrep.ids import short_hash
from userrep.items.als import TOO_LITTLE_MEMORY, behaviour_vectors, interactions
from userrep.items.text import content_vectors, fit_basis, tokens
from userrep.items.vectors import given_vectors
from userrep.schemas import ITEM_INDEX, ITEM_VECTOR_VERSIONS, ITEM_VECTORS
from userrep.sql import sql_date, sql_key
from userrep.storage import artifacts_root, exists
from userrep.tables import Tables
from userrep.utc import utc_now

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
    """Make the versions ``wanted``, oldest first, each committed when it is complete. Returns the vectors written.

    Cost: one pass over the items of all tiles before the last version, and one over the tiles of the users that ALS is
    fitted on (sorted by user in their files, so that little of other users is read); their counts by user, item and
    version are cached. Then one ALS fit per version and behavior modality, and a few passes over the item table.
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
        for k, version in enumerate(sorted(wanted)):
            present = versions.present | {v for v in wanted if v < version}
            earlier, later = [v for v in present if v < version], [v for v in present if v > version]
            before = max(earlier) if earlier else min(later, default=None)  # a later one gives its axes only
            with _memory_error_told():
                num_vectors += _write_version(inputs, version, before)
            report(f"item vectors valid from {version} ({k + 1} of {len(wanted)})")
    finally:
        for cached in (pairs, index, *inputs.constant.values()):
            cached.unpersist()
    return num_vectors


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

    def vectors(self, version: date, before: date | None) -> DataFrame:
        """Return all modalities of one version: modality, item_index, vector."""
        return reduce(
            DataFrame.unionByName, (self._modality(name, version, before) for name in self.config.item_vectors)
        )

    def _modality(self, name: str, version: date, before: date | None) -> DataFrame:
        settings = self.config.item_vectors[name]
        if isinstance(settings, AlsVectors):
            vectors = self._behaviour(name, settings, version, before)
        else:
            if name not in self.constant:
                if isinstance(settings, TextVectors):
                    self.constant[name] = self._content(name, settings).cache()
                else:
                    self.constant[name] = given_vectors(self._numbered_items(), dim=settings.dim).cache()
            vectors = self.constant[name]
        return vectors.select(F.lit(name).alias("modality"), "item_index", "vector")

    def _behaviour(self, name: str, settings: AlsVectors, version: date, before: date | None) -> DataFrame:
        is_sampled = F.col("user_bucket") < self.bucket_limits[version][name]
        known = self.pairs.where((F.col("valid_from") <= F.lit(version)) & is_sampled)
        if settings.solver == "spark" and known.isEmpty():  # Spark's ALS fails without a pair
            return known.select("item_index", F.array().cast("array<float>").alias("vector"))
        other = read_vectors(self.tables, self.lineage_id, before).where(f"modality = '{name}'") if before else None
        is_earlier = before is not None and before < version
        return behaviour_vectors(known, settings=settings, before=other, is_earlier=is_earlier)

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


def _write_version(inputs: _Inputs, version: date, before: date | None) -> int:
    """Write all modalities of a version in one commit, then record that it is complete; return the number of vectors.

    Files hold equal ranges of item buckets, sorted, some 64 MB each of the widest modality, so that a task that wants
    some items only reads their row groups. Cost: the vectors are cached, and shuffled once.
    """
    key: dict[str, str | date | int] = {"lineage_id": inputs.lineage_id, "valid_from": version}
    rows = inputs.vectors(version, before).join(inputs.index, on="item_index", how="inner").cache()
    try:
        largest = F.greatest(F.array_max("vector"), -F.array_min("vector")).cast("double")
        found = (
            rows.groupBy("modality").agg(F.count("*").alias("num_vectors"), F.max(largest).alias("largest")).collect()
        )
        num_items = inputs.index.count()
        widest = max(settings.dim for settings in inputs.config.item_vectors.values())
        num_files = power_of_two(num_items * widest * 4 / _FILE_BYTES)
        keyed = rows.withColumns({name: F.lit(value) for name, value in key.items()} | {"item_bucket": item_bucket()})
        in_order = keyed.repartitionById(num_files, slice_number(num_files, "item_bucket"))
        in_order = in_order.sortWithinPartitions("modality", "item_bucket", "item_id")
        inputs.tables.replace(in_order, ITEM_VECTORS, [key])
    finally:
        rows.unpersist()
    num_vectors = {row.modality: row.num_vectors for row in found}
    made = MadeVersion(num_items, num_vectors, max((row.largest for row in found), default=0.0))
    done = {**key, **made._asdict(), "built_at": utc_now()}
    inputs.tables.add(ITEM_VECTOR_VERSIONS, [done], replacing=sql_key(key))
    return sum(num_vectors.values())


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
