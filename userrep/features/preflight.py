"""What can be refused before Spark starts: paths that do not exist, columns that no file has."""

from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError
from pyspark.errors import PySparkException
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StringType, StructField, StructType

from userrep.config import Config, Source
from userrep.delta_files import DeltaFiles
from userrep.errors import UsageError
from userrep.events.columns import check_columns
from userrep.events.source import check_local
from userrep.features.sides import mapped_columns, source_of

_MAX_FILES = 100  # whose footers are read


class _Columns(NamedTuple):
    schema: StructType


def check_before_spark(config: Config) -> None:
    """Refuse sources on local disks whose path or mapped columns do not exist.

    Other stores and formats than Parquet and Delta, and folders of more than 100 files, are left to the run. Cost: some
    milliseconds.

    Raises
    ------
    UsageError
        With every fault of all sources.
    """
    faults: dict[str, None] = {}  # in order; a missing path is one fault, whatever is mapped in it
    for what, source, wanted in mapped_columns(config):
        try:
            if source.format != "table":
                check_local(source.path, source_of(what))
            schema = _schema(source)
            if schema is not None:
                check_columns(_Columns(schema), wanted, what)
        except UsageError as error:
            faults |= dict.fromkeys(error.faults)
    if faults:
        raise UsageError(list(faults))


def _schema(source: Source) -> StructType | None:
    """Return the columns of a local source; None if they cannot be told without Spark."""
    path = Path(source.path)
    if source.format == "delta" and path.is_dir() and DeltaFiles(str(path)).exists():
        with suppress(DeltaError):
            return DeltaFiles(str(path)).fields()
    if source.format != "parquet" or not path.exists():
        return None
    files = [path] if path.is_file() else list(islice(path.rglob("*.parquet"), _MAX_FILES + 1))
    files = [file for file in files if not any(part[0] in "._" for part in file.relative_to(path).parts)]
    if not files or len(files) > _MAX_FILES:
        return None
    try:
        schema = from_arrow_schema(pa.unify_schemas(map(pq.read_schema, files), promote_options="permissive"))
    except (pa.ArrowException, PySparkException, OSError):
        return None
    folders = {part.partition("=")[0] for file in files for part in file.relative_to(path).parts[:-1] if "=" in part}
    return StructType([*schema.fields, *(StructField(name, StringType()) for name in folders - {*schema.names})])
