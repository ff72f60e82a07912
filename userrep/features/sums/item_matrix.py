"""Item vectors in a worker's memory: those of a range of item buckets, of the versions that a task needs.

Shapes: I items, E numbers of all modalities' vectors, M modalities, X = E + M.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from userrep.features.spec import FeatureSpec
from userrep.features.sums.accumulate import Floats, Ints, pooled_width
from userrep.store.arrow import stacked
from userrep.store.buckets import BucketRange, ranges_of_groups
from userrep.store.hashing import hash64
from userrep.store.storage import open_parquet, parquet_footer


class VectorFiles(NamedTuple):
    """One version of the item vectors, as the driver has pinned it.

    ``files``: its Parquet files, by modality. ``largest``: the largest absolute component of all of them, whichever
    part of them a task reads.
    """

    files: tuple[tuple[str, tuple[str, ...]], ...]
    largest: float


@dataclass(frozen=True)
class ItemMatrix:
    """A version's vectors of all modalities side by side, then one mark per modality; zeros where an item has none.

    ``item_ids`` are in the order of their hashes ``hash_I``.
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
        """Return each item's row, -1 for an item that is not there. ``item_ids``: text, no nulls.

        Cost: a binary search per item, whatever the size of the matrix; a hash table of all its ids would take a third
        of a second for 1.5M of them, each time. Where two items of the matrix have one hash, that is what is done.
        """
        if np.any(self.hash_I[1:] == self.hash_I[:-1]):
            found = pc.index_in(item_ids, value_set=self.item_ids).fill_null(-1)
            return found.to_numpy(zero_copy_only=False).astype(np.int64)  # type: ignore[no-any-return]
        if not len(self.hash_I) or not len(item_ids):
            return np.full(len(item_ids), -1)
        row_N = np.minimum(np.searchsorted(self.hash_I, hash64(item_ids)), len(self.hash_I) - 1)
        is_it = pc.equal(self.item_ids.take(pa.array(row_N)), item_ids).fill_null(False)
        return np.where(is_it.to_numpy(zero_copy_only=False), row_N, -1)


_held: dict[tuple[VectorFiles, str, BucketRange], ItemMatrix] = {}


def item_matrices(
    versions: Sequence[VectorFiles], spec: FeatureSpec, items: BucketRange
) -> dict[VectorFiles, ItemMatrix]:
    """Return the vectors of a range of items, of each version, read once per worker: items x X float64.

    A worker holds what the task at hand needs and lets go of all else first: of tasks that follow each other, those
    of one range of items and the same versions read nothing again.
    """
    wanted = {version: (version, str(spec.modalities), items) for version in versions}
    for key in _held.keys() - set(wanted.values()):
        del _held[key]
    for version, key in wanted.items():
        if key not in _held:
            _held[key] = read_matrix(version, spec, items)
    return {version: _held[key] for version, key in wanted.items()}


def read_matrix(version: VectorFiles, spec: FeatureSpec, items: BucketRange) -> ItemMatrix:
    """Read the vectors of a range of items. Cost: the footers, once a worker; the row groups that may hold the range.

    Memory on the way: the matrix, the ids twice, and the row groups of one file.
    """
    files = dict(version.files)
    ids = [rows.column("item_id") for paths in files.values() for rows in _rows(paths, ["item_id"], items)]
    texts = [chunk for column in ids for chunk in column.cast(pa.string()).chunks]
    matrix = ItemMatrix.empty(pa.chunked_array(texts, pa.string()).unique(), pooled_width(spec))
    start = 0
    for m, (name, dim) in enumerate(spec.modalities.items()):
        for rows in _rows(files.get(name, ()), ["item_id", "vector"], items):
            row_N = matrix.rows_of(rows.column("item_id").cast(pa.string()).combine_chunks())
            matrix.vectors_IX[row_N, start : start + dim] = stacked(rows.column("vector").combine_chunks(), dim)
            matrix.vectors_IX[row_N, m - len(spec.modalities)] = 1
        start += dim
    return matrix


def _rows(paths: Sequence[str], columns: list[str], items: BucketRange) -> Iterator[pa.Table]:
    """Read the rows of a range of items, file by file."""
    for path in paths:
        footer = parquet_footer(path)
        groups = groups_within(footer, items)
        if not groups:
            continue
        table = open_parquet(path, footer).read_row_groups(groups, columns=[*columns, "item_bucket"])
        bucket_N = table.column("item_bucket").to_numpy()
        is_inside = (bucket_N >= items.start) & (bucket_N < items.stop)
        yield (table if is_inside.all() else table.filter(pa.array(is_inside))).select(columns)


def groups_within(footer: pq.FileMetaData, items: BucketRange) -> list[int]:
    """Return the row groups of a file that may hold items of a range, by the footer's statistics."""
    return [number for number, held in enumerate(ranges_of_groups(footer, "item_bucket")) if held.meets(items)]
