"""The ledger of a space as the input of a join: its snapshots, from when each is used, and their files.

Label times are looked up in the ledger as a sequence of steps. With Spark, the steps are broadcast by day.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from userrep.errors import UsageError
from userrep.joins.options import Availability, InSampleWarning, JoinOptions, column
from userrep.logs import warn_caller
from userrep.spaces.registry import RETIRED, Space, artifact_folder, read_registry
from userrep.spaces.snapshots import EXPIRED, PUBLISHED, Snapshot, available, list_snapshots
from userrep.store.bucket_reader import BucketFiles
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.tables import Tables
from userrep.utc import utc_now

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import DataFrame

_END = datetime.combine(date(9999, 12, 31), time())
_COLUMNS = """__day DATE, __since TIMESTAMP_LTZ, __until TIMESTAMP_LTZ, __number INT, __snapshot_id STRING,
__as_of DATE, __revision INT, __state STRING, __in_sample BOOLEAN"""


@dataclass(frozen=True)
class Sources:
    """Inputs of a join: snapshots of one space's ledger, and the version of ``user_embeddings`` that contains them.

    coordinates : an earlier space that vectors are mapped into, if any. span : first and last allowed label time; a
    label outside fails the job. updates_until : updates computed later are ignored.
    """

    space: Space
    snapshots: Sequence[Snapshot]
    version: int
    coordinates: Space | None = None
    span: tuple[datetime, datetime] | None = None
    updates_until: datetime | None = None

    @property
    def newest(self) -> Snapshot:
        """The newest published snapshot, by as-of date, then revision, that is available; if none is, the newest."""
        published = [snapshot for snapshot in self.snapshots if snapshot.state == PUBLISHED]
        return (available(published, utc_now()) or published)[-1]

    @property
    def dim(self) -> int | None:
        """Number of dimensions of the snapshots' vectors, or None if no gate has recorded it."""
        return max((snapshot.dim for snapshot in self.snapshots if snapshot.dim is not None), default=None)


def usable_sources(tables: Tables, space: Space | str | None) -> Sources:
    """Read the sources of a space that is not retired. None and "serving" name the serving space.

    Raises
    ------
    UsageError
        If the space is unknown, retired or without a published snapshot.
    """
    registry = read_registry(tables)
    source = registry.space(space)
    if source.state == RETIRED:
        serving = registry.serving
        raise UsageError(
            f"space {source.space_id} is retired, and its vectors are no longer built. "
            f"Serving space: {serving.space_id if serving else 'none'}. "
            "Use that space, and retrain the models that use the retired one."
        )
    return sources_of(tables, source)


def sources_of(tables: Tables, space: Space) -> Sources:
    """Read a space's published and expired snapshots, and pin a table version that contains all published rows.

    Raises UsageError if the space has no published snapshot.
    """
    before = None
    while True:
        version = tables.version(USER_EMBEDDINGS)
        snapshots = list_snapshots(tables, space.space_id, states=(PUBLISHED, EXPIRED))
        if snapshots == before:
            break  # rows are written before they are published and deleted after they expire: this version has them
        before = snapshots
    if not any(snapshot.state == PUBLISHED for snapshot in snapshots):
        raise UsageError(
            f"space {space.space_id} has no published snapshot. Publish one with `userrep pipeline --as-of DATE`."
        )
    return Sources(space, snapshots, version)


def files_by_snapshot(tables: FileTables, version: int, snapshots: Sequence[Snapshot]) -> list[BucketFiles]:
    """Return the files of each snapshot at a table version; none for an expired one. Cost: one read of the log."""
    files: dict[tuple[Any, ...], list[TableFile]] = defaultdict(list)
    for file in tables.files(USER_EMBEDDINGS, version=version):
        files[tuple(file.values[name] for name in USER_EMBEDDINGS.partition_by)].append(file)
    return [BucketFiles.of(files[tuple(s.key.values())] if s.state == PUBLISHED else []) for s in snapshots]


def new_user_vector(tables: Tables, sources: Sources) -> NDArray[np.float32]:
    """Return the encoder's vector of a user without any data, rounded as those of the newest snapshot are."""
    from userrep.inference.model import EmbeddingModel  # imports torch, which takes seconds

    space, storage = sources.space, sources.newest.facts["storage"]
    return EmbeddingModel.load(artifact_folder(tables, space), space.content_hash, storage).predict({})


def is_in_sample(snapshot: Snapshot) -> bool:
    """Return whether labels get vectors of a snapshot from before the space's ``trained_until``."""
    return snapshot.in_sample and snapshot.state == PUBLISHED


def report_in_sample(space: Space, used: Iterable[Snapshot], options: JoinOptions) -> None:
    """Warn if labels resolve to an in-sample snapshot, or raise UsageError if the options refuse such labels."""
    snapshot = next(filter(is_in_sample, used), None)
    if snapshot is None:
        return
    message = (
        f"labels: the vectors of {snapshot.as_of} are in-sample: space {space.space_id} was trained on what users did "
        f"until {space.trained_until}. A model trained on these labels looks better offline than it is in production. "
        f"Use labels whose snapshot has an as-of date of {space.trained_until} or later. With inSample='warn', the "
        "others have the status in_sample."
    )
    if options.in_sample == "refuse":
        raise UsageError(message)
    warn_caller(message, InSampleWarning)


class Step(NamedTuple):
    """The snapshot to use for times from ``since`` (inclusive, UTC) up to the next step."""

    since: datetime
    snapshot: Snapshot


def steps_of(snapshots: Sequence[Snapshot], availability: Availability) -> list[Step]:
    """Order a ledger by time. Each step's snapshot is newer (by as-of date, then revision) than all before it.

    With ``availability="ledger"``, a snapshot is used from its ``available_at`` on. With ``"as_of"``, the newest
    revision of a date is used from the as-of date on, whenever it was built.
    """
    if availability == "ledger":
        known = [Step(s.available_at, s) for s in snapshots if s.available_at is not None]
    else:
        known = [Step(datetime.combine(s.as_of, time()), s) for s in snapshots]
    steps: list[Step] = []
    for step in sorted(known, key=lambda step: (step.since, _rank(step.snapshot))):
        if not steps or _rank(step.snapshot) > _rank(steps[-1].snapshot):
            if steps and steps[-1].since == step.since:
                steps.pop()
            steps.append(step)
    return steps


def with_snapshot(labels: DataFrame, steps: Sequence[Step], *, time: str) -> DataFrame:
    """Add the snapshot of each label's time: __number, its index in ``steps``, and its __snapshot_id, __as_of,
    __revision, __state and __in_sample.

    The columns are null before the first step and for a null time. Every label is kept once. Cost: a broadcast of the
    ledger, with one row per day that it spans and per step; no shuffle.
    """
    from pyspark.sql import functions as F

    rows = [
        (day, *span, k, s.snapshot_id, s.as_of, s.revision, s.state, s.in_sample)
        for day, span, k in _by_day(steps)
        for s in [steps[k].snapshot]
    ]
    ledger = F.broadcast(labels.sparkSession.createDataFrame(rows, _COLUMNS))
    at, last = column(time), F.lit(steps[-1].since.date() if steps else _END.date())
    day = F.date_from_unix_date(F.floor(F.unix_seconds(at) / 86_400).cast("int"))  # in UTC, unlike to_date
    is_current = (F.least(day, last) == F.col("__day")) & (at >= F.col("__since")) & (at < F.col("__until"))
    return labels.join(ledger, on=is_current, how="left").drop("__day", "__since", "__until")


def _rank(snapshot: Snapshot) -> tuple[date, int]:
    return snapshot.as_of, snapshot.revision


def _by_day(steps: Sequence[Step]) -> Iterator[tuple[date, tuple[datetime, datetime], int]]:
    """Yield (day, (since, until), index of the step) for each day of each step.

    The last step gets a single row. ``with_snapshot`` compares later days with that row's day.
    """
    for k, (since, _) in enumerate(steps):
        until = steps[k + 1].since if k + 1 < len(steps) else _END
        span = since.replace(tzinfo=UTC), until.replace(tzinfo=UTC)
        last = steps[k + 1].since if k + 1 < len(steps) else since + timedelta.resolution
        for days in range((last - timedelta.resolution - datetime.combine(since, time())).days + 1):
            yield since.date() + timedelta(days=days), span, k
