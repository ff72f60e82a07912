"""The columns that each source of the log has had: what was added is taken up, what was lost or changed is refused."""

from collections.abc import Iterator

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import EventSource
from userrep.errors import UsageError
from userrep.events.columns import leaves
from userrep.events.source import CORRUPT, read_source
from userrep.schemas import SOURCE_SCHEMAS
from userrep.storage import absolute
from userrep.tables import Tables
from userrep.utc import utc_now


def check_schema(tables: Tables, log: EventSource, source: DataFrame, what: str) -> None:
    """Compare a source's columns with those last seen, and keep what they are now.

    Of Parquet and CSV the newest file is looked at, since Spark takes all files to be like one of them; of JSON, whose
    fields may be absent, the whole log. Cost: a listing and one file's schema.

    Raises
    ------
    UsageError
        With every column that is gone or of another type.
    """
    columns = _columns_now(tables, log, source, what)
    name = log.path if log.format == "table" else absolute(log.path)
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


def _columns_now(tables: Tables, log: EventSource, source: DataFrame, what: str) -> dict[str, str]:
    if log.format in ("parquet", "csv"):
        files = tables.spark.read.format("binaryFile").option("recursiveFileLookup", True).load(log.path)
        newest = files.orderBy(F.desc("modificationTime"), F.desc("path")).select("path").first()
        if newest is not None:
            source = read_source(tables.spark, log.model_copy(update={"path": newest.path}), what=what)
    columns = {name: kind for name, kind in leaves(source.schema).items() if name != CORRUPT}
    if log.format == "csv":  # whose values are told apart by their place in the line
        columns = {name: f"{kind} in place {k}" for k, (name, kind) in enumerate(columns.items(), start=1)}
    return columns


def _differences(old: dict[str, str], new: dict[str, str], what: str) -> Iterator[str]:
    for name, kind in sorted(old.items()):
        if name not in new:
            yield f"{what}: column {name!r} ({kind}) is gone."
        elif new[name] != kind:
            yield f"{what}: column {name!r} was {kind} and is {new[name]}."
