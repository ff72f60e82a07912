"""Users in recorded exports: their rows are found, or erased from the parts."""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from userrep.errors import AlreadyRunningError, in_one_line, plural
from userrep.spark.tasks import map_in_tasks
from userrep.store.arrow import combined
from userrep.store.export_files import MANIFEST, PART, Part, read_manifest, sha256_of, write_part
from userrep.store.export_folder import export_lease
from userrep.store.filesystem import (
    PARTIAL,
    delete_file,
    exists,
    file_system,
    folder_names,
    is_local,
    open_parquet,
    write_bytes,
)
from userrep.store.leases import held
from userrep.store.schemas import EXPORTS
from userrep.store.tables import Tables

logger = logging.getLogger(__name__)

# Starts of the results of exports in which users may be left.
NOT_READABLE, NOT_FOUND, BEING_WRITTEN = "not readable", "not found", "being written"
UNREACHED = NOT_READABLE, NOT_FOUND, BEING_WRITTEN
_ERASED = PART.append(pa.field("num_erased", pa.int64()))

IdPredicate = Callable[[pa.Array], NDArray[np.bool_]]  # returns, for an array of ids, which rows to erase


def erase_from_exports(tables: Tables, is_erased: IdPredicate) -> dict[str, str]:
    """Erase users from the recorded exports that still exist; return the result by path."""

    def erase_from(path: str) -> str | None:
        with ExitStack() as leases:
            try:
                leases.enter_context(held(tables, export_lease(path)))
            except AlreadyRunningError:
                return f"{BEING_WRITTEN}: repeat `userrep forget` when the export has ended"
            num_rows = erase_from_parts(tables.spark, path, is_erased)
        if num_rows is None:
            return None
        logger.info(f"forget: export {path}: {plural(num_rows, 'row')}")
        return f"{num_rows} rows"

    return _for_each_export(tables, erase_from, cure=": erase the users by hand, or export again")


def find_in_exports(tables: Tables, is_erased: IdPredicate) -> dict[str, str]:
    """Return what would be done to each export that has rows of the users or cannot be read, by path."""

    def find_in(path: str) -> str | None:
        num_files, num_rows = find_in_parts(path, is_erased)
        return f"{num_rows:,} rows in {num_files:,} files" if num_files else None

    return _for_each_export(tables, find_in)


def _for_each_export(tables: Tables, act: Callable[[str], str | None], *, cure: str = "") -> dict[str, str]:
    """Return by path what ``act`` returns for each recorded export, without None, or why an export is not readable.

    An export that no longer exists has no result. If machines share the root, a local folder that is missing on this
    one may be on another.
    """
    results, is_shared = {}, not is_local(tables.artifacts_root)
    for path in sorted({row.path for row in tables.ledger(EXPORTS, ("path",))}):
        result = None
        try:
            if exists(f"{path}/{MANIFEST}"):
                result = act(path)
            elif is_shared and is_local(path):
                result = f"{NOT_FOUND} on this machine: it was deleted, or written on another machine{cure}"
        except (OSError, ValueError, PySparkException) as error:  # PySparkException: an error in a task
            result = f"{NOT_READABLE} ({in_one_line(error)[:200]}){cure}"
        if result is not None:
            results[path] = result
    return results


def erase_from_parts(spark: SparkSession, folder: str, is_erased: IdPredicate) -> int | None:
    """Erase rows from an export by its user id; return their number, or None if the export no longer exists.

    Parts with such rows are rewritten. The manifest is then updated to the current counts and hashes, also after an
    interrupted attempt. All parts of an incomplete export are deleted, because it has to be run again in any case.
    Cost: one read of all parts.

    Raises ValueError if the parts do not match the manifest.
    """
    if not exists(f"{folder}/{MANIFEST}"):
        return None
    manifest, names = read_manifest(folder), _part_names(folder)
    is_complete, column = manifest.get("state") == "complete", _user_column(manifest)
    for name in folder_names(folder):
        if name.startswith(f"{PARTIAL}part-") or (name in names and not is_complete):
            delete_file(f"{folder}/{name}")
    if not is_complete:
        return 0
    if set(names) != set(manifest["sha256"]):
        raise ValueError("its parts do not match its manifest")
    if not names or _is_without_users(manifest):
        return 0

    def erase(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            part, num_erased = _erase_from_part(folder, row["name"], column, is_erased)
            yield part._asdict() | {"num_erased": num_erased}

    results = map_in_tasks(spark, [(name,) for name in names], "name STRING", erase, _ERASED)
    sha256 = {row.name: row.sha256 for row in sorted(results)}
    if sha256 != manifest["sha256"]:
        manifest |= {"num_rows": sum(row.num_rows for row in results), "sha256": sha256}
        write_bytes(f"{folder}/{MANIFEST}", json.dumps(manifest, indent=1).encode())
    return sum(int(row.num_erased) for row in results)


def find_in_parts(folder: str, is_erased: IdPredicate) -> tuple[int, int]:
    """Return the number of parts that ``erase_from_parts`` would rewrite, and of their rows to erase.

    An incomplete export counts with all parts and no rows, one that no longer exists with none. Cost: a read of all
    ids.
    """
    if not exists(f"{folder}/{MANIFEST}"):
        return 0, 0
    manifest, names = read_manifest(folder), _part_names(folder)
    if manifest.get("state") != "complete":
        return len(names), 0
    if _is_without_users(manifest):
        return 0, 0
    column = _user_column(manifest)
    ids = (open_parquet(f"{folder}/{name}").read(columns=[column], use_threads=False) for name in names)
    nums = [int(is_erased(_ids(part, column)).sum()) for part in ids]
    return sum(map(bool, nums)), sum(nums)


def _part_names(folder: str) -> list[str]:
    return [name for name in folder_names(folder) if re.fullmatch(r"part-.+\.parquet", name)]


def _user_column(manifest: Mapping[str, Any]) -> str:
    return str(manifest.get("user_column", "user_id"))  # a training set keeps the user column of its labels


def _is_without_users(manifest: Mapping[str, Any]) -> bool:
    """Return whether item vectors have replaced the recorded export in this folder."""
    return manifest.get("what") == "item-vectors"


def _ids(rows: pa.Table, column: str) -> pa.Array:
    """Return user ids as strings; Spark can be set to write large ones."""
    return combined(rows.column(column)).cast(pa.string())


def _erase_from_part(folder: str, name: str, column: str, is_erased: IdPredicate) -> tuple[Part, int]:
    """Rewrite a part without the erased rows, if it has any; return the part and the number of erased rows."""
    rows = open_parquet(f"{folder}/{name}").read(use_threads=False)
    is_erased_N = is_erased(_ids(rows, column))
    if not is_erased_N.any():
        return Part(name, rows.num_rows, sha256_of(*file_system(f"{folder}/{name}"))), 0
    return write_part(folder, name, column, rows.filter(pa.array(~is_erased_N))), int(is_erased_N.sum())
