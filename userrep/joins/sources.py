"""Inputs of a join, read from the ledgers of one space: its snapshots, their files, and the vector of a new user."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from userrep.errors import UsageError
from userrep.joins.options import InSampleWarning, JoinOptions
from userrep.joins.snapshot_at import Step
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


def check_usable(tables: Tables, space: Space) -> None:
    """Refuse a retired space. Raises UsageError, which names the serving space."""
    if space.state == RETIRED:
        serving = read_registry(tables).serving
        raise UsageError(
            f"space {space.space_id} is retired, and its vectors are no longer built. "
            f"Serving space: {serving.space_id if serving else 'none'}. "
            "Join with that space, and retrain the models that use the retired one."
        )


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


def files_by_step(tables: FileTables, sources: Sources, steps: Sequence[Step]) -> list[list[TableFile]]:
    """Return the files of each step's snapshot; none for an expired one. Cost: one read of the log."""
    step_numbers = {(s.as_of, s.revision): k for k, (_, s) in enumerate(steps) if s.state == PUBLISHED}
    files: list[list[TableFile]] = [[] for _ in steps]

    def is_used(values: dict[str, Any]) -> bool:
        key = values["as_of"], values["revision"]
        return values["space_id"] == sources.space.space_id and key in step_numbers

    for file in tables.files(USER_EMBEDDINGS, is_used, version=sources.version):
        files[step_numbers[file.values["as_of"], file.values["revision"]]].append(file)
    return files


def dim_of(steps: Sequence[Step]) -> int | None:
    """Return the number of dimensions of the snapshots' vectors, or None if no gate has recorded it."""
    return max((step.snapshot.dim for step in steps if step.snapshot.dim is not None), default=None)


def new_user_vector(tables: Tables, space: Space) -> NDArray[np.float32]:
    """Return the encoder's vector of a user without any data."""
    from userrep.inference.model import EmbeddingModel  # imports torch, which takes seconds

    return EmbeddingModel.load(f"{tables.artifacts_root}/{space.artifact}", space.content_hash).predict({})


def report_in_sample(space: Space, as_of: date, options: JoinOptions) -> None:
    """Warn that a label resolves to the in-sample snapshot of ``as_of``, or raise if the options refuse such labels."""
    message = (
        f"labels: the vectors of {as_of} are in-sample: space {space.space_id} was trained on events until "
        f"{space.trained_until}, so its encoder has seen what came after them. A model trained on these labels will "
        f"perform worse than it seems. Use labels from {space.trained_until} on, or of another status than in_sample."
    )
    if options.in_sample == "refuse":
        raise UsageError(message)
    warn_caller(message, InSampleWarning)
