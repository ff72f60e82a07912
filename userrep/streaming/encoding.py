"""The tasks of a micro-batch: encode its users with the functions of the batch, and write files of their vectors.

A user's inputs are the sums of the stream base plus the events of the open days.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from userrep.config import Storage
from userrep.features.spec import FeatureSpec
from userrep.features.sums.chunk import Chunk, schema_of
from userrep.features.sums.item_matrix import VectorFiles
from userrep.features.sums.pooling import PoolingJob
from userrep.inference.encoder import worker_encoder
from userrep.sources.tombstones import Tombstones
from userrep.store.arrow import combined, listed, one_batch
from userrep.store.bucket_reader import BucketFiles, row_group_ranges
from userrep.store.filesystem import parquet_footer
from userrep.store.parquet_writer import TableWriter, Target
from userrep.store.xxhash import bucket_of
from userrep.streaming.record_tiles import Records
from userrep.streaming.redis_store import OnlineStore
from userrep.utc import DAY_US, day_number

WRITTEN = "file STRING, newest_at TIMESTAMP, seconds ARRAY<DOUBLE>"  # of the files of a micro-batch
NO_BASE = "no stream base for as-of date"  # start of the error of a task that waits for a base

_TIME = pa.timestamp("us", "UTC")
_SECOND = 1_000_000  # microseconds
_MOST_LATENCIES = 1000  # of a file, which the driver collects


class PinnedBase(NamedTuple):
    """The stream base of an as-of date: its files and the files of its item vectors."""

    as_of: date
    files: BucketFiles
    vectors: VectorFiles


class PinnedSpace(NamedTuple):
    """A space to encode. ``closed`` is the as-of date of its newest snapshot, None without a snapshot."""

    space_id: str
    folder: str
    content_hash: str
    closed: date | None


_files_of_bases: set[str] = set()  # of this worker's last micro-batch


def _forget_other_files(bases: Iterable[PinnedBase]) -> None:
    """Drop the footers of all files if the bases have changed: those of replaced bases would fill the memory."""
    uris = {uri for base in bases for uri in base.files.uris}
    if uris != _files_of_bases:
        row_group_ranges.cache_clear()
        parquet_footer.cache_clear()
        _files_of_bases.clear()
        _files_of_bases.update(uris)


@dataclass(frozen=True)
class Encoding:
    """The function that encodes rows of a micro-batch, with inputs pinned by the driver for all tasks.

    ``bases`` are the stream bases by as-of date. ``today`` is the newest day with an event in any earlier batch.
    ``item_parts`` is explained in features/sums/pooling.py. ``storage``: type that vectors are rounded to.
    ``waits_from``: first date whose base is waited for if it is missing.
    """

    spec: FeatureSpec
    bases: Mapping[date, PinnedBase]
    spaces: tuple[PinnedSpace, ...]
    today: date | None
    item_parts: int
    online: OnlineStore | None
    erased: Tombstones
    storage: Storage = "float32"
    waits_from: date = date.min

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Encode rows of as_of, user_id, newest_at, arrived_at, records.

        Yields one batch per as-of date and space without a snapshot of that date or a later one, with the columns
        space_id, as_of, user_id, event_at, computed_at, arrived_at, is_new, embedding. Rows of erased users and rows
        that do not need an update are left out.
        """
        rows = [pa.Table.from_batches([batch]) for batch in batches if batch.num_rows]
        if not rows:
            return
        _forget_other_files(self.bases.values())
        table = pa.concat_tables(rows)
        if self.erased:
            table = table.filter(pa.array(~self.erased.mask(combined(table.column("user_id")))))
        for as_of in sorted(set(table.column("as_of").to_pylist())):
            spaces = [space for space in self.spaces if space.closed is None or as_of > space.closed]
            dated = table.filter(pc.equal(table.column("as_of"), pa.scalar(as_of, pa.date32())))
            dated = dated.filter(pa.array(self._needs_update(dated, as_of)))
            if dated.num_rows and spaces and self._has_base(as_of):
                yield from self._encoded(dated, self.bases[as_of], spaces)

    def _needs_update(self, rows: pa.Table, as_of: date) -> NDArray[np.bool_]:
        """Return the mask of rows to encode.

        Only users with a record on the last day before ``as_of`` are encoded, except for dates up to the day after
        ``today``. Users may have vectors of these dates already, which a late event on any day of the window changes.
        """
        last_day_N = rows.column("newest_at").cast(pa.int64()).to_numpy() // DAY_US
        has_begun = self.today is not None and day_number(as_of) <= day_number(self.today) + 1
        return np.asarray((last_day_N == day_number(as_of) - 1) | has_begun)

    def _has_base(self, as_of: date) -> bool:
        """Return whether the date has a stream base. Raise ValueError if it should, so that the batch waits for it."""
        if as_of not in self.bases and as_of >= self.waits_from:
            raise ValueError(f"{NO_BASE} {as_of}, the newest is {max(self.bases, default=None)}")
        return as_of in self.bases

    def _encoded(self, rows: pa.Table, base: PinnedBase, spaces: list[PinnedSpace]) -> Iterator[pa.RecordBatch]:
        user_ids = combined(rows.column("user_id")).cast(pa.string())
        records = Records(combined(rows.column("records")))
        features, known = self._features(user_ids, records, base)
        if not features.num_rows:  # for example only attributes: no event, pick or registration before the date
            return
        row_U = pc.index_in(features.column("user_id"), value_set=user_ids).to_numpy(zero_copy_only=False)
        times = rows.select(["newest_at", "arrived_at"]).take(pa.array(row_U))
        event_at, arrived_at = (combined(column).cast(_TIME) for column in times.columns)
        is_first_U = records.first_at() >= (day_number(base.as_of) - 1) * DAY_US
        is_unknown = pc.invert(pc.is_in(features.column("user_id"), value_set=known))
        is_new = pc.and_(is_unknown, pa.array(is_first_U[row_U]))
        num_records_U = np.bincount(records.user_N, minlength=len(user_ids))[row_U]
        num_users = features.num_rows
        for space in spaces:
            z_UD = worker_encoder(space.folder, space.content_hash, self.storage).embed(features)
            if self.online is not None:
                self.online.write(
                    space.space_id,
                    base.as_of,
                    features.column("user_id").to_pylist(),
                    event_at_U=event_at.cast(pa.int64()).to_numpy(zero_copy_only=False),
                    num_records_U=num_records_U,
                    z_UD=z_UD,
                )
            columns: dict[str, Any] = {
                "space_id": pa.repeat(space.space_id, num_users),
                "as_of": features.column("as_of"),
                "user_id": features.column("user_id"),
                "event_at": event_at,
                "computed_at": pa.repeat(pa.scalar(datetime.now(UTC), _TIME), num_users),
                "arrived_at": arrived_at,
                "is_new": is_new,
                "embedding": listed(z_UD),
            }
            yield pa.RecordBatch.from_pydict(columns)

    def _features(self, user_ids: pa.Array, records: Records, base: PinnedBase) -> tuple[pa.RecordBatch, pa.Array]:
        """Return the users' features, and the ids of the users in the stream base."""
        context, bucket_U = bool(self.spec.context), bucket_of(user_ids)
        sums, profiles = read_base_rows(base.files, user_ids, day=day_number(base.as_of), context=context)
        known = pa.concat_arrays([combined(part.column("user_id")) for part in (sums, profiles)])
        chunk = Chunk(
            tiles=records.tiles(user_ids, bucket_U, context=context),
            sums=sums,
            profiles=records.profiles(profiles, user_ids, bucket_U),
        )
        dated = ((base.as_of, base.vectors),)
        job = PoolingJob(self.spec, dated, ("features",), before=base.as_of, item_parts=self.item_parts)
        features = pa.Table.from_batches([pooled.rows for pooled in job.run([chunk])])
        return one_batch(features), known


def read_base_rows(files: BucketFiles, user_ids: pa.Array, *, day: int, context: bool) -> tuple[pa.Table, pa.Table]:
    """Read the base sums and the profiles of users, with the columns of ``Chunk``. ``day``: that of the sums.

    ``user_ids`` are distinct strings without nulls. A user without sums or profile has no row in that table. Cost and
    memory: one or two row groups per user.
    """
    sums, profiles = (schema_of(kind, context=context) for kind in ("sums", "profiles"))
    stored = dict.fromkeys(name for name in (*sums.names, *profiles.names) if name != "day")
    rows = files.rows_of_users(user_ids, list(stored))
    if not rows.num_rows:
        return sums.empty_table(), profiles.empty_table()
    rows = rows.append_column("day", pa.array(np.full(rows.num_rows, day, np.int32)))
    has_sums = pc.greater(pc.binary_length(rows["sums"]), 0)
    has_profile = pc.or_(
        pc.is_valid(rows["attributes"]), pc.or_(pc.is_valid(rows["pick_items"]), pc.is_valid(rows["registered_at"]))
    )

    def as_chunk(schema: pa.Schema, is_kept: pa.ChunkedArray) -> pa.Table:
        return rows.filter(is_kept).select(schema.names).cast(schema).combine_chunks()

    return as_chunk(sums, has_sums), as_chunk(profiles, has_profile)


def write_updates(
    vectors: Iterable[pa.RecordBatch], target: Target, *, query_id: str, batch_id: int
) -> Iterator[pa.RecordBatch]:
    """Write encoded rows, one file per space and as-of date. Yield a row per file with the columns of ``WRITTEN``.

    ``file`` is a ``TableFile`` as JSON. ``newest_at`` is the time of the newest event in the file. ``seconds`` has the
    latencies of its rows, from arrival to vector, or as many quantiles of them if there are more than 1,000.

    A write by Spark would take longer than the encoding, because its commit first runs a job to reconstruct the state
    of the table.
    """
    writer, statistics = TableWriter(target), {}
    for rows in vectors:
        values = {name: rows.column(name)[0].as_py() for name in target.partition_by}
        computed_at, arrived_at = (rows.column(name).cast(pa.int64()) for name in ("computed_at", "arrived_at"))
        statistics[tuple(values.values())] = {
            "newest_at": pc.max(rows.column("event_at")).as_py(),
            "seconds": _at_most(_MOST_LATENCIES, pc.subtract(computed_at, arrived_at).to_numpy() / _SECOND),
        }
        keyed = pa.Table.from_batches([rows]).append_column("query_id", pa.repeat(query_id, rows.num_rows))
        writer.write(keyed.append_column("batch_id", pa.repeat(batch_id, rows.num_rows)), values)
    files = [{"file": file.to_json()} | statistics[tuple(file.values.values())] for file in writer.close()]
    if files:
        yield pa.RecordBatch.from_pylist(files)


def _at_most(most: int, values: NDArray[np.float64]) -> list[float]:
    """Return values, or as many evenly spaced quantiles of them if there are more than ``most``."""
    kept: list[float] = (values if len(values) <= most else np.quantile(values, np.linspace(0, 1, most))).tolist()
    return kept
