"""The files and size of the item vectors of a job, and the number of parts to process them in."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import NamedTuple

from pydantic import ByteSize

from userrep.config import Config
from userrep.features.spec import FeatureSpec
from userrep.features.sums.accumulate import pooled_width
from userrep.features.sums.item_matrix import VectorFiles
from userrep.items.versions import Versions, read_vectors, version_records
from userrep.store.buckets import partition_values, power_of_two
from userrep.store.data_files import matches
from userrep.store.file_tables import FileTables
from userrep.store.schemas import ITEM_VECTORS
from userrep.store.tables import Tables


class ItemParts(NamedTuple):
    """The number of parts (a power of two) that items are processed in, and the memory of all vectors of a job."""

    num_parts: int
    num_bytes: int

    def __str__(self) -> str:
        size = ByteSize(self.num_bytes).human_readable(decimal=True, separator=" ")
        return f"item vectors of {size} in {self.num_parts} parts"


def item_parts(tables: Tables, config: Config, versions: Versions, dates: Sequence[date]) -> ItemParts:
    """Choose the number of parts by size: one if a worker can keep all vectors of these dates in memory.

    A worker keeps items x (dims + modalities) float64 for each version that the job uses. Item ids (some 30 bytes each)
    are not included in ``num_bytes``. Sizes come from the ledger, which counts an item more than once only if
    modalities have different items. Cost: one ledger read.
    """
    records = version_records(tables, versions.lineage_id)
    used = [records[version] for version in {versions.valid_at(day) for day in dates} if version in records]
    num_items = sum(min(version.num_items, sum(version.num_vectors.values())) for version in used)
    num_bytes = num_items * pooled_width(FeatureSpec.of(config)) * 8
    return ItemParts(power_of_two(num_bytes / config.spark.item_vectors_bytes), num_bytes)


def dated_vectors(
    tables: Tables, config: Config, versions: Versions, dates: Sequence[date]
) -> tuple[tuple[date, VectorFiles], ...]:
    """Pin the item-vector files that each date uses."""
    files = vector_files(tables, config, versions.lineage_id, map(versions.valid_at, dates))
    return tuple((day, files[versions.valid_at(day)]) for day in dates)


def vector_files(tables: Tables, config: Config, lineage_id: str, versions: Iterable[date]) -> dict[date, VectorFiles]:
    """Pin the item-vector files of some versions. Cost: one ledger read."""
    records, pinned = version_records(tables, lineage_id), {}
    for version in set(versions):
        if isinstance(tables, FileTables):
            files = tables.files(ITEM_VECTORS, matches([{"lineage_id": lineage_id, "valid_from": version}]))
            uris = [(file.values["modality"], file.uri) for file in files]
        else:
            paths = read_vectors(tables, lineage_id, version).inputFiles()
            uris = [(partition_values(path)["modality"], path) for path in paths]
        by_modality = (
            (name, tuple(sorted(uri for modality, uri in uris if modality == name)))
            for name in sorted(config.item_vectors)
        )
        pinned[version] = VectorFiles(tuple(by_modality), records[version].largest if version in records else 0.0)
    return pinned
