"""Opening sums: what a stream starts from on the days that a batch does not know yet.

The stream works ahead on an as-of date A: its users' features are the sums over all days before the open ones,
``[A - open_days, A)``, plus the events of the open days that it has seen itself. So what is kept for A, its opening,
is the state of the window sums without the open days, seen from A; it can be made days before the stream needs it.
Late events of an open day need no correction: the stream holds the whole day.
"""

from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from typing import Any

from pyspark.sql import Row

from userrep.config import Config
from userrep.errors import UsageError
from userrep.features.sides import Profiles, refresh_profiles
from userrep.features.spec import FeatureSpec
from userrep.features.sums.refresh import Difference, Generation, Motion, generations
from userrep.features.sums.tasks import written
from userrep.features.sums.writing import Destination
from userrep.items.versions import Versions
from userrep.store.file_tables import FileTables
from userrep.store.schemas import OPENINGS, USER_OPENINGS
from userrep.store.sql import sql_date
from userrep.store.tables import Tables
from userrep.tiles.tiles import tile_ledger
from userrep.utc import utc_now


@dataclass(frozen=True)
class Opening:
    """The opening of an as-of date: over days before ``open_from``, by the item vectors of ``valid_from``.

    ``table_version``: of ``user_openings``, in which its rows are.
    """

    as_of: date
    open_from: date
    valid_from: date
    revision_by_day: dict[date, int]
    sides_hash: str
    num_users: int = 0
    table_version: int = 0


def openings(tables: Tables, lineage_id: str) -> dict[date, Opening]:
    """Return the openings that a lineage has, by as-of date. Driver memory: a few entries."""
    rows = newest_openings(tables, lineage_id=lineage_id).values()
    return {
        row.as_of: Opening(
            **{field.name: row[field.name] for field in fields(Opening)}
            | {"revision_by_day": dict(row.revision_by_day)}
        )
        for row in rows
    }


def newest_openings(tables: Tables, **equal: str) -> dict[tuple[str, date], Row]:
    """Return the ledger's row of each lineage and as-of date, of those with these values. Driver memory: few."""
    return {(row.lineage_id, row.as_of): row for row in tables.ledger(OPENINGS, **equal)}


def build_openings(
    tables: Tables,
    config: Config,
    versions: Versions,
    as_of: date,
    *,
    profiles: Profiles | None = None,
    open_days: int,
    only_missing: bool = False,
) -> list[tuple[Opening, str]]:
    """Make the openings of the ``open_days - 1`` dates after ``as_of`` that are missing or stale; those before it go.

    None of them has a day in it that closed within the last day: what comes late for that the stream holds. Stale is
    one whose days, item vectors, users or picks have changed since; with ``only_missing`` it stays. ``as_of``: the
    newest date whose tiles and features are there; its item vectors are used, also where a later date begins a new
    version. ``profiles``: those of the run; without them, they are brought up to date. Returns the openings that were
    made, with the reason.

    Cost of each: the window sums are read and written once, with the tiles of the days by which they differ; without
    window sums, or where item vectors are new, the tiles of all windows are read. No shuffle. Killed in between, the
    next run makes what is missing.

    Raises
    ------
    UsageError
        If the tables are in a catalog: a stream reads single users from files.
    """
    tables = with_files(tables)
    ledger, there = tile_ledger(tables), openings(tables, versions.lineage_id)
    profiles, made = profiles or refresh_profiles(tables, config), []
    for day in (as_of + timedelta(days=k) for k in range(1, open_days)):
        start, open_from = day - timedelta(days=FeatureSpec.of(config).span), day - timedelta(days=open_days)
        revisions = {held: revision for held, (_, revision) in ledger.latest.items() if start <= held < open_from}
        wanted = Opening(day, open_from, versions.valid_at(as_of), revisions, profiles.sides_hash)
        reason = _reason(there.get(day), wanted)
        if reason and not (only_missing and day in there):
            state = Generation(0, day, wanted.valid_from, revisions, 0)
            motion = Motion(tables, config, versions, state, ledger, generations(tables, versions.lineage_id))
            made.append((_make(tables, motion, wanted, profiles, gone_before=as_of), reason))
    return made


def with_files(tables: Tables) -> FileTables:
    """Return the tables as what a stream needs: files that it reads itself. Raises UsageError if they have none."""
    if not isinstance(tables, FileTables):
        raise UsageError(
            "stream: looks users up in the tables' files, which it cannot in a catalog; set root: to a path or a URI "
            "(s3a://, abfss://) instead of catalog: and schema:."
        )
    return tables


def _reason(there: Opening | None, wanted: Opening) -> str:
    """Say why an opening has to be made; an empty text if it has not."""
    if there is None:
        return "not made yet"
    if there.open_from != wanted.open_from:
        return "other open days"
    if there.valid_from != wanted.valid_from:
        return f"item vectors of {wanted.valid_from}"
    if there.revision_by_day != wanted.revision_by_day:
        return "days of the log changed"
    return "users or picks changed" if there.sides_hash != wanted.sides_hash else ""


def _make(tables: FileTables, motion: Motion, wanted: Opening, profiles: Profiles, *, gone_before: date) -> Opening:
    """Write an opening's rows, then its row of the ledger; both replace what no stream needs any more."""
    lineage_id = motion.versions.lineage_id
    base, _ = motion.base()
    difference = Difference.between(base, motion.made, FeatureSpec.of(motion.config))
    since = tables.version(USER_OPENINGS)
    inputs = motion.inputs(base, difference, profiles)
    destination = Destination(tables.target(USER_OPENINGS), {"lineage_id": lineage_id})
    job, plan = motion.job(base, difference, ("openings",)), motion.plan(base, difference)
    files = [made.file for made in written(inputs, job, plan, {"openings": destination})]

    def is_replaced(of: dict[str, Any]) -> bool:
        return bool(of["lineage_id"] == lineage_id and (of["as_of"] == wanted.as_of or of["as_of"] < gone_before))

    tables.commit(USER_OPENINGS, files, replacing=is_replaced, since=since)
    num_users = sum(file.num_rows for file in files)
    opening = replace(wanted, num_users=num_users, table_version=tables.version(USER_OPENINGS))
    tables.add(
        OPENINGS,
        [vars(opening) | {"lineage_id": lineage_id, "built_at": utc_now()}],
        replacing=f"lineage_id = '{lineage_id}' "
        f"AND (as_of = {sql_date(wanted.as_of)} OR as_of < {sql_date(gone_before)})",
    )
    return opening
