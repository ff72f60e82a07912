"""Training of missing versions of the item vectors: several small versions share a Spark job and a commit."""

import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import date
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import AlsVectors, Config, TextVectors
from userrep.errors import changed_meanwhile
from userrep.items.als import PlannedFit, behaviour_vectors, interactions, memory_error_with_advice
from userrep.items.item_index import extended_index, read_items
from userrep.items.text import text_vectors
from userrep.items.vectors import given_vectors
from userrep.items.versions import VersionRecord, Versions, version_records
from userrep.spark.releases import repartition_by_number
from userrep.store.buckets import buckets_of_share, item_bucket, power_of_two, slice_number
from userrep.store.schemas import ITEM_VECTOR_VERSIONS, ITEM_VECTORS
from userrep.store.sql import sql_any
from userrep.store.tables import Keys, Tables
from userrep.tiles.ledger import TileLedger, read_tiles, tile_ledger
from userrep.utc import utc_now

logger = logging.getLogger(__name__)

_GROUP_TILES = 10_000_000  # maximum total of the tiles of the versions that are fitted together
_FILE_BYTES = 2**26  # approximate size of the vectors in a file


def train_versions(
    tables: Tables, config: Config, versions: Versions, missing: Sequence[date], *, ledger: TileLedger | None = None
) -> int:
    """Build the versions ``missing``, oldest first. Returns the number of vectors written.

    ``ledger``: the tile ledger pinned by the run; by default, the newest.

    Small versions are built and committed together, up to ten million tiles at a time, because one Spark job for
    several costs less than one each. Cost: one pass over the items of all tiles before the last version, and one over
    the tiles of the users that ALS is fitted on (files are sorted by user, so other users are mostly skipped). Their
    counts by user, item and version are cached. Then one ALS fit per version and behavior modality, and a few passes
    over the item table.
    """
    items = read_items(tables, config.items) if config.items else None
    ledger = ledger or tile_ledger(tables)
    tiles = read_tiles(tables, start=None, end=max(missing), ledger=ledger)
    index = extended_index(tables, versions.lineage_id, items, tiles).cache()
    als = [settings for settings in config.item_vectors.values() if isinstance(settings, AlsVectors)]
    most_tiles = max((settings.max_tiles for settings in als), default=0)
    pairs = interactions(tiles, index, {day: _bucket_limit(ledger, day, most_tiles) for day in missing}).cache()
    inputs = _Inputs(tables, config, versions.lineage_id, ledger, index, items, pairs)
    num_vectors = done = 0
    try:
        for group in _groups(config, ledger, sorted(missing)):
            with memory_error_with_advice():
                num_vectors += _write_versions(inputs, group, {*versions.present, *sorted(missing)[:done]})
            done += len(group)
            dates = f"{group[0]} to {group[-1]}" if len(group) > 1 else f"{group[0]}"
            logger.info(f"item vectors valid from {dates} ({done} of {len(missing)})")
    finally:
        for cached in (pairs, index, *inputs.constant.values()):
            cached.unpersist()
    return num_vectors


def _groups(config: Config, ledger: TileLedger, missing: Sequence[date]) -> list[list[date]]:
    """Group consecutive versions to build together; larger versions and those fitted by Spark stay separate."""
    kinds = config.item_vectors.values()
    is_separate = any(isinstance(kind, AlsVectors) and kind.solver == "spark" for kind in kinds)
    groups: list[list[date]] = []
    group_tiles = 0
    for version in missing:
        num_tiles = ledger.num_tiles(ledger.revisions(None, version).items())
        if not groups or is_separate or group_tiles + num_tiles > _GROUP_TILES:
            groups.append([])
            group_tiles = 0
        groups[-1].append(version)
        group_tiles += num_tiles
    return groups


@dataclass(frozen=True)
class _Inputs:
    """The inputs shared by all versions of a run; ``items`` is None without an item table."""

    tables: Tables
    config: Config
    lineage_id: str
    ledger: TileLedger
    index: DataFrame
    items: DataFrame | None
    pairs: DataFrame
    constant: dict[str, DataFrame] = field(default_factory=dict)  # cached modalities that are the same for all versions

    def modality(self, name: str, group: Sequence[date], present: AbstractSet[date]) -> DataFrame:
        """Return one modality of some versions: modality, valid_from, item_index, vector."""
        settings = self.config.item_vectors[name]
        if isinstance(settings, AlsVectors):
            vectors = self._behaviour(name, settings, group, present)
        else:
            if name not in self.constant:
                assert self.items is not None
                items = self.items.join(self.index, on="item_id", how="inner")
                if isinstance(settings, TextVectors):
                    path = f"{self.tables.artifacts_root}/artifacts/text/{self.lineage_id}-{name}.safetensors"
                    vectors = text_vectors(items, settings=settings, path=path, is_first=not present)
                else:
                    vectors = given_vectors(items, dim=settings.dim)
                self.constant[name] = vectors.cache()
            versions = F.explode(F.array(*(F.lit(version) for version in group)))
            vectors = self.constant[name].withColumn("valid_from", versions)
        return vectors.select(F.lit(name).alias("modality"), "valid_from", "item_index", "vector")

    def _behaviour(
        self, name: str, settings: AlsVectors, group: Sequence[date], present: AbstractSet[date]
    ) -> DataFrame:
        plan = []
        for k, version in enumerate(group):
            available = {*present, *group[:k]}
            axes_from = max((v for v in available if v < version), default=min(available, default=None))
            plan.append(PlannedFit(version, _bucket_limit(self.ledger, version, settings.max_tiles), axes_from))
        stored = present & {planned.axes_from for planned in plan}
        keys: Keys = [{"lineage_id": self.lineage_id, "valid_from": day, "modality": name} for day in stored]
        known = self.tables.read(ITEM_VECTORS, keys) if keys else None
        return behaviour_vectors(self.pairs, plan, known, settings=settings)


def _write_versions(inputs: _Inputs, group: Sequence[date], present: AbstractSet[date]) -> int:
    """Write all modalities of some versions in one commit, then record the versions. Returns the number of vectors.

    Files contain equal ranges of item buckets, sorted, with about 64 MB of the widest modality each, so that a task
    that needs some items reads only their row groups. Cost: the vectors are cached, and shuffled once.

    Raises UserrepError if another run has built one of the versions meanwhile.
    """
    since = inputs.tables.version(ITEM_VECTORS)
    keys: Keys = [{"lineage_id": inputs.lineage_id, "valid_from": version} for version in group]
    modalities = (inputs.modality(name, group, present) for name in inputs.config.item_vectors)
    rows = reduce(DataFrame.unionByName, modalities).join(inputs.index, on="item_index", how="inner").cache()
    try:
        largest = F.greatest(F.array_max("vector"), -F.array_min("vector")).cast("double")
        measures = F.count("*").alias("num_vectors"), F.max(largest).alias("largest")
        counts = rows.groupBy("valid_from", "modality").agg(*measures).collect()
        num_items = inputs.index.count()
        widest = max(settings.dim for settings in inputs.config.item_vectors.values())
        num_files = power_of_two(num_items * widest * 4 / _FILE_BYTES)
        keyed = rows.withColumns({"lineage_id": F.lit(inputs.lineage_id), "item_bucket": item_bucket()})
        in_order = repartition_by_number(keyed, num_files, slice_number(num_files, "item_bucket"))
        in_order = in_order.sortWithinPartitions("valid_from", "modality", "item_bucket", "item_id")
        if version_records(inputs.tables, inputs.lineage_id).keys() & set(group):  # features may already use these
            raise changed_meanwhile(ITEM_VECTOR_VERSIONS.name)
        inputs.tables.replace(in_order, ITEM_VECTORS, keys, since=since)
    finally:
        rows.unpersist()
    records = []
    for key in keys:
        counted = [row for row in counts if row.valid_from == key["valid_from"]]
        num_vectors = dict.fromkeys(inputs.config.item_vectors, 0) | {row.modality: row.num_vectors for row in counted}
        record = VersionRecord(num_items, num_vectors, max((row.largest for row in counted), default=0.0))
        records.append({**key, **record._asdict(), "built_at": utc_now()})
    if not inputs.tables.change(
        ITEM_VECTOR_VERSIONS, lambda rows: None if {row.valid_from for row in rows} & set(group) else records,
        replacing=sql_any(keys), lineage_id=inputs.lineage_id,
    ):  # fmt: skip
        raise changed_meanwhile(ITEM_VECTOR_VERSIONS.name)
    return sum(row.num_vectors for row in counts)


def _bucket_limit(ledger: TileLedger, version: date, max_tiles: int) -> int:
    """Return the exclusive upper user bucket below which there are about ``max_tiles`` tiles before a version."""
    num_tiles = ledger.num_tiles(ledger.revisions(None, version).items())
    return buckets_of_share(max_tiles / max(1, num_tiles))
