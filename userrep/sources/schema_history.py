"""Schema changes of the log: new columns are accepted, removed columns and changed types are refused."""

from collections.abc import Iterator

from userrep.errors import UsageError
from userrep.sources.open_log import OpenLog, time_and_name, with_columns
from userrep.sources.partitions import folder_day
from userrep.store.filesystem import absolute
from userrep.store.schemas import SOURCE_FILES, SOURCE_SCHEMAS
from userrep.store.tables import Tables
from userrep.utc import utc_now


def check_schema(tables: Tables, log: OpenLog) -> None:
    """Compare a source's columns with those recorded last, and record them if they changed.

    Cost: one read of the ledger, and a commit if columns were added. If a recorded column is missing, a second ledger
    and the footer of a file; all of a JSON log.

    Raises
    ------
    UsageError
        With every column that was removed or has another type.
    """
    columns, what, path = log.columns, log.what, log.settings.path
    name = path if log.settings.format == "table" else absolute(path)
    recorded = max(tables.ledger(SOURCE_SCHEMAS, source=name), key=lambda row: row.seen_at, default=None)
    known = columns if recorded is None else recorded["columns"]
    if log.settings.format == "json":
        known = {name: kind.partition("<")[0] for name, kind in known.items()}
    if any(_breaking_changes(known, columns, what)):
        columns = _columns_now(tables, log)
    if recorded is not None and known == columns:
        return
    faults = list(_breaking_changes(known, columns, what))
    if faults:
        delete = f"DELETE FROM {tables.name(SOURCE_SCHEMAS)} WHERE source = '{name}'"
        cure = f"Restore them; or, if the whole log was rewritten, delete the recorded columns: {delete}."
        raise UsageError([*faults, f"{what}: the log's columns have changed. {cure}"])
    tables.add(SOURCE_SCHEMAS, [{"source": name, "columns": columns, "seen_at": utc_now()}])


def _columns_now(tables: Tables, log: OpenLog) -> dict[str, str]:
    """Return the columns that count before a refusal.

    Of JSON, those of all files. An old file that was written again is the newest one, but the log has the columns of
    later files: the last file by name counts.
    """
    if log.settings.format == "json":
        return log.columns_of([file.path for file in log.files])
    newest = max(log.files, key=time_and_name, default=None)
    if log.is_table or newest is None:
        return log.columns
    partition = log.settings.partition
    if partition is not None and partition.holds == "event_date":  # whose files are only listed
        days = [day for file in log.files if (day := folder_day(file.path, partition))]
        is_old = folder_day(newest.path, partition) != max(days, default=None)
    else:
        is_old = bool(tables.ledger(SOURCE_FILES, ("path",), path=newest.path))
    by_name = sorted(log.files, key=lambda file: file.path, reverse=True)
    return log.columns_of([with_columns(by_name, log.settings)]) if is_old else log.columns


def _breaking_changes(old: dict[str, str], new: dict[str, str], what: str) -> Iterator[str]:
    for name, kind in sorted(old.items()):
        if name not in new:
            yield f"{what}: column {name!r} ({kind}) was removed."
        elif new[name] != kind:
            yield f"{what}: column {name!r} changed from {kind} to {new[name]}."
