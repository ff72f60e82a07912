"""What a task makes of chunks: features or sums of some as-of dates, from tiles, from earlier sums, or both.

Memory of a task: a step of rows, a block of sums, and one copy of each version of the item vectors per worker.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from userrep.arrow import stacked
from userrep.features.accumulate import Sums, day_number, moved, with_days, without_days
from userrep.features.chunk import Block, Chunk, blocks, names_of
from userrep.features.columns import ItemMatrix, features_batch, sums_batch
from userrep.features.spec import FeatureSpec
from userrep.storage import read_parquet

Output = Literal["features", "sums"]


class Made(NamedTuple):
    """Rows of one output and as-of date."""

    output: Output
    as_of: date
    rows: pa.RecordBatch


class VectorFiles(NamedTuple):
    """The Parquet files of one version of item vectors, by modality, as the driver has pinned them."""

    files: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class PoolingJob:
    """What to make of chunks: features, sums or both of each date, with the version of the item vectors that it uses.

    ``before`` : the as-of date of the sums that chunks bring, which tiles move on from; None: they bring none.
    ``changed_days`` : days (since 1970) whose tiles before and after differ.
    ``is_whole`` : chunks bring all rows of their users; if not, what comes out are parts of sums, to be added up.
    ``adds_up`` : chunks bring parts of the sums of the dates themselves, and no tiles.
    """

    spec: FeatureSpec
    dates: tuple[tuple[date, VectorFiles], ...]
    outputs: tuple[Output, ...]
    before: date | None = None
    changed_days: tuple[int, ...] = ()
    is_whole: bool = True
    adds_up: bool = False

    def for_parts(self) -> "PoolingJob":
        """Return the job that makes parts of this one's sums."""
        return replace(self, is_whole=False, outputs=("sums",))

    def for_adding_up(self) -> "PoolingJob":
        """Return the job that makes this one's rows of such parts."""
        return replace(self, before=None, changed_days=(), adds_up=True)

    def run(self, steps: Iterable[Iterator[Chunk]]) -> Iterator[Made]:
        """Make the job's outputs of all users; a step of several chunks is made in parts, then added up."""
        for step in steps:
            first, second = next(step, None), next(step, None)
            if first is None:
                continue
            if second is None or not self.is_whole:
                for chunk in chain((first,) if second is None else (first, second), step):
                    yield from self._of_chunk(chunk)
            else:
                yield from self._in_parts(chain((first, second), step))

    def _in_parts(self, chunks: Iterable[Chunk]) -> Iterator[Made]:
        in_parts = self.for_parts()
        parts: list[pa.RecordBatch] = []
        profiles: list[pa.Table] = []
        for chunk in chunks:
            parts += [made.rows for made in in_parts._of_chunk(chunk)]
            profiles.append(chunk.profiles)
        if not parts:
            return
        sums = as_chunk_of_sums(pa.Table.from_batches(parts), context=bool(self.spec.context))
        yield from self.for_adding_up()._of_chunk(Chunk.of(sums=sums, profiles=pa.concat_tables(profiles)))

    def _of_chunk(self, chunk: Chunk) -> Iterator[Made]:
        for block in blocks(chunk, self.spec):
            states = self._added_up(block) if self.adds_up else self._moved_on(block)
            for (as_of, files), sums in zip(self.dates, states, strict=True):
                for output in self.outputs:
                    if output == "sums":
                        rows = sums_batch(sums, block, self.spec, as_of, keep_empty=not self.is_whole)
                    else:
                        matrix = item_matrix(files, self.spec)
                        picks = block.profiles.pick_items.numbered(matrix.item_ids)
                        rows = features_batch(sums, block, matrix, self.spec, as_of, item_P=picks)
                    yield Made(output, as_of, rows)

    def _days(self) -> range:
        """Return the days that windows reach, before and after."""
        as_ofs = [day_number(as_of) for as_of, _ in self.dates] + ([day_number(self.before)] if self.before else [])
        return range(min(as_ofs) - self.spec.longest, max(as_ofs))

    def _added_up(self, block: Block) -> Iterator[Sums]:
        for as_of, _ in self.dates:
            yield block.sums_rows.summed(self.spec, len(block.user_ids), self._days(), day_number(as_of))

    def _moved_on(self, block: Block) -> Iterator[Sums]:
        """Start from the sums before, or from nothing, and move from date to date; only what changes costs."""
        tiles, spec = block.tiles, self.spec
        start = day_number(self.before) if self.before else -1
        sums = block.sums_rows.summed(spec, len(block.user_ids), self._days(), start)
        without_days(sums, self.changed_days)
        with_days(sums, tiles)
        nowhere_N = np.full(len(tiles.user_N), -1)
        ring_N = np.where(tiles.before_N, tiles.rings(spec, self.before), -1) if self.before else nowhere_N
        version = self.dates[0][1]
        matrix = item_matrix(version, spec)
        item_N = block.tile_items.numbered(matrix.item_ids)
        for as_of, files in self.dates:
            if files != version:  # the sums of one version say nothing about another's
                sums = Sums.zeros_like(sums)
                ring_N, version = nowhere_N, files
                matrix = item_matrix(version, spec)
                item_N = block.tile_items.numbered(matrix.item_ids)
            next_N = np.where(tiles.after_N, tiles.rings(spec, as_of), -1)
            sums = moved(sums, tiles, item_N, matrix.vectors_IX, spec, ring_before_N=ring_N, ring_after_N=next_N)
            ring_N = next_N
            yield sums


def as_chunk_of_sums(rows: pa.Table, *, context: bool) -> pa.Table:
    """Bring rows of ``user_window_sums`` to the form that chunks have."""
    names = names_of("sums", context=context)
    days = rows.column("as_of").cast(pa.int32())
    columns = [days if name == "day" else rows.column(name) for name in names]
    return pa.Table.from_arrays(columns, names=names)


@lru_cache(maxsize=32)
def _read_matrix(version: VectorFiles, modalities: tuple[tuple[str, int], ...]) -> ItemMatrix:
    tables = {
        name: pa.concat_tables([read_parquet(path, ["item_id", "vector"]) for path in paths])
        for name, paths in version.files
    }
    texts = [table.column("item_id").cast(pa.string()) for table in tables.values()]
    item_ids = pa.chunked_array([chunk for text in texts for chunk in text.chunks], pa.string()).unique()
    vectors_IX = np.zeros((len(item_ids), sum(dim for _, dim in modalities) + len(modalities)))
    start = 0
    for m, (name, dim) in enumerate(modalities):
        if name in tables and tables[name].num_rows:
            rows = pa.compute.index_in(tables[name].column("item_id").cast(pa.string()), value_set=item_ids).to_numpy()
            vectors_IX[rows, start : start + dim] = stacked(tables[name].column("vector").combine_chunks(), dim)
            vectors_IX[rows, m - len(modalities)] = 1
        start += dim
    largest = float(np.abs(vectors_IX[:, :start]).max(initial=0))
    return ItemMatrix(item_ids, vectors_IX, largest)


def item_matrix(version: VectorFiles, spec: FeatureSpec) -> ItemMatrix:
    """Read a version of the item vectors, once per worker: items x X float64."""
    return _read_matrix(version, tuple(spec.modalities.items()))
