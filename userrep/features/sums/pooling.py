"""The work of one pooling task: features or sums of some as-of dates from tiles, earlier sums, or both.

Memory of a task: one step of rows, one block of sums, and per worker one copy of each item-vector version of the job,
or of the task's part of it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from userrep.features.spec import FeatureSpec
from userrep.features.sums.accumulate import Floats, Sums, add_last_events, clear_last_events, move_tiles, pooled_width
from userrep.features.sums.batches import features_batch, stream_base_batch, summed_picks, sums_batch
from userrep.features.sums.blocks import UserBlock, user_blocks
from userrep.features.sums.chunk import SUMS, Chunk
from userrep.features.sums.item_matrix import ItemMatrix, VectorFiles, item_matrices
from userrep.store.buckets import range_of
from userrep.utc import day_number

Output = Literal["features", "sums", "stream_base"]


class OutputRows(NamedTuple):
    """Output rows of one kind and as-of date."""

    output: Output
    as_of: date
    rows: pa.RecordBatch


@dataclass(frozen=True)
class PoolingJob:
    """The outputs to compute from chunks for each as-of date, with the item-vector version of the date.

    ``before`` : as-of date of the sums in the chunks, from which tiles move on; None if chunks contain no sums.
    ``changed_days`` : days (since 1970) whose tiles differ between the old and the new sums.
    ``is_whole`` : chunks contain all rows of their users. If not, the outputs are partial sums.
    ``adds_up`` : chunks contain partial sums of the dates themselves, and no tiles.
    ``item_parts`` : number of parts that items are split into, as equal ranges of their buckets. If more than one,
    partial sums include the sums of the onboarding picks' vectors, so that adding them up needs no vectors.
    ``item_part`` : the part to sum, with ``is_whole`` false. None: all items, or no part of several.
    """

    spec: FeatureSpec
    dates: tuple[tuple[date, VectorFiles], ...]
    outputs: tuple[Output, ...]
    before: date | None = None
    changed_days: tuple[int, ...] = ()
    is_whole: bool = True
    adds_up: bool = False
    item_parts: int = 1
    item_part: int | None = None

    def for_parts(self) -> "PoolingJob":
        """Return the job that computes partial sums for this one."""
        return replace(self, is_whole=False, outputs=("sums",))

    def for_adding_up(self) -> "PoolingJob":
        """Return the job that computes this one's outputs from partial sums."""
        return replace(self, before=None, changed_days=(), adds_up=True)

    def run(self, chunks: Iterable[Chunk]) -> Iterator[OutputRows]:
        """Yield the outputs of all users. Users in several chunks are summed in parts, which are then added up.

        A job on whole users also sums the parts of items one after the other. Raises ValueError if the last chunk of a
        user is missing.
        """
        item_parts = range(self.item_parts) if self.item_parts > 1 and not self.adds_up else [None]
        jobs = [replace(self.for_parts(), item_part=part) for part in item_parts]
        parts: list[pa.RecordBatch] = []
        profiles: list[pa.Table] = []
        for chunk in chunks:
            if not self.is_whole or (chunk.is_last and not profiles and len(jobs) == 1):
                yield from self._run_chunk(chunk)
                continue
            parts += [part.rows for job in jobs for part in job._run_chunk(chunk)]
            profiles.append(chunk.profiles)
            if chunk.is_last:
                sums = as_chunk_of_sums(pa.Table.from_batches(parts)) if parts else SUMS.empty_table()
                yield from self.for_adding_up()._run_chunk(Chunk(sums=sums, profiles=pa.concat_tables(profiles)))
                parts, profiles = [], []
        if profiles:
            raise ValueError(f"pooling: the last chunk of a user is missing, got {len(profiles)} chunks before it")

    def _run_chunk(self, chunk: Chunk) -> Iterator[OutputRows]:
        if self.item_part is not None:
            chunk = chunk.only_items(range_of(self.item_part, self.item_parts))
        adds_picks = self.item_parts > 1 and not self.is_whole and self.spec.onboarding
        for block in user_blocks(chunk, self.spec):
            states = self._added_up(block) if self.adds_up else self._move_on(block)
            for (as_of, files), state in zip(self.dates, states, strict=True):
                needs_picks = adds_picks or "features" in self.outputs
                sums = replace(state, picks_UX=self._picks(block, state, files, as_of)) if needs_picks else state
                for output in self.outputs:
                    if output == "sums":
                        rows = sums_batch(sums, block, self.spec, as_of, is_part=not self.is_whole)
                    elif output == "stream_base":
                        rows = stream_base_batch(sums, block, self.spec, as_of)
                    else:
                        rows = features_batch(sums, block, self.spec, as_of, largest=files.largest)
                    yield OutputRows(output, as_of, rows)

    def _picks(self, block: UserBlock, sums: Sums, files: VectorFiles, as_of: date) -> Floats:
        """Sum the vectors of the picks before ``as_of``, or return the sums contained in partial sums."""
        picks_UX = None
        if self.item_parts > 1 and self.item_part is None:
            picks_UX = sums.picks_UX
        elif len(block.profiles.pick_user_P):  # without picks, no vectors need to be read
            picks_UX = summed_picks(block, self._matrices()[files], as_of)
        return picks_UX if picks_UX is not None else np.zeros((len(block.user_ids), pooled_width(self.spec)))

    def _matrices(self) -> dict[VectorFiles, ItemMatrix]:
        """Return the item vectors of each date's version, for the part to sum."""
        return item_matrices(dict(self.dates).values(), self.spec, range_of(self.item_part or 0, self.item_parts))

    def _days(self) -> range:
        """Return the days covered by the windows of all dates, including the earlier sums."""
        as_ofs = [day_number(as_of) for as_of, _ in self.dates] + ([day_number(self.before)] if self.before else [])
        return range(min(as_ofs) - self.spec.span, max(as_ofs))

    def _added_up(self, block: UserBlock) -> Iterator[Sums]:
        for as_of, _ in self.dates:
            yield block.sums_rows.summed(self.spec, len(block.user_ids), self._days(), day_number(as_of))

    def _move_on(self, block: UserBlock) -> Iterator[Sums]:
        """Start from the earlier sums or from zero and move from date to date; only rows that change cost time."""
        tiles, spec = block.tiles, self.spec
        start = day_number(self.before) if self.before else -1
        sums = block.sums_rows.summed(spec, len(block.user_ids), self._days(), start)
        clear_last_events(sums, self.changed_days)
        add_last_events(sums, tiles)
        no_ring_N = np.full(len(tiles.user_N), -1)
        ring_N = np.where(tiles.before_N, tiles.rings(spec, self.before), -1) if self.before else no_ring_N
        version = self.dates[0][1]
        matrices = self._matrices()
        item_N = block.tile_items.rows_in(matrices[version])
        for as_of, files in self.dates:
            if files != version:  # sums of different versions are not comparable
                sums = sums.emptied()
                ring_N, version = no_ring_N, files
                item_N = block.tile_items.rows_in(matrices[version])
            next_N = np.where(tiles.after_N, tiles.rings(spec, as_of), -1)
            vectors_IX = matrices[version].vectors_IX
            sums = move_tiles(sums, tiles, item_N, vectors_IX, spec, old_ring_N=ring_N, new_ring_N=next_N)
            ring_N = next_N
            yield sums


def as_chunk_of_sums(rows: pa.Table) -> pa.Table:
    """Convert rows of ``user_window_sums`` to the schema of chunks."""
    return rows.append_column("day", rows.column("as_of").cast(pa.int32())).select(SUMS.names)
