"""The item vectors of a job: their files, pinned by the driver, and matrices of a range of items in a worker's memory.

Shapes: I items, E numbers of all modalities' vectors, M modalities, X = E + M.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import ByteSize

from userrep.config import Config
from userrep.features.spec import FeatureSpec
from userrep.features.sums.accumulate import Floats, Ints, pooled_width
from userrep.items.vectors import slices_of
from userrep.items.versions import Versions, read_vectors, version_records
from userrep.store.arrow import stacked
from userrep.store.bucket_reader import read_row_groups, row_group_ranges
from userrep.store.buckets import BucketRange, partition_values, power_of_two
from userrep.store.data_files import matches
from userrep.store.file_tables import FileTables
from userrep.store.schemas import ITEM_VECTORS
from userrep.store.tables import Tables
from userrep.store.xxhash import hash64


class ItemParts(NamedTuple):
    """The number of parts (a power of two) that items are processed in, and the memory of all vectors of a job."""

    num_parts: int
    num_bytes: int

    def __str__(self) -> str:
        size = ByteSize(self.num_bytes).human_readable(decimal=True, separator=" ")
        return f"item vectors of {size} in {self.num_parts} parts"


def item_parts(tables: Tables, config: Config, versions: Versions, dates: Iterable[date]) -> ItemParts:
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


class VectorFiles(NamedTuple):
    """One version of the item vectors, pinned by the driver.

    ``files``: the modality and URI of each of its Parquet files, sorted. ``largest``: the largest absolute component of
    all its vectors, including those that a task does not read.
    """

    files: tuple[tuple[str, str], ...]
    largest: float


def vector_files(tables: Tables, versions: Versions, dates: Iterable[date]) -> dict[date, VectorFiles]:
    """Pin the item-vector files that each date uses. Cost: one ledger read."""
    records = version_records(tables, versions.lineage_id)

    @cache
    def files_of(version: date) -> VectorFiles:
        if isinstance(tables, FileTables):
            files = tables.files(ITEM_VECTORS, matches([{"lineage_id": versions.lineage_id, "valid_from": version}]))
            uris = [(file.values["modality"], file.uri) for file in files]
        else:
            paths = read_vectors(tables, versions.lineage_id, version).inputFiles()
            uris = [(partition_values(path)["modality"], path) for path in paths]
        return VectorFiles(tuple(sorted(uris)), records[version].largest if version in records else 0.0)

    return {day: files_of(versions.valid_at(day)) for day in dates}


class ItemMatrix(NamedTuple):
    """A version's vectors of all modalities side by side, then one mark per modality; zeros if an item has no vector.

    ``item_ids`` are sorted by their hashes ``hash_I``.
    """

    item_ids: pa.Array
    vectors_IX: Floats
    hash_I: NDArray[np.uint64]

    @classmethod
    def empty(cls, item_ids: pa.Array, width: int) -> "ItemMatrix":
        """Return a matrix of zeros for distinct items (text, no nulls)."""
        hash_I = hash64(item_ids)
        order = np.argsort(hash_I)
        return cls(item_ids.take(pa.array(order)), np.zeros((len(item_ids), width)), hash_I[order])

    def rows_of(self, item_ids: pa.Array) -> Ints:
        """Return each item's row, -1 for unknown items. ``item_ids``: text, no nulls.

        Cost: one binary search per item. A hash table of 1.5M ids would take a third of a second per call; it is used
        only if two items of the matrix have the same hash.
        """
        if np.any(self.hash_I[1:] == self.hash_I[:-1]):
            row_N = pc.index_in(item_ids, value_set=self.item_ids).fill_null(-1)
            return row_N.to_numpy(zero_copy_only=False).astype(np.int64)  # type: ignore[no-any-return]
        if not len(self.hash_I) or not len(item_ids):
            return np.full(len(item_ids), -1)
        row_N = np.minimum(np.searchsorted(self.hash_I, hash64(item_ids)), len(self.hash_I) - 1)
        is_match = pc.equal(self.item_ids.take(pa.array(row_N)), item_ids).fill_null(False)
        return np.where(is_match.to_numpy(zero_copy_only=False), row_N, -1)


_matrix_cache: dict[tuple[VectorFiles, str, BucketRange], ItemMatrix] = {}


def item_matrices(
    versions: Iterable[VectorFiles], spec: FeatureSpec, items: BucketRange
) -> dict[VectorFiles, ItemMatrix]:
    """Return the vectors of a range of items for each version: items x X float64, cached per worker.

    The cache contains only what the current task needs, so consecutive tasks with the same range of items and the same
    versions do not read again.
    """
    keys = {version: (version, str(spec.modalities), items) for version in versions}
    for key in _matrix_cache.keys() - set(keys.values()):
        del _matrix_cache[key]
    for version, key in keys.items():
        if key not in _matrix_cache:
            _matrix_cache[key] = read_matrix(version, spec, items)
    return {version: _matrix_cache[key] for version, key in keys.items()}


def read_matrix(version: VectorFiles, spec: FeatureSpec, items: BucketRange) -> ItemMatrix:
    """Read the vectors of a range of items.

    Cost: the footers, once per worker, and the row groups that can contain the range. Peak memory: the matrix, the ids
    twice, and the row groups of one file.
    """
    ids = [rows.column("item_id") for rows in _rows([uri for _, uri in version.files], ["item_id"], items)]
    texts = [chunk for column in ids for chunk in column.cast(pa.string()).chunks]
    matrix = ItemMatrix.empty(pa.chunked_array(texts, pa.string()).unique(), pooled_width(spec))
    for m, (name, part) in enumerate(slices_of(spec.modalities).items()):
        files = [uri for modality, uri in version.files if modality == name]
        for rows in _rows(files, ["item_id", "vector"], items):
            row_N = matrix.rows_of(rows.column("item_id").cast(pa.string()).combine_chunks())
            vectors = rows.column("vector").combine_chunks()
            matrix.vectors_IX[row_N, part] = stacked(vectors, spec.modalities[name])
            matrix.vectors_IX[row_N, m - len(spec.modalities)] = 1
    return matrix


def _rows(paths: Sequence[str], columns: list[str], items: BucketRange) -> Iterator[pa.Table]:
    """Yield the rows of a range of items, file by file."""
    for path in paths:
        groups = row_group_ranges(path, "item_bucket").meeting(items.start, items.stop - 1)
        if not len(groups):
            continue
        table = read_row_groups(path, groups, [*columns, "item_bucket"], use_threads=True)
        bucket_N = table.column("item_bucket").to_numpy()
        is_inside = (bucket_N >= items.start) & (bucket_N < items.stop)
        yield (table if is_inside.all() else table.filter(pa.array(is_inside))).select(columns)
