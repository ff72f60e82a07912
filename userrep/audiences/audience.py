"""Look-alike audiences: the users of a snapshot who resemble the users of a seed list, in one pass over its files."""

import logging
import os
from dataclasses import dataclass
from datetime import date
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from userrep.audiences.ensemble import Ensemble, HeldOut, InputTransform, fit_ensemble
from userrep.audiences.protected import guard_of
from userrep.audiences.protected_values import read_protected
from userrep.audiences.snapshot_users import SCORES, SnapshotUsers
from userrep.config import Users
from userrep.errors import UsageError, in_line
from userrep.joins.ledger import usable_sources
from userrep.sources.id_files import IdFile
from userrep.sources.tombstones import read_tombstones
from userrep.spaces.snapshots import Snapshot, newest_snapshot
from userrep.store.arrow import combined
from userrep.store.export_files import Part, write_rows
from userrep.store.export_folder import recorded_folder, write_folder_of_parts
from userrep.store.tables import Tables

logger = logging.getLogger(__name__)

MIN_SEEDS = 20  # in the snapshot
_MOST_SEEDS = 30_000  # that the score is fitted on
_SAMPLE = 30_000  # users of the snapshot that seeds are compared with
_MIN_OTHERS = 100
_SHOWN = 3
_SEED = 7
_COLUMNS = {"user_id": "string", "score": "double", "rank": "int", "as_of": "date", "space_id": "string"}


@dataclass(frozen=True)
class Audience:
    """An audience: ``users`` with user_id, score, rank (from 1), as_of and space_id, best first, and its facts."""

    users: pa.Table
    facts: dict[str, Any]
    tables: Tables

    def write(self, out: str | os.PathLike[str], *, recorded: bool = True) -> dict[str, Any]:
        """Write the audience as a folder of Parquet files with a manifest, and return the manifest.

        The folder is recorded first, so that ``userrep forget`` erases users in it, unless not ``recorded``. Users who
        were erased since the audience was built are left out; the ranks of the others stay.

        Raises
        ------
        UsageError
            If the folder has a complete export or other contents, or the root is not writable and ``recorded``.
        """
        out, as_of = os.path.expanduser(os.fspath(out)), self.facts["as_of"]
        details = {name: value for name, value in self.facts.items() if name != "as_of"}

        def write(folder: str) -> list[Part]:
            is_erased = read_tombstones(self.tables).mask(combined(self.users["user_id"]))
            return write_rows(self.users.filter(pa.array(~is_erased)), folder, key="user_id")

        with recorded_folder(self.tables, out, "audience", as_of, recorded=recorded, keeps_complete=True):
            return write_folder_of_parts(out, "audience", as_of, columns=_COLUMNS, details=details, write=write)


def build_audience(
    tables: Tables,
    settings: Users | None,
    seeds: IdFile,
    size: int,
    *,
    exclude: pa.StringArray | None = None,
    as_of: date | None = None,
    space: str | None = None,
) -> Audience:
    """Find the ``size`` users of a snapshot who resemble the seeds most. Reads only; below a root it needs no Spark.

    Seeds, ``exclude`` and erased users are not in it. ``settings.protected`` are removed from the vectors. ``as_of``
    and ``space``: by default the newest snapshot of the serving space.

    Raises UsageError if seeds are of another space, too few of them are in the snapshot, ``size`` is larger than the
    number of other users, the space or its snapshot does not exist, or a protected attribute cannot be removed. Cost:
    the row groups that may contain seeds and excluded users, one pass over the snapshot, and a fit in seconds. Memory:
    a row group, three times the audience, the ids of both lists, and up to 180,000 vectors.
    """
    users = SnapshotUsers(tables, _snapshot_of(tables, space, as_of, seeds))
    snapshot, known = users.snapshot, _in_snapshot(users, seeds.user_ids)
    left_out = known
    if exclude is not None and len(exclude):
        left_out = pa.concat_arrays([known, combined(users.rows_of(exclude, ["user_id"])["user_id"])]).unique()
    _check_size(size, snapshot.num_users - len(left_out), snapshot)
    inputs, ensemble, held_out = _fit(users, settings, known)
    best = users.best(partial(_scores, inputs=inputs, ensemble=ensemble, left_out=left_out), size)
    _check_size(size, len(best), snapshot)
    num_erased = int(users.erased.mask(seeds.user_ids).sum())
    num_unknown = len(seeds.user_ids) - num_erased - len(known)
    facts = {
        "as_of": snapshot.as_of, "space_id": snapshot.space_id, "snapshot_id": snapshot.snapshot_id,
        "num_users": snapshot.num_users,
        "seeds": {"given": len(seeds.user_ids), "erased": num_erased, "unknown": num_unknown, "used": len(known)},
        "num_excluded": len(left_out) - len(known), **held_out.facts(size, snapshot.num_users),
        "protected": inputs.guard.facts(),
    }  # fmt: skip
    return Audience(_ranked(best, snapshot, ensemble), facts, tables)


def _snapshot_of(tables: Tables, space: str | None, as_of: date | None, seeds: IdFile) -> Snapshot:
    """Return the snapshot of a date, by default the newest. Raises UsageError if seeds are of another space."""
    sources = usable_sources(tables, space)
    space_id = sources.space.space_id
    if foreign := sorted(seeds.space_ids - {space_id}):
        raise UsageError(
            f"seeds: from space {', '.join(foreign)}, but the audience is of space {space_id}. Ids are compared within "
            f"one space: choose space {foreign[0]}, or list the ids in a text file."
        )
    return newest_snapshot(tables, space_id, as_of) if as_of else sources.newest


def _in_snapshot(users: SnapshotUsers, user_ids: pa.StringArray) -> pa.StringArray:
    """Return the seeds that are in the snapshot; log how many are not. Erased users are never named."""
    asked = user_ids.filter(pa.array(~users.erased.mask(user_ids)))
    seeds = combined(users.rows_of(asked, ["user_id"])["user_id"])
    unknown = asked.filter(pc.invert(pc.is_in(asked, value_set=seeds)))
    examples = ", ".join(in_line(user) for user in unknown[:_SHOWN].to_pylist())
    where = f"are not in snapshot {users.snapshot.snapshot_id}" + (f", such as {examples}" if examples else "")
    if len(seeds) < MIN_SEEDS:
        raise UsageError(
            f"seeds: {len(seeds)} of {len(user_ids):,} users are in the snapshot, but at least {MIN_SEEDS} must be; "
            f"{len(unknown):,} {where}. Check that the ids are those of the event log."
        )
    if len(unknown):
        logger.warning(f"seeds: {len(unknown):,} of {len(user_ids):,} ({len(unknown) / len(user_ids):.0%}) {where}")
    return seeds


def _check_size(size: int, num_left: int, snapshot: Snapshot) -> None:
    if isinstance(size, bool) or not isinstance(size, Integral):
        raise UsageError(f"size: must be a whole number, got {size!r}. Convert it with int().")
    if not 1 <= size <= num_left:
        raise UsageError(
            f"size: must be between 1 and {num_left:,}, the users of snapshot {snapshot.snapshot_id} that are neither "
            f"seeds nor excluded, got {size:,}. Choose a size in this range."
        )


def _fit(
    users: SnapshotUsers, settings: Users | None, seeds: pa.StringArray
) -> tuple[InputTransform, Ensemble, HeldOut]:
    """Fit the score on inputs of seeds and sampled users, without the protected attributes."""
    snapshot = users.snapshot
    population = users.sample(_SAMPLE / snapshot.num_users)
    others = population.filter(pc.invert(pc.is_in(population["user_id"], value_set=seeds)))
    if len(others) < _MIN_OTHERS:
        raise UsageError(
            f"seeds: {len(others)} users of snapshot {snapshot.snapshot_id} are not seeds, at least {_MIN_OTHERS} are "
            "needed to compare with. Use a shorter list."
        )
    inputs = InputTransform.of(population["embedding"])
    if settings is not None and settings.protected:
        values, vectors = read_protected(settings, users)
        inputs = inputs._replace(guard=guard_of(inputs(vectors), values))
    chosen = np.random.default_rng(_SEED).permutation(len(seeds))[:_MOST_SEEDS]
    vectors = users.rows_of(seeds.take(pa.array(chosen)))["embedding"]
    x_seeds, x_others, num_others = inputs(vectors), inputs(others["embedding"]), snapshot.num_users - len(seeds)
    return inputs, *fit_ensemble(x_seeds, x_others, num_seeds=len(seeds), num_others=num_others)


def _scores(rows: pa.Table, *, inputs: InputTransform, ensemble: Ensemble, left_out: pa.StringArray) -> pa.Table:
    """Score the users of a batch. ``left_out``: ids of users that are not in the audience."""
    rows = rows.filter(pc.invert(pc.is_in(rows["user_id"], value_set=left_out)))
    if not rows.num_rows:  # scikit-learn refuses empty matrices
        return SCORES.empty_table()
    return pa.table([rows["user_id"], pa.array(ensemble.scores(inputs(rows["embedding"])))], SCORES)


def _ranked(best: pa.Table, snapshot: Snapshot, ensemble: Ensemble) -> pa.Table:
    """Return the rows of an audience from its scores, best first."""
    columns = {
        "user_id": best["user_id"],
        "score": pa.array(ensemble.calibration.probabilities(best["score"].to_numpy())),
        "rank": pa.array(np.arange(1, len(best) + 1, dtype=np.int32)),
        "as_of": pa.repeat(pa.scalar(snapshot.as_of), len(best)),
        "space_id": pa.repeat(snapshot.space_id, len(best)),
    }
    return pa.table(columns)
