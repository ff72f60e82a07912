"""The stream base: sums per user that a stream starts from, stored in the ``openings`` tables.

A stream works ahead on an as-of date A. Its users' features are the sums over all days before the open days ``[A -
open_days, A)``, plus the events of the open days that the stream has seen itself. The base of A is therefore the window
sums as seen from A without the open days. It can be built days before the stream needs it. Late events of an open day
need no correction, because the stream reads the whole day.
"""

from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from typing import Any

from pyspark.sql import Row

from userrep.config import Config
from userrep.errors import UsageError
from userrep.features.profiles import Profiles, refresh_profiles
from userrep.features.spec import FeatureSpec
from userrep.features.sums.refresh import Difference, Generation, SumsUpdate, generations
from userrep.features.sums.tasks import write_files
from userrep.features.sums.writing import Destination
from userrep.items.versions import Versions
from userrep.store.file_tables import FileTables
from userrep.store.schemas import OPENINGS, USER_OPENINGS
from userrep.store.sql import sql_date
from userrep.store.tables import Tables
from userrep.tiles.ledger import tile_ledger
from userrep.utc import utc_now


@dataclass(frozen=True)
class Opening:
    """The stream base of an as-of date: sums over days before ``open_from``, by the item vectors of ``valid_from``.

    ``table_version``: the version of ``user_openings`` that contains its rows.
    """

    as_of: date
    open_from: date
    valid_from: date
    revision_by_day: dict[date, int]
    sides_hash: str
    num_users: int = 0
    table_version: int = 0


def openings(tables: Tables, lineage_id: str) -> dict[date, Opening]:
    """Return a lineage's stream bases by as-of date. Driver memory: a few entries."""
    rows = newest_openings(tables, lineage_id=lineage_id).values()
    return {
        row.as_of: Opening(
            **{field.name: row[field.name] for field in fields(Opening)}
            | {"revision_by_day": dict(row.revision_by_day)}
        )
        for row in rows
    }


def newest_openings(tables: Tables, **equal: str) -> dict[tuple[str, date], Row]:
    """Return the newest ledger row per lineage and as-of date among rows with these values. Driver memory: few rows."""
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
    """Build the missing or stale stream bases of the ``open_days - 1`` dates after ``as_of``, and delete older ones.

    A base contains no day that closed within the last day, since the stream reads late events of those days itself. A
    base is stale if its days, item vectors, users or picks have changed; ``only_missing`` keeps stale ones. ``as_of``:
    the newest date with tiles and features. Its item vectors are used even if a later date starts a new version.
    ``profiles``: the profiles pinned by the run; without them, ``user_profiles`` is refreshed first. Returns the bases
    that were built, with the reason.

    Cost per base: the window sums are read and written once, with the tiles of the days that differ. Without window
    sums or with new item vectors, the tiles of all windows are read. No shuffle. After a kill, the next run builds what
    is missing.

    Raises
    ------
    UsageError
        If the tables are in a catalog: a stream reads single users from files.
    """
    tables = with_files(tables)
    ledger, existing = tile_ledger(tables), openings(tables, versions.lineage_id)
    profiles, built = profiles or refresh_profiles(tables, config), []
    for day in (as_of + timedelta(days=k) for k in range(1, open_days)):
        start, open_from = day - timedelta(days=FeatureSpec.of(config).span), day - timedelta(days=open_days)
        revisions = {past: revision for past, (_, revision) in ledger.latest.items() if start <= past < open_from}
        target = Opening(day, open_from, versions.valid_at(as_of), revisions, profiles.sides_hash)
        reason = _stale_reason(existing.get(day), target)
        if reason and not (only_missing and day in existing):
            state = Generation(0, day, target.valid_from, revisions, 0)
            update = SumsUpdate(tables, config, versions, state, ledger, generations(tables, versions.lineage_id))
            built.append((_build(tables, update, target, profiles, oldest=as_of), reason))
    return built


def with_files(tables: Tables) -> FileTables:
    """Return the tables if they are stored in files, which a stream reads directly. Otherwise raises UsageError."""
    if not isinstance(tables, FileTables):
        raise UsageError(
            "stream: needs tables in files, got tables in a catalog. Set root: to a path or a URI (s3a://, abfss://) "
            "instead of catalog: and schema:."
        )
    return tables


def _stale_reason(existing: Opening | None, target: Opening) -> str:
    """Return why a stream base must be built; empty if it is up to date."""
    if existing is None:
        return "not built yet"
    if existing.open_from != target.open_from:
        return "number of open days changed"
    if existing.valid_from != target.valid_from:
        return f"item vectors of {target.valid_from} are new"
    if existing.revision_by_day != target.revision_by_day:
        return "days of the log changed"
    return "users or picks changed" if existing.sides_hash != target.sides_hash else ""


def _build(tables: FileTables, update: SumsUpdate, target: Opening, profiles: Profiles, *, oldest: date) -> Opening:
    """Write the rows of a stream base, then its ledger row. Both replace bases of dates before ``oldest``."""
    lineage_id = update.versions.lineage_id
    base, _ = update.base()
    difference = Difference.between(base, update.target, FeatureSpec.of(update.config))
    since = tables.version(USER_OPENINGS)
    inputs = update.inputs(base, difference, profiles)
    destination = Destination(tables.target(USER_OPENINGS), {"lineage_id": lineage_id})
    job, plan = update.job(base, difference, ("openings",)), update.plan(base, difference)
    files = [output.file for output in write_files(inputs, job, plan, {"openings": destination})]

    def is_replaced(values: dict[str, Any]) -> bool:
        is_superseded = values["as_of"] == target.as_of or values["as_of"] < oldest
        return bool(values["lineage_id"] == lineage_id and is_superseded)

    tables.commit(USER_OPENINGS, files, replacing=is_replaced, since=since)
    num_users = sum(file.num_rows for file in files)
    opening = replace(target, num_users=num_users, table_version=tables.version(USER_OPENINGS))
    tables.add(
        OPENINGS,
        [vars(opening) | {"lineage_id": lineage_id, "built_at": utc_now()}],
        replacing=f"lineage_id = '{lineage_id}' AND (as_of = {sql_date(target.as_of)} OR as_of < {sql_date(oldest)})",
    )
    return opening
