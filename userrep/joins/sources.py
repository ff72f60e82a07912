"""Inputs of a join, read from the ledgers of one space: its snapshots, their files, and the vector of a new user."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from userrep.errors import UsageError
from userrep.joins.options import InSampleWarning, JoinOptions
from userrep.logs import warn_caller
from userrep.spaces.registry import RETIRED, Space, read_registry
from userrep.spaces.snapshots import EXPIRED, PUBLISHED, Snapshot, list_snapshots
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.tables import Tables


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
        """The newest published snapshot, by as-of date, then revision."""
        return [snapshot for snapshot in self.snapshots if snapshot.state == PUBLISHED][-1]

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
    source = registry.space(space.space_id if isinstance(space, Space) else space)
    if source.state == RETIRED:
        serving = registry.serving
        raise UsageError(
            f"space {source.space_id} is retired, and its vectors are no longer built. "
            f"Serving space: {serving.space_id if serving else 'none'}. "
            "Join with that space, and retrain the models that use the retired one."
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
            f"space {space.space_id} has no published snapshot to join with. Publish one with `userrep pipeline`."
        )
    return Sources(space, snapshots, version)


def files_by_snapshot(tables: FileTables, version: int, snapshots: Sequence[Snapshot]) -> list[list[TableFile]]:
    """Return the files of each snapshot at a table version; none for an expired one. Cost: one read of the log."""
    files: dict[tuple[Any, ...], list[TableFile]] = {tuple(snapshot.key.values()): [] for snapshot in snapshots}
    for file in tables.files(USER_EMBEDDINGS, version=version):
        key = tuple(file.values[name] for name in USER_EMBEDDINGS.partition_by)
        if key in files:
            files[key].append(file)
    return [files[tuple(snapshot.key.values())] if snapshot.state == PUBLISHED else [] for snapshot in snapshots]


def new_user_vector(tables: Tables, space: Space) -> NDArray[np.float32]:
    """Return the encoder's vector of a user without any data."""
    from userrep.inference.model import EmbeddingModel  # imports torch, which takes seconds

    return EmbeddingModel.load(f"{tables.artifacts_root}/{space.artifact}", space.content_hash).predict({})


def is_in_sample(snapshot: Snapshot) -> bool:
    """Return whether labels get vectors of a snapshot from before the space's ``trained_until``."""
    return snapshot.in_sample and snapshot.state == PUBLISHED


def report_in_sample(space: Space, used: Iterable[Snapshot], options: JoinOptions) -> None:
    """Warn if labels resolve to an in-sample snapshot, or raise UsageError if the options refuse such labels."""
    snapshot = next(filter(is_in_sample, used), None)
    if snapshot is None:
        return
    message = (
        f"labels: the vectors of {snapshot.as_of} are in-sample: space {space.space_id} was trained on events until "
        f"{space.trained_until}, so its encoder has seen what came after them. A model trained on these labels will "
        f"perform worse than it seems. Use labels from {space.trained_until} on, or of another status than in_sample."
    )
    if options.in_sample == "refuse":
        raise UsageError(message)
    warn_caller(message, InSampleWarning)
