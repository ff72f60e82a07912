"""The columns that each source of the log has had: what was added is taken up, what was lost or changed is refused."""

from collections.abc import Iterator

from userrep.errors import UsageError
from userrep.sources.open_log import OpenLog
from userrep.store.schemas import SOURCE_SCHEMAS
from userrep.store.storage import absolute
from userrep.store.tables import Tables
from userrep.utc import utc_now


def check_schema(tables: Tables, log: OpenLog) -> None:
    """Compare a source's columns with those last seen, and keep what they are now. Cost: a look at the ledger.

    Raises
    ------
    UsageError
        With every column that is gone or of another type.
    """
    columns, what, place = log.columns, log.what, log.settings.path
    name = place if log.settings.format == "table" else absolute(place)
    seen = max(tables.ledger(SOURCE_SCHEMAS, source=name), key=lambda row: row.seen_at, default=None)
    if seen is not None and seen["columns"] == columns:
        return
    faults = list(_differences(seen["columns"], columns, what)) if seen is not None else []
    if faults:
        forget = f"DELETE FROM {tables.name(SOURCE_SCHEMAS)} WHERE source = '{name}'"
        cure = f"Write them as before; where the whole log was rewritten, forget the old ones: {forget}."
        raise UsageError([*faults, f"{what}: the log's columns are not what they were. {cure}"])
    now = utc_now()
    tables.add(SOURCE_SCHEMAS, [{"source": name, "columns": columns, "seen_at": now}])


def _differences(old: dict[str, str], new: dict[str, str], what: str) -> Iterator[str]:
    for name, kind in sorted(old.items()):
        if name not in new:
            yield f"{what}: column {name!r} ({kind}) is gone."
        elif new[name] != kind:
            yield f"{what}: column {name!r} was {kind} and is {new[name]}."
