"""Embedding snapshots and their ledger: rows first, then one commit that publishes them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import Config
from userrep.errors import GateRefusedError, UsageError
from userrep.features.build import FeatureSet, feature_sets, read_features
from userrep.ids import short_hash, snapshot_id
from userrep.inference.embed import embedded
from userrep.model.artifact import load_artifact
from userrep.schemas import SNAPSHOTS, USER_EMBEDDINGS
from userrep.spaces.gates import refusals, snapshot_stats
from userrep.spaces.registry import Space, artifact_folder
from userrep.tables import Tables, sql_date

STAGED, PUBLISHED, REFUSED = "staged", "published", "refused"


@dataclass(frozen=True)
class Snapshot:
    """A row of the ledger. ``available_at`` is when a consumer could have had it (UTC)."""

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

    @property
    def where(self) -> str:
        """Select the snapshot's rows in ``user_embeddings``."""
        return f"space_id = '{self.space_id}' AND as_of = {sql_date(self.as_of)} AND revision = {self.revision}"


def list_snapshots(tables: Tables, space_id: str, *, states: Sequence[str] = (PUBLISHED,)) -> list[Snapshot]:
    """Return a space's snapshots by as-of date and revision."""
    rows = tables.read(SNAPSHOTS).where(f"space_id = '{space_id}'").orderBy("as_of", "revision").collect()
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


def read_snapshot(tables: Tables, snapshot: Snapshot) -> DataFrame:
    """Read a snapshot: user_id, embedding. Only its partition is read."""
    return tables.read(USER_EMBEDDINGS).where(snapshot.where).select("user_id", "embedding")


def snapshot_inputs(space: Space, features: FeatureSet) -> str:
    """Hash what a snapshot is made from: the space's artifact and one build of the features."""
    return short_hash([space.content_hash, features.hash])


def stage_snapshot(tables: Tables, config: Config, space: Space, as_of: date) -> Snapshot:
    """Encode everyone's features of an as-of date and write them as a new revision, which nobody reads yet.

    Rows that a killed run has left under this revision are replaced. Cost: one pass over the features, no shuffle.
    """
    features = feature_sets(tables, space.lineage_id).get(as_of)
    if features is None:
        raise UsageError(f"no features of {as_of}: `userrep run build_user_features --as-of {as_of}` builds them.")
    taken = list_snapshots(tables, space.space_id, states=(PUBLISHED, REFUSED))
    revision = 1 + max((s.revision for s in taken if s.as_of == as_of), default=0)
    staged = Snapshot(
        snapshot_id=snapshot_id(space.space_id, as_of, revision),
        space_id=space.space_id,
        as_of=as_of,
        revision=revision,
        state=STAGED,
        inputs_hash=snapshot_inputs(space, features),
        num_users=features.num_users,
        available_at=None,
        computed_at=datetime.now(UTC).replace(tzinfo=None),
        gates="",
    )
    source = read_features(tables, config, space.lineage_id, [as_of])
    rows = embedded(source, folder=artifact_folder(config, space.space_id), content_hash=space.content_hash)
    keyed = rows.withColumns({"space_id": F.lit(space.space_id), "as_of": F.lit(as_of), "revision": F.lit(revision)})
    tables.replace(keyed, USER_EMBEDDINGS, staged.where)
    _record(tables, staged)
    return staged


def publish_snapshot(tables: Tables, config: Config, staged: Snapshot, *, on_time: bool) -> Snapshot:
    """Put a staged snapshot through the gates and, in one commit of the ledger, before its readers.

    ``on_time``: stamp it as a pipeline that ran on time would have, ``publish_delay`` after the as-of date; that is
    for the first revision only, later ones are stamped by the clock.

    Raises
    ------
    GateRefusedError
        If a gate refuses; the snapshot stays unread and is kept for a look.
    """
    dim = load_artifact(artifact_folder(config, staged.space_id)).manifest.model.latent_dim
    stats = snapshot_stats(read_snapshot(tables, staged), dim=dim)
    before = [s for s in list_snapshots(tables, staged.space_id) if s.as_of < staged.as_of]
    faults = refusals(
        stats,
        config.gates,
        dim=dim,
        expected_rows=staged.num_users,
        rows_before=before[-1].num_users if before else None,
    )
    now = datetime.now(UTC).replace(tzinfo=None)
    midnight = datetime.combine(staged.as_of, time())
    available_at = midnight + config.snapshots.publish_delay if on_time and staged.revision == 1 else now
    state = REFUSED if faults else PUBLISHED
    done = Snapshot(
        **{
            **vars(staged),
            "state": state,
            "available_at": None if faults else available_at,
            "gates": json.dumps(stats.as_dict() | {"faults": faults}),
        }
    )
    _record(tables, done)
    if faults:
        raise GateRefusedError(
            f"snapshot {staged.snapshot_id} is not published: {'; '.join(faults)}. "
            "What was published before stays as it is."
        )
    return done


def staged_snapshot(tables: Tables, space: Space, as_of: date) -> Snapshot:
    """Return the staged snapshot of a date. Raises UsageError if there is none."""
    staged = [s for s in list_snapshots(tables, space.space_id, states=(STAGED,)) if s.as_of == as_of]
    if not staged:
        raise UsageError(f"space {space.space_id} has no staged snapshot of {as_of}: `userrep run embed_users` first.")
    return staged[-1]


def _record(tables: Tables, snapshot: Snapshot) -> None:
    """Write the ledger's row of a snapshot, in the place of the one before."""
    row = tables.spark.createDataFrame([vars(snapshot)], tables.read(SNAPSHOTS).schema)
    tables.replace(row, SNAPSHOTS, f"snapshot_id = '{snapshot.snapshot_id}'")
