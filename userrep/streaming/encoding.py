"""The users of a micro-batch encoded anew: opening sums plus the events of the open days, by the batch's own code."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from userrep.features.spec import FeatureSpec
from userrep.features.sums.chunk import Chunk
from userrep.features.sums.item_matrix import VectorFiles
from userrep.features.sums.pooling import PoolingJob
from userrep.inference.encoder import worker_encoder
from userrep.sources.tombstones import Tombstones
from userrep.store.arrow import combined, listed
from userrep.store.hashing import bucket_of
from userrep.streaming.day_tiles import Records
from userrep.streaming.online import OnlineStore, Vectors
from userrep.streaming.opening_rows import OpeningFile, opening_rows
from userrep.utc import DAY_US, day_number

NO_OPENING = "no opening of as-of date"  # begins what a task says that has events past all openings

_TIME = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class UsedOpening:
    """An opening as tasks use it: its files, and the files of its item vectors."""

    as_of: date
    files: tuple[OpeningFile, ...]
    vectors: VectorFiles


@dataclass(frozen=True)
class UsedSpace:
    """A space that is encoded. ``closed``: the newest date that it has a snapshot of; None: none."""

    space_id: str
    folder: str
    content_hash: str
    closed: date | None


@dataclass(frozen=True)
class Encoding:
    """What tasks do with the rows of a micro-batch; pinned by the driver, the same for all tasks.

    ``today``: the newest day that the stream has met, if it has met one. ``item_parts``: see features/sums/pooling.py.
    """

    spec: FeatureSpec
    openings: Mapping[date, UsedOpening]
    spaces: tuple[UsedSpace, ...]
    today: date | None
    item_parts: int
    online: OnlineStore | None
    erased: Tombstones

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Encode rows of as_of, user_id, newest_at, arrived_at, records: a batch for each as-of date and space.

        Of those that count, it has space_id, as_of, user_id, event_at, computed_at, arrived_at, is_new and embedding.
        """
        rows = [pa.Table.from_batches([batch]) for batch in batches if batch.num_rows]
        if not rows:
            return
        table = pa.concat_tables(rows)
        if self.erased:
            table = table.filter(pa.array(~self.erased.hold(combined(table.column("user_id")))))
        for as_of in sorted(set(table.column("as_of").to_pylist())):
            spaces = [space for space in self.spaces if space.closed is None or as_of > space.closed]
            mine = table.filter(pc.equal(table.column("as_of"), pa.scalar(as_of, pa.date32())))
            mine = mine.filter(pa.array(self._counts(mine, as_of)))
            if not mine.num_rows or not spaces or not self._has_opening(as_of):
                continue
            yield from self._encoded(mine, self.openings[as_of], spaces)

    def _counts(self, rows: pa.Table, as_of: date) -> NDArray[np.bool_]:
        """Say which rows are of users with something on the last day of the window, or of dates up to today's.

        A window reaches further back than its last day: what is late shows in the windows of two dates or more. Up to
        today's all of them count: of a date that a user has a vector of, it would be out of date.
        """
        last_day_N = rows.column("newest_at").cast(pa.int64()).to_numpy() // DAY_US
        has_begun = self.today is not None and day_number(as_of) <= day_number(self.today) + 1
        return np.asarray((last_day_N == day_number(as_of) - 1) | has_begun)

    def _has_opening(self, as_of: date) -> bool:
        """Look for the date's opening; one that was there once is not missed, one that is to come is waited for."""
        if as_of in self.openings:
            return True
        newest = max(self.openings, default=None)
        if newest is None or as_of > newest:
            raise ValueError(f"{NO_OPENING} {as_of}; the newest is {newest}")
        return False

    def _encoded(self, rows: pa.Table, opening: UsedOpening, spaces: list[UsedSpace]) -> Iterator[pa.RecordBatch]:
        user_ids = combined(rows.column("user_id")).cast(pa.string())
        records = Records(combined(rows.column("records")))
        features, known = self._features(user_ids, records, opening)
        if not features.num_rows:  # attributes alone, say: neither an event, nor a pick, nor a registration before
            return
        place_U = pc.index_in(features.column("user_id"), value_set=user_ids).to_numpy(zero_copy_only=False)
        event_at, arrived_at = (
            combined(rows.column(name)).take(pa.array(place_U)) for name in ("newest_at", "arrived_at")
        )
        is_first_U = records.first_at() >= (day_number(opening.as_of) - 1) * DAY_US
        is_unknown = pc.invert(pc.is_in(features.column("user_id"), value_set=known))
        is_new = pc.and_(is_unknown, pa.array(is_first_U[place_U]))
        num_records_U = np.bincount(records.user_N, minlength=len(user_ids))[place_U]
        num_users = features.num_rows
        for space in spaces:
            z_UD = worker_encoder(space.folder, space.content_hash).embed(features)
            if self.online is not None:
                at_U = event_at.cast(pa.int64()).to_numpy(zero_copy_only=False)
                mine = Vectors(features.column("user_id").to_pylist(), at_U, num_records_U, z_UD)
                self.online.write(space.space_id, opening.as_of, mine)
            columns: dict[str, Any] = {
                "space_id": pa.repeat(space.space_id, num_users),
                "as_of": features.column("as_of"),
                "user_id": features.column("user_id"),
                "event_at": event_at.cast(_TIME),
                "computed_at": pa.repeat(pa.scalar(datetime.now(UTC), _TIME), num_users),
                "arrived_at": arrived_at.cast(_TIME),
                "is_new": is_new,
                "embedding": listed(z_UD),
            }
            yield pa.RecordBatch.from_pydict(columns)

    def _features(self, user_ids: pa.Array, records: Records, opening: UsedOpening) -> tuple[pa.RecordBatch, pa.Array]:
        """Make the features of users, and say which of them the opening has."""
        spec, context = self.spec, bool(self.spec.context)
        bucket_U = bucket_of(user_ids)
        sums, profiles = opening_rows(opening.files, user_ids, context=context)
        day = day_number(opening.as_of)
        place = sums.column_names.index("day")
        sums = sums.set_column(place, "day", pa.array(np.full(sums.num_rows, day, np.int32)))
        known = pa.concat_arrays([combined(part.column("user_id")) for part in (sums, profiles)])
        chunk = Chunk.of(
            tiles=records.tiles(user_ids, bucket_U, context=context),
            sums=sums,
            profiles=records.profiles(profiles, user_ids, bucket_U),
        )
        dated = ((opening.as_of, opening.vectors),)
        job = PoolingJob(spec, dated, ("features",), before=opening.as_of, item_parts=self.item_parts)
        made = pa.Table.from_batches([made.rows for made in job.alone(chunk)])
        columns = {name: combined(made.column(name)) for name in made.column_names}
        return pa.RecordBatch.from_pydict(columns), known
