"""Embedding snapshots and their ledger: rows first, then one commit that publishes them."""

import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time

from pyspark.sql import functions as F

from userrep.config import Config
from userrep.errors import GateRefusedError, UsageError
from userrep.features.build import FeatureSet, feature_sets, features_table, stored_features
from userrep.ids import short_hash, snapshot_id
from userrep.spaces.gates import SnapshotStats, refusals, snapshot_stats
from userrep.spaces.registry import Space, artifact_folder
from userrep.spark.session import shuffle_partitions
from userrep.store.buckets import user_bucket
from userrep.store.delta_files import changed_meanwhile
from userrep.store.file_tables import FileTables
from userrep.store.schemas import SNAPSHOTS, USER_EMBEDDINGS
from userrep.store.sql import sql_in, sql_key
from userrep.store.tables import Tables
from userrep.utc import utc_now

# What encodes is imported where it is needed: torch takes seconds to load, and readers of ledgers need none of it.
BEGUN, STAGED, PUBLISHED, REFUSED, EXPIRED = "begun", "staged", "published", "refused", "expired"


@dataclass(frozen=True)
class Snapshot:
    """A row of the ledger. ``available_at`` is when a consumer could have had it (UTC).

    ``in_sample``: its date lies before the ``trained_until`` of its space, whose encoder has seen the days after it. A
    model that is trained on labels of these days sees vectors that are better than those it will get.
    """

    snapshot_id: str
    space_id: str
    as_of: date
    revision: int
    state: str
    inputs_hash: str
    num_users: int
    available_at: datetime | None
    computed_at: datetime
    gates: str
    in_sample: bool = False
    begun_by: str | None = None

    @property
    def dim(self) -> int | None:
        """How many numbers its vectors have, by its gates; None where it has not been put through them."""
        return json.loads(self.gates or "{}").get("dim")  # type: ignore[no-any-return]

    @property
    def where(self) -> str:
        """Select the snapshot's rows in ``user_embeddings``."""
        return sql_key(self.key)

    @property
    def key(self) -> dict[str, str | date | int]:
        """The values of the partition columns of its rows in ``user_embeddings``."""
        return {"space_id": self.space_id, "as_of": self.as_of, "revision": self.revision}


def list_snapshots(tables: Tables, space_id: str, *, states: Sequence[str] = (PUBLISHED,)) -> list[Snapshot]:
    """Return a space's snapshots by as-of date and revision."""
    rows = sorted(tables.ledger(SNAPSHOTS, space_id=space_id), key=lambda row: (row.as_of, row.revision))
    return [Snapshot(**row.asDict()) for row in rows if row.state in states]


def newest_snapshot(tables: Tables, space_id: str, as_of: date) -> Snapshot:
    """Return the newest published revision of an as-of date.

    Raises
    ------
    UsageError
        If there is none; it names the dates that there are.
    """
    published = list_snapshots(tables, space_id)
    of_date = [snapshot for snapshot in published if snapshot.as_of == as_of]
    if not of_date:
        dates = sorted({str(snapshot.as_of) for snapshot in published})
        raise UsageError(
            f"space {space_id} has no snapshot of {as_of}; dates published: {', '.join(dates[-10:]) or 'none'}. "
            f"`userrep pipeline --as-of {as_of}` builds it."
        )
    return of_date[-1]


def snapshot_inputs(space: Space, features: FeatureSet) -> str:
    """Hash what a snapshot is made from: the space's artifact and one build of the features."""
    return short_hash([space.content_hash, features.hash])


def stage_snapshots(tables: Tables, config: Config, space: Space, as_ofs: Sequence[date]) -> list[Snapshot]:
    """Encode everyone's features of some as-of dates and write them as new revisions, which nobody reads yet.

    Rows that a killed run has left under these revisions are replaced. Cost: one pass over the features, no shuffle;
    one commit for the rows, two for the ledger.

    Raises
    ------
    UsageError
        If features of a date are not built.
    UserrepError
        If another run has begun to make one of the snapshots meanwhile.
    """
    built = feature_sets(tables, space.lineage_id)
    missing = [str(as_of) for as_of in as_ofs if as_of not in built]
    if missing:
        raise UsageError(
            f"no features of {', '.join(missing)}: `userrep run build_user_features --as-of …` builds them."
        )
    taken = list_snapshots(tables, space.space_id, states=(PUBLISHED, REFUSED, EXPIRED))
    now, build_id = utc_now(), uuid.uuid4().hex
    begun = []
    for as_of in sorted(as_ofs):
        revision = 1 + max((s.revision for s in taken if s.as_of == as_of), default=0)
        begun.append(
            Snapshot(
                snapshot_id=snapshot_id(space.space_id, as_of, revision),
                space_id=space.space_id,
                as_of=as_of,
                revision=revision,
                state=BEGUN,
                inputs_hash=snapshot_inputs(space, built[as_of]),
                num_users=built[as_of].num_users,
                available_at=None,
                computed_at=now,
                gates="",
                in_sample=as_of < space.trained_until,
                begun_by=build_id,
            )
        )
    record_snapshots(tables, begun)
    if isinstance(tables, FileTables):
        _write_files(tables, config, space, begun)
    else:
        _write_rows(tables, config, space, begun)
    staged = [replace(snapshot, state=STAGED, begun_by=None) for snapshot in begun]
    _replace_unchanged(tables, begun, staged)
    return staged


def _write_files(tables: FileTables, config: Config, space: Space, staged: Sequence[Snapshot]) -> None:
    """Let tasks read files of features and write files of vectors; commit these in the place of all that was there."""
    from userrep.inference.embed import FeatureFile, embed_files

    table = features_table(config, space.lineage_id)
    since = tables.version(USER_EMBEDDINGS)
    values = {s.as_of: s.key for s in staged}
    found = sorted(tables.files(table, lambda of: of["as_of"] in values), key=lambda file: file.path)
    written = embed_files(
        tables.spark,
        [FeatureFile(f"{tables.uri(table)}/{file.path}", file.num_rows, file.values["as_of"]) for file in found],
        folder=artifact_folder(config, space),
        content_hash=space.content_hash,
        target=tables.target(USER_EMBEDDINGS),
        values=values,
        min_tasks=shuffle_partitions(tables.spark),
    )
    tables.commit(USER_EMBEDDINGS, written, replacing=lambda of: of in values.values(), since=since)


def _write_rows(tables: Tables, config: Config, space: Space, staged: Sequence[Snapshot]) -> None:
    """Let Spark read the features, and write the vectors."""
    from userrep.inference.embed import embedded

    source = stored_features(tables, config, space.lineage_id, [s.as_of for s in staged])
    rows = embedded(source, folder=artifact_folder(config, space), content_hash=space.content_hash)
    revisions = tables.spark.createDataFrame([(s.as_of, s.revision) for s in staged], "as_of DATE, revision INT")
    keyed = rows.join(F.broadcast(revisions), on="as_of", how="inner")
    keyed = keyed.withColumns({"space_id": F.lit(space.space_id), "user_bucket": user_bucket()})
    tables.replace(keyed, USER_EMBEDDINGS, [s.key for s in staged])


def publish_snapshots(
    tables: Tables, config: Config, space: Space, staged: Sequence[Snapshot], *, on_time: bool
) -> list[Snapshot]:
    """Put staged snapshots of a space through the gates and, in one commit of the ledger, before their readers.

    ``on_time``: stamp them as a pipeline that ran on time would have, ``publish_delay`` after the as-of date. That
    applies to a date's first revision only. Later ones are stamped by the clock, also if all before them have expired:
    they may be made with later knowledge.
    Those that pass are published, whatever becomes of the others.

    Raises
    ------
    GateRefusedError
        If a gate refuses; the snapshot stays unread and is kept for a look.
    UserrepError
        If another run has published one of them, or begun to make it anew, meanwhile.
    """
    from userrep.model.artifact import load_artifact

    space_id = space.space_id
    dim = load_artifact(artifact_folder(config, space), space.content_hash).manifest.model.latent_dim
    stats = snapshot_stats(tables.read(USER_EMBEDDINGS).where(_where(staged)), dim=dim)
    num_users = {s.as_of: s.num_users for s in list_snapshots(tables, space_id)}
    seen = {s.as_of for s in list_snapshots(tables, space_id, states=(PUBLISHED, REFUSED, EXPIRED))}
    now = utc_now()
    done = []
    for snapshot in sorted(staged, key=lambda s: s.as_of):
        before = max((as_of for as_of in num_users if as_of < snapshot.as_of), default=None)
        found = stats.get(snapshot.as_of, SnapshotStats(0, 0, 0, 0))
        faults = refusals(
            found,
            config.gates,
            dim=dim,
            expected_rows=snapshot.num_users,
            rows_before=num_users[before] if before else None,
        )
        on_schedule = datetime.combine(snapshot.as_of, time()) + config.snapshots.publish_delay
        available_at = on_schedule if on_time and snapshot.as_of not in seen else now
        gates = json.dumps(found.as_dict() | {"dim": dim, "faults": faults})
        if faults:
            done.append(replace(snapshot, state=REFUSED, gates=gates))
        else:
            num_users[snapshot.as_of] = snapshot.num_users
            done.append(replace(snapshot, state=PUBLISHED, gates=gates, available_at=available_at))
    _replace_unchanged(tables, staged, done)
    refused = [
        f"snapshot {s.snapshot_id}: {'; '.join(json.loads(s.gates)['faults'])}" for s in done if s.state == REFUSED
    ]
    if refused:
        raise GateRefusedError(
            f"not published: {'. '.join(refused)}. What was published before stays as it is. "
            "Look at the features of these dates, or at the settings below gates."
        )
    return done


def stale_snapshots(
    published: Sequence[Snapshot], space: Space, sets: dict[date, FeatureSet], stale: Collection[date]
) -> list[date]:
    """Return the published as-of dates whose newest revision was not made from the log as it is known now.

    ``published``: in order of revisions. ``stale``: dates whose features are missing or stale.
    """
    newest = {snapshot.as_of: snapshot for snapshot in published}
    return sorted(
        as_of
        for as_of, snapshot in newest.items()
        if as_of in stale or snapshot.inputs_hash != snapshot_inputs(space, sets[as_of])
    )


def staged_snapshots(tables: Tables, space: Space, as_ofs: Sequence[date]) -> list[Snapshot]:
    """Return the staged snapshots of some dates. Raises UsageError if one of them has none."""
    staged = {s.as_of: s for s in list_snapshots(tables, space.space_id, states=(STAGED,)) if s.as_of in as_ofs}
    missing = [str(as_of) for as_of in as_ofs if as_of not in staged]
    if missing:
        raise UsageError(
            f"space {space.space_id} has no staged snapshot of {', '.join(missing)}: `userrep run embed_users` first."
        )
    return [staged[as_of] for as_of in as_ofs]


def _where(snapshots: Sequence[Snapshot]) -> str:
    """Select some snapshots' rows in ``user_embeddings``."""
    return " OR ".join(f"({snapshot.where})" for snapshot in snapshots)


def _replace_unchanged(tables: Tables, before: Sequence[Snapshot], after: Sequence[Snapshot]) -> None:
    """Write the ledger's rows of some snapshots of a space, if they are still as they were.

    Raises UserrepError if another run has changed one.
    """
    ids = [snapshot.snapshot_id for snapshot in before]
    was = {snapshot.snapshot_id: snapshot for snapshot in before}
    if not tables.change(
        SNAPSHOTS,
        [vars(snapshot) for snapshot in after],
        replacing=sql_in("snapshot_id", ids),
        only_if=lambda rows: (
            was == {row.snapshot_id: Snapshot(**row.asDict()) for row in rows if row.snapshot_id in was}
        ),
        space_id=before[0].space_id,
    ):
        raise changed_meanwhile(SNAPSHOTS.name)


def record_snapshots(tables: Tables, snapshots: Sequence[Snapshot]) -> None:
    """Write the ledger's rows of some snapshots, in the place of those before: one commit."""
    ids = [snapshot.snapshot_id for snapshot in snapshots]
    tables.add(SNAPSHOTS, [vars(snapshot) for snapshot in snapshots], replacing=sql_in("snapshot_id", ids))
