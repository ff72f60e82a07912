"""Checks of a stored table before it is read: its format, its columns, and the Delta features that it uses."""

from collections.abc import Collection, Mapping, Sequence

from userrep.errors import UsageError, UserrepError, in_line
from userrep.store.schemas import TableSchema

FORMAT_KEY, FORMAT = "userrep.format", 1  # incremented when the meaning of existing columns changes
NOT_IN_FILES = {"deletionVectors", "columnMapping"}  # features that Parquet readers do not apply

Properties = Mapping[str, str | None]


def check_layout(name: str, table: TableSchema, columns: Sequence[str], properties: Properties) -> None:
    """Raise UsageError if the table has another format or other columns. ``name``: the table's name in SQL."""
    if (table_format := properties.get(FORMAT_KEY) or "none") != str(FORMAT):
        raise UsageError(
            f"table {name} has format {in_line(table_format)}, but this release reads format {FORMAT}. "
            "Use the release that wrote it, or choose another root."
        )
    if set(table.names) != set(columns):
        raise UsageError(
            f"table {name} has the columns {', '.join(columns)}; this release expects "
            f"{', '.join(table.names)}. Use the release that wrote it, or choose another root."
        )


def check_features(uri: str, features: Collection[str], properties: Properties) -> None:
    """Raise UserrepError if the rows of a table are not those of its files. ``features``: those of Delta's readers."""
    hidden = NOT_IN_FILES & set(features)
    if properties.get("delta.columnMapping.mode", "none") != "none":  # older tables do not name the feature
        hidden.add("columnMapping")
    if hidden:
        raise UserrepError(
            f"table {uri} has the Delta feature {', '.join(sorted(hidden))}, with which its files do not contain its "
            "rows as they are. Another program has enabled it. Drop the feature with ALTER TABLE, or restore the table "
            "from a backup."
        )
