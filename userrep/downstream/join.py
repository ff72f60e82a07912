"""Point-in-time joins: to each label the embedding that a consumer could have had at its time."""

from collections.abc import Sequence
from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.errors import UsageError
from userrep.schemas import USER_EMBEDDINGS
from userrep.spaces.registry import Space
from userrep.spaces.snapshots import Snapshot, list_snapshots
from userrep.tables import Tables


def join_embeddings(labels: DataFrame, *, tables: Tables, space: Space, time: str = "label_at") -> DataFrame:
    """Join labels with one space's embeddings as they were known at each label's time.

    A label gets the snapshot with the newest as-of date, then revision, among those with ``available_at`` at or before
    its time. Times are resolved on the ledger, which is small; then there is one equi-join by user and snapshot.

    Parameters
    ----------
    labels : any columns, among them user_id (string) and ``time`` (timestamp, UTC). Nulls and repeats are kept.

    Returns
    -------
    The labels with snapshot_id (null before the first snapshot), as_of, embedding array<float> (null where the user is
    not in the snapshot). Cost: one join on (user_id, snapshot); lazy, but for a read of the ledger.

    Raises
    ------
    UsageError
        If the columns are not of these types, or the space has no published snapshot.
    """
    found = dict(labels.dtypes)
    faults = [
        f"labels: column {name!r} is {found.get(name, 'missing')}; wanted {wanted}."
        for name, wanted in (("user_id", "string"), (time, "timestamp"))
        if found.get(name) != wanted
    ]
    if faults:
        raise UsageError(faults)
    snapshots = list_snapshots(tables, space.space_id)
    if not snapshots:
        raise UsageError(
            f"space {space.space_id} has no published snapshot to join with: `userrep pipeline` makes one."
        )
    resolved = with_snapshot(labels, snapshots, time=time)
    rows = tables.read(USER_EMBEDDINGS).where(f"space_id = '{space.space_id}'")
    rows = rows.select("user_id", F.col("as_of"), F.col("revision"), "embedding")
    return resolved.join(rows, on=["user_id", "as_of", "revision"], how="left").drop("revision")


def with_snapshot(labels: DataFrame, snapshots: Sequence[Snapshot], *, time: str) -> DataFrame:
    """Add snapshot_id, as_of and revision of the snapshot that counts at each label's time; null before the first."""
    steps: list[tuple[datetime, Snapshot]] = []
    for snapshot in sorted(snapshots, key=lambda s: (s.available_at, s.as_of, s.revision)):
        if not steps or (snapshot.as_of, snapshot.revision) > (steps[-1][1].as_of, steps[-1][1].revision):
            assert snapshot.available_at is not None
            steps.append((snapshot.available_at, snapshot))
    ledger = F.array(
        *(
            F.struct(
                F.lit(since).alias("since"),
                F.lit(s.snapshot_id).alias("snapshot_id"),
                F.lit(s.as_of).alias("as_of"),
                F.lit(s.revision).alias("revision"),
            )
            for since, s in steps
        )
    )
    counts = F.try_element_at(F.filter(ledger, lambda step: step["since"] <= F.col(time)), F.lit(-1))
    return labels.withColumn("__snapshot", counts).select(
        *labels.columns, "__snapshot.snapshot_id", "__snapshot.as_of", "__snapshot.revision"
    )
