"""What a task makes of chunks: features or sums of some as-of dates, from tiles, from earlier sums, or both.

Memory of a task: a step of rows, a block of sums, and of the item vectors one copy of each version that the job uses
per worker, or of the task's part of them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from userrep.features.spec import FeatureSpec
from userrep.features.sums.accumulate import Floats, Sums, moved, pooled_width, with_days, without_days
from userrep.features.sums.batches import features_batch, openings_batch, summed_picks, sums_batch
from userrep.features.sums.chunk import Block, Chunk, blocks, names_of
from userrep.features.sums.item_matrix import ItemMatrix, VectorFiles, item_matrices
from userrep.features.sums.item_parts import only_items
from userrep.store.buckets import range_of
from userrep.utc import day_number

Output = Literal["features", "sums", "openings"]


class Made(NamedTuple):
    """Rows of one output and as-of date."""

    output: Output
    as_of: date
    rows: pa.RecordBatch


@dataclass(frozen=True)
class PoolingJob:
    """What to make of chunks: features, sums, openings of each date, with the version of the item vectors that it uses.

    ``before`` : the as-of date of the sums that chunks bring, which tiles move on from; None: they bring none.
    ``changed_days`` : days (since 1970) whose tiles before and after differ.
    ``is_whole`` : chunks bring all rows of their users; if not, what comes out are parts of sums, to be added up.
    ``adds_up`` : chunks bring parts of the sums of the dates themselves, and no tiles.
    ``item_parts`` : in how many parts items are taken, equal ranges of their buckets. If in several, parts of sums
    bring the sums of the onboarding picks' vectors too, so that adding them up needs no vectors.
    ``item_part`` : the part whose items are to be summed, with ``is_whole`` false; None: all, or none of several parts.
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

    def alone(self, chunk: Chunk) -> Iterator[Made]:
        """Make the job's outputs of one chunk in this process, of items part by part where they are in several."""
        if self.item_parts == 1:
            return self._of_chunk(chunk)
        jobs = [replace(self.for_parts(), item_part=part) for part in range(self.item_parts)]
        made = [made.rows for job in jobs for made in job._of_chunk(chunk)]
        return self._summed_up(made, chunk.profiles)

    def _in_parts(self, chunks: Iterable[Chunk]) -> Iterator[Made]:
        in_parts = self.for_parts()
        parts: list[pa.RecordBatch] = []
        profiles: list[pa.Table] = []
        for chunk in chunks:
            parts += [made.rows for made in in_parts._of_chunk(chunk)]
            profiles.append(chunk.profiles)
        yield from self._summed_up(parts, pa.concat_tables(profiles))

    def _summed_up(self, parts: list[pa.RecordBatch], profiles: pa.Table) -> Iterator[Made]:
        tables = {"profiles": profiles}
        if parts:
            tables["sums"] = as_chunk_of_sums(pa.Table.from_batches(parts), context=bool(self.spec.context))
        return self.for_adding_up()._of_chunk(Chunk.of(**tables))

    def _of_chunk(self, chunk: Chunk) -> Iterator[Made]:
        if self.item_part is not None:
            chunk = only_items(chunk, range_of(self.item_part, self.item_parts))
        brings_picks = self.item_parts > 1 and not self.is_whole and self.spec.onboarding
        for block in blocks(chunk, self.spec):
            states = self._added_up(block) if self.adds_up else self._moved_on(block)
            for (as_of, files), state in zip(self.dates, states, strict=True):
                is_asked = brings_picks or "features" in self.outputs
                sums = replace(state, picks_UX=self._picks(block, state, files, as_of)) if is_asked else state
                for output in self.outputs:
                    if output == "sums":
                        rows = sums_batch(sums, block, self.spec, as_of, is_part=not self.is_whole)
                    elif output == "openings":
                        rows = openings_batch(sums, block, self.spec, as_of)
                    else:
                        rows = features_batch(sums, block, self.spec, as_of, largest=files.largest)
                    yield Made(output, as_of, rows)

    def _picks(self, block: Block, sums: Sums, files: VectorFiles, as_of: date) -> Floats:
        """Sum the vectors of what was picked before ``as_of``, or take the sums that parts have brought."""
        found = None
        if self.item_parts > 1 and self.item_part is None:
            found = sums.picks_UX
        elif len(block.profiles.pick_user_P):  # without any, no vectors are read for it
            found = summed_picks(block, self._matrices()[files], as_of)
        return found if found is not None else np.zeros((len(block.user_ids), pooled_width(self.spec)))

    def _matrices(self) -> dict[VectorFiles, ItemMatrix]:
        """Return the item vectors of each date's version, of the part that is to be summed."""
        versions = list(dict.fromkeys(files for _, files in self.dates))
        return item_matrices(versions, self.spec, range_of(self.item_part or 0, self.item_parts))

    def _days(self) -> range:
        """Return the days that windows reach, before and after."""
        as_ofs = [day_number(as_of) for as_of, _ in self.dates] + ([day_number(self.before)] if self.before else [])
        return range(min(as_ofs) - self.spec.span, max(as_ofs))

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
        matrices = self._matrices()
        item_N = block.tile_items.rows_in(matrices[version])
        for as_of, files in self.dates:
            if files != version:  # the sums of one version say nothing about another's
                sums = Sums.zeros_like(sums)
                ring_N, version = nowhere_N, files
                item_N = block.tile_items.rows_in(matrices[version])
            next_N = np.where(tiles.after_N, tiles.rings(spec, as_of), -1)
            vectors_IX = matrices[version].vectors_IX
            sums = moved(sums, tiles, item_N, vectors_IX, spec, ring_before_N=ring_N, ring_after_N=next_N)
            ring_N = next_N
            yield sums


def as_chunk_of_sums(rows: pa.Table, *, context: bool) -> pa.Table:
    """Bring rows of ``user_window_sums`` to the form that chunks have."""
    names = names_of("sums", context=context)
    days = rows.column("as_of").cast(pa.int32())
    columns = [days if name == "day" else rows.column(name) for name in names]
    return pa.Table.from_arrays(columns, names=names)
