"""Which files the item vectors of a job lie in, how large they are, and in how many parts they are to be taken."""

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from pydantic import ByteSize

from userrep.config import Config
from userrep.features.spec import FeatureSpec
from userrep.features.sums.accumulate import pooled_width
from userrep.features.sums.item_matrix import VectorFiles
from userrep.items.versions import Versions, made_versions, read_vectors
from userrep.store.buckets import partition_values, power_of_two
from userrep.store.file_tables import FileTables
from userrep.store.schemas import ITEM_VECTORS
from userrep.store.tables import Tables


class ItemParts(NamedTuple):
    """In how many parts a job takes items, a power of two, and what the vectors of all its versions take in memory."""

    num_parts: int
    num_bytes: int

    def __str__(self) -> str:
        size = ByteSize(self.num_bytes).human_readable(decimal=True, separator=" ")
        return f"item vectors of {size} in {self.num_parts} parts"


def item_parts(tables: Tables, config: Config, versions: Versions, dates: Sequence[date]) -> ItemParts:
    """Choose by size in how many parts a job of these dates takes items: one where a worker may hold all vectors.

    A worker holds, of each version that the job uses, items x (dims + modalities) float64; the items' ids, some 30
    bytes each, come on top of it. Goes by the ledger, which counts an item more than once only where modalities have
    different items. Cost: one look at a ledger.
    """
    made = made_versions(tables, versions.lineage_id)
    used = [made[version] for version in {versions.valid_at(day) for day in dates} if version in made]
    num_items = sum(min(version.num_items, sum(version.num_vectors.values())) for version in used)
    num_bytes = num_items * pooled_width(FeatureSpec.of(config)) * 8
    return ItemParts(power_of_two(num_bytes / config.spark.item_vectors_bytes), num_bytes)


def dated_vectors(
    tables: Tables, config: Config, versions: Versions, dates: Sequence[date]
) -> tuple[tuple[date, VectorFiles], ...]:
    """Pin the files of the item vectors that each date uses."""
    made = made_versions(tables, versions.lineage_id)
    found = {
        version: VectorFiles(
            _files(tables, config, versions.lineage_id, version), made[version].largest if version in made else 0.0
        )
        for version in {versions.valid_at(day) for day in dates}
    }
    return tuple((day, found[versions.valid_at(day)]) for day in dates)


def _files(tables: Tables, config: Config, lineage_id: str, version: date) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """List a version's files, by modality."""
    if isinstance(tables, FileTables):
        uri, key = tables.uri(ITEM_VECTORS), (lineage_id, version)
        found = tables.files(ITEM_VECTORS, lambda of: (of["lineage_id"], of["valid_from"]) == key)
        paths = [(f"{uri}/{file.path}", file.values["modality"]) for file in found]
    else:
        files = read_vectors(tables, lineage_id, version).inputFiles()
        paths = [(path, partition_values(path)["modality"]) for path in files]
    by_modality = {
        name: tuple(sorted(path for path, of in paths if of == name)) for name in sorted(config.item_vectors)
    }
    return tuple(by_modality.items())
