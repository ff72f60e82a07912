"""Embedding snapshots and their ledger: stage the rows, apply the gates, publish with one commit of the ledger."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

from userrep.config import Config
from userrep.errors import GateRefusedError, UsageError, changed_meanwhile
from userrep.features.ledger import FeatureSet, feature_sets
from userrep.ids import short_hash, snapshot_id
from userrep.spaces.current_view import keep_current_view
from userrep.spaces.gates import SnapshotStats, refusals, snapshot_stats
from userrep.spaces.registry import Space, artifact_folder
from userrep.store.schemas import SNAPSHOTS, USER_EMBEDDINGS
from userrep.store.sql import sql_in
from userrep.store.tables import PartitionStatistics, Tables
from userrep.utc import utc_now

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import Row

BEGUN, STAGED, PUBLISHED, REFUSED, EXPIRED = "begun", "staged", "published", "refused", "expired"
_FINISHED = (PUBLISHED, REFUSED, EXPIRED)


@dataclass(frozen=True)
class Snapshot:
    """A row of the ledger. ``available_at``: time from which a consumer could have used the snapshot (UTC).

    ``in_sample``: the as-of date lies before the space's ``trained_until``, so its encoder has seen the days after it.
    A model trained on labels of these days gets better vectors than it will get in production.
    ``begun_by``: id of the run that is building the snapshot; None once it is staged.
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
    def facts(self) -> dict[str, Any]:
        """Facts in ``gates``: the storage type from staging on; after the gates also dim, faults and statistics."""
        return {"storage": "float32", **json.loads(self.gates or "{}")}

    @property
    def is_judged(self) -> bool:
        """Whether gates have judged it, as for a refused one that is staged again. No later revision is on time."""
        return self.state in _FINISHED or (self.state == STAGED and "was_refused" in self.facts)

    @property
    def dim(self) -> int | None:
        """Number of dimensions of the vectors, as recorded by the gates; None before the gates were applied."""
        return self.facts.get("dim")

    @property
    def key(self) -> dict[str, str | date | int]:
        """Partition values of the snapshot's rows in ``user_embeddings``."""
        return {"space_id": self.space_id, "as_of": self.as_of, "revision": self.revision}


def list_snapshots(tables: Tables, space_id: str, *, states: Sequence[str] = (PUBLISHED,)) -> list[Snapshot]:
    """Return a space's snapshots in these states, ordered by as-of date and revision."""
    rows = sorted(tables.ledger(SNAPSHOTS, space_id=space_id), key=lambda row: (row.as_of, row.revision))
    return [Snapshot(**row.asDict()) for row in rows if row.state in states]


def available(snapshots: Sequence[Snapshot], now: datetime) -> list[Snapshot]:
    """Return the snapshots that are available to readers at a time, in their order."""
    return [snapshot for snapshot in snapshots if snapshot.available_at and snapshot.available_at <= now]


def newest_snapshot(
    tables: Tables, space_id: str, as_of: date, *, states: Sequence[str] = (PUBLISHED,),
    why_never: Callable[[], str | None] = lambda: None,
) -> Snapshot:  # fmt: skip
    """Return the newest revision of an as-of date in these states.

    Raises UsageError if there is none, with ``why_never`` or the command that builds it.
    """
    snapshots = list_snapshots(tables, space_id, states=states)
    revisions = [snapshot for snapshot in snapshots if snapshot.as_of == as_of]
    if not revisions:
        dates = sorted({str(snapshot.as_of) for snapshot in snapshots})
        command = "run embed_users" if STAGED in states else "pipeline"
        known = f"dates {' or '.join(states)}: {', '.join(dates[-10:]) or 'none'}"
        cure = why_never() or f"Build it with `userrep {command} --as-of {as_of}`."
        raise UsageError(f"space {space_id} has no snapshot of {as_of}; {known}. {cure}")
    return revisions[-1]


def snapshot_inputs(space: Space, features: FeatureSet) -> str:
    """Hash the inputs of a snapshot: the space's artifact and one build of the features."""
    return short_hash([space.content_hash, features.hash])


def stage_snapshots(tables: Tables, config: Config, space: Space, as_ofs: Sequence[date]) -> list[Snapshot]:
    """Encode the features of all users at some as-of dates, and stage the vectors as new, unpublished revisions.

    Rows that a killed run left under these revisions are replaced. Cost: one pass over the features, no shuffle; one
    commit for the rows, two for the ledger.

    Raises UsageError if the features of a date are not built, and UserrepError if another run has started to build one
    of the snapshots in the meantime.
    """
    from userrep.spaces.snapshot_files import write_vectors  # needs torch and PySpark

    built = feature_sets(tables, space.lineage_id)
    missing = [str(as_of) for as_of in as_ofs if as_of not in built]
    if missing:
        raise UsageError(
            f"space {space.space_id}: no features of {', '.join(missing)}. "
            f"Build them with `userrep run build_user_features --as-of {missing[0]}`, one date at a time."
        )
    since = tables.version(USER_EMBEDDINGS)  # before the claim: rows that others publish after it are not replaced
    begun = _next_revisions(tables, space, {as_of: built[as_of] for as_of in sorted(as_ofs)})
    _replace(tables, begun, lambda rows: all(row.state not in _FINISHED for row in rows))
    write_vectors(tables, config, space, {snapshot.as_of: snapshot.key for snapshot in begun}, since)
    facts = json.dumps({"storage": config.snapshots.storage})
    staged = [replace(snapshot, state=STAGED, begun_by=None, gates=facts) for snapshot in begun]
    _replace(tables, staged, lambda rows: rows == set(begun))
    return staged


def restage_refused(tables: Tables, config: Config, space: Space, as_ofs: Sequence[date]) -> list[Snapshot]:
    """Stage refused snapshots of some as-of dates again, if their inputs are unchanged and their rows still stored.

    The limits of the gates may have changed. Snapshots whose rows were at fault are not staged again. Cost: reads of
    ledgers, one commit; the number of rows of each snapshot if one was refused.
    """
    features = feature_sets(tables, space.lineage_id)
    newest = {s.as_of: s for s in list_snapshots(tables, space.space_id, states=(STAGED, PUBLISHED, REFUSED))}
    refused = [
        snapshot
        for as_of in as_ofs
        if (snapshot := newest.get(as_of)) and snapshot.state == REFUSED and as_of in features
        if snapshot.inputs_hash == snapshot_inputs(space, features[as_of])
        if snapshot.facts["storage"] == config.snapshots.storage
    ]
    stored = tables.partitions(USER_EMBEDDINGS) if refused else {}
    refused = [s for s in refused if _has_rows(s, stored.get((s.space_id, s.as_of, s.revision)), features[s.as_of])]
    staged = [replace(s, state=STAGED, gates=json.dumps(s.facts | {"was_refused": True})) for s in refused]
    if staged:
        _replace(tables, staged, lambda rows: rows == set(refused))
    return staged


def _has_rows(snapshot: Snapshot, stored: PartitionStatistics | None, features: FeatureSet) -> bool:
    """Return whether a snapshot has one intact row for each user of the features, as when it was staged."""
    facts = snapshot.facts
    is_intact = facts.get("num_broken") == 0 and facts.get("num_users") == facts.get("num_rows")
    return is_intact and stored is not None and stored.num_rows == snapshot.num_users == features.num_users


def _judged(tables: Tables, space: Space) -> list[Snapshot]:
    return [s for s in list_snapshots(tables, space.space_id, states=(*_FINISHED, STAGED)) if s.is_judged]


def _next_revisions(tables: Tables, space: Space, sets: Mapping[date, FeatureSet]) -> list[Snapshot]:
    """Return ledger rows for the snapshots that this run is going to build, each with the next free revision."""
    newest = {snapshot.as_of: snapshot.revision for snapshot in _judged(tables, space)}
    now, build_id, begun = utc_now(), uuid.uuid4().hex, []
    for as_of, features in sets.items():
        revision = newest.get(as_of, 0) + 1
        snapshot = Snapshot(
            snapshot_id=snapshot_id(space.space_id, as_of, revision),
            space_id=space.space_id,
            as_of=as_of,
            revision=revision,
            state=BEGUN,
            inputs_hash=snapshot_inputs(space, features),
            num_users=features.num_users,
            available_at=None,
            computed_at=now,
            gates="",
            in_sample=as_of < space.trained_until,
            begun_by=build_id,
        )
        begun.append(snapshot)
    return begun


def publish_snapshots(
    tables: Tables, config: Config, space: Space, staged: Sequence[Snapshot], *, on_time: bool
) -> list[Snapshot]:
    """Apply the gates to staged snapshots of a space, and publish those that pass in one commit of the ledger.

    A refused snapshot does not keep the others from being published.

    ``on_time``: set ``available_at`` as if the pipeline had run on time, ``publish_delay`` after the as-of date. This
    applies only to the first revision of a date. Later revisions get the clock time, even if all earlier ones have
    expired, because they may have been built with later knowledge.

    Raises GateRefusedError if a gate refuses a snapshot; its rows are kept for inspection, but nothing reads them.
    Raises UserrepError if another run has published one of them, or started to rebuild it, in the meantime.
    """
    from userrep.model.artifact import load_artifact  # imports torch, which takes seconds

    artifact = load_artifact(artifact_folder(tables, space), space.content_hash)
    dim, storages = artifact.manifest.model.latent_dim, {s.as_of: artifact.storage(s.facts["storage"]) for s in staged}
    rows = tables.read(USER_EMBEDDINGS, [snapshot.key for snapshot in staged])
    stats = snapshot_stats(rows, dim=dim, storages=storages)
    gated = _apply_gates(config, staged, stats, _judged(tables, space), dim=dim, on_time=on_time)
    _replace(tables, gated, lambda rows: rows == set(staged))
    keep_current_view(tables)
    refused = [f"snapshot {s.snapshot_id}: {'; '.join(s.facts['faults'])}" for s in gated if s.state == REFUSED]
    if refused:
        raise GateRefusedError(
            f"not published: {'. '.join(refused)}. Snapshots that were published before stay available. "
            "Check the features of these dates, or the settings below gates."
        )
    return gated


def _apply_gates(
    config: Config, staged: Sequence[Snapshot], stats: Mapping[date, SnapshotStats], judged: Sequence[Snapshot], *,
    dim: int, on_time: bool,
) -> list[Snapshot]:  # fmt: skip
    """Return staged snapshots as published or refused. ``judged``: those that gates have judged before."""
    num_users = {s.as_of: s.num_users for s in judged if s.state == PUBLISHED}
    judged_dates, now = {s.as_of for s in judged}, utc_now()
    gated = []
    for snapshot in sorted(staged, key=lambda s: s.as_of):
        previous = max((as_of for as_of in num_users if as_of < snapshot.as_of), default=date.min)
        measured = stats.get(snapshot.as_of, SnapshotStats(0, 0, 0, 0))
        before = num_users.get(previous)
        faults = refusals(measured, config.gates, dim=dim, expected_rows=snapshot.num_users, rows_before=before)
        on_schedule = datetime.combine(snapshot.as_of, time()) + config.snapshots.publish_delay
        available_at = on_schedule if on_time and snapshot.as_of not in judged_dates else now
        gates = json.dumps(vars(measured) | {"dim": dim, "storage": snapshot.facts["storage"], "faults": faults})
        if faults:
            gated.append(replace(snapshot, state=REFUSED, gates=gates))
        else:
            num_users[snapshot.as_of] = snapshot.num_users
            gated.append(replace(snapshot, state=PUBLISHED, gates=gates, available_at=available_at))
    return gated


def staged_snapshots(tables: Tables, space: Space, as_ofs: Sequence[date]) -> list[Snapshot]:
    """Return the staged snapshots of some as-of dates. Raises UsageError if a date has none."""
    staged = {s.as_of: s for s in list_snapshots(tables, space.space_id, states=(STAGED,)) if s.as_of in as_ofs}
    missing = [str(as_of) for as_of in as_ofs if as_of not in staged]
    if missing:
        raise UsageError(
            f"space {space.space_id} has no staged snapshot of {', '.join(missing)}. "
            "Run `userrep run embed_users` first."
        )
    return [staged[as_of] for as_of in as_ofs]


def _replace(tables: Tables, after: Sequence[Snapshot], is_expected: Callable[[set[Snapshot]], bool]) -> None:
    """Replace ledger rows of a space in one commit. Raises UserrepError if the present rows are not as expected."""
    ids = [snapshot.snapshot_id for snapshot in after]

    def changed(rows: list[Row]) -> list[dict[str, Any]] | None:
        present = {Snapshot(**row.asDict()) for row in rows if row.snapshot_id in ids}
        return [vars(snapshot) for snapshot in after] if is_expected(present) else None

    if not tables.change(SNAPSHOTS, changed, replacing=sql_in("snapshot_id", ids), space_id=after[0].space_id):
        raise changed_meanwhile(SNAPSHOTS.name)


def record_snapshots(tables: Tables, snapshots: Sequence[Snapshot]) -> None:
    """Write the ledger rows of some snapshots in one commit, whatever their earlier rows are. No command does this."""
    ids = [snapshot.snapshot_id for snapshot in snapshots]
    tables.add(SNAPSHOTS, [vars(snapshot) for snapshot in snapshots], replacing=sql_in("snapshot_id", ids))
