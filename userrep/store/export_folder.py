"""The folder of an export: Parquet parts with a manifest, recorded so that erasure reaches the users in it.

The state in the manifest is ``incomplete`` until the last part is written. The next export to the folder therefore
recognizes and replaces a killed one, also in stores without rename.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

from userrep.errors import UsageError, UserrepError
from userrep.ids import short_hash
from userrep.store.export_files import MANIFEST, Part, read_manifest
from userrep.store.filesystem import PARTIAL, absolute, delete_file, file_system, folder_names, write_bytes
from userrep.store.leases import held
from userrep.store.schemas import EXPORTS
from userrep.store.tables import Tables
from userrep.store.write_access import check_writable, names_in_out
from userrep.utc import utc_now

logger = logging.getLogger(__name__)


def check_out(out: str, *, keeps_complete: bool = False) -> None:
    """Check that a folder is empty, missing, or contains only a complete or interrupted export. Changes nothing.

    Raises
    ------
    UsageError
        If the folder has other contents, or a complete export and ``keeps_complete``, or is a file, or this user may
        not write there.
    """
    names = [n for n in names_in_out(out) if not n.startswith(f"{PARTIAL}{MANIFEST}-")]  # left by a kill at the start
    foreign = sorted(name for name in names if not _is_export_file(name))
    if names and (foreign or MANIFEST not in names):
        shown = f" ({', '.join(foreign[:3])})" if foreign else ""
        raise UsageError(
            f"--out {out}: the folder is not empty and is not an earlier export{shown}. Choose another folder."
        )
    if keeps_complete and names and read_manifest(out).get("state") == "complete":
        raise UsageError(f"--out {out}: the folder has a complete export. Choose another folder.")


def _is_export_file(name: str) -> bool:
    return name == MANIFEST or re.fullmatch(r"\.?part-.+\.parquet.*", name) is not None


def check_recordable(tables: Tables, out: str) -> None:
    """Check that the folder of an export can be recorded. Raises UsageError if the tables are not writable."""
    try:
        check_writable(tables.artifacts_root)
    except UsageError as error:
        raise UsageError(
            f"{error} userrep records exports there, so that `userrep forget` also erases users in {out}. "
            "Use --unrecorded to export without a record."
        ) from None


def export_lease(folder: str) -> str:
    """Return the job whose lease is held while an export to a recorded folder is written, or users in it are erased."""
    return f"export-{short_hash(folder)}"


@contextmanager
def recorded_folder(
    tables: Tables, out: str, what: str, as_of: date, *, recorded: bool, keeps_complete: bool = False
) -> Iterator[None]:
    """Record the folder of an export before the block writes its first row, so that erasure can reach it.

    The block holds a lease, so that an erasure knows of rows that it read before.

    Raises
    ------
    AlreadyRunningError
        If another process exports to the folder.
    UsageError
        As ``check_out``, or if ``recorded`` and the tables are not writable.
    """
    check_out(out, keeps_complete=keeps_complete)
    if not recorded:
        logger.warning(f"export: {out} is not recorded; `userrep forget` will not erase users there")
        yield
        return
    check_recordable(tables, out)
    with held(tables, export_lease(real_folder(out))):
        tables.add(EXPORTS, [{"path": real_folder(out), "what": what, "as_of": as_of, "exported_at": utc_now()}])
        yield


def write_folder_of_parts(
    out: str,
    what: str,
    as_of: date,
    *,
    columns: Mapping[str, str],
    details: Mapping[str, Any],
    write: Callable[[str], Sequence[Part]],
) -> dict[str, Any]:
    """Write the parts of an export, with a manifest that has the SHA-256 of each; return the manifest.

    ``columns``: types by name. ``details``: further entries of the manifest. ``write`` writes parts into a folder.
    Raises UserrepError if another command, such as an erasure, has deleted parts meanwhile.
    """
    check_out(out)
    folder = real_folder(out)
    files, path = file_system(folder)
    files.create_dir(path, recursive=True)
    incomplete = {"state": "incomplete", "what": what, "as_of": as_of}
    _write_manifest(folder, incomplete)
    _delete_others(folder, set())
    parts = write(folder)
    written = {part.name for part in parts}
    _delete_others(folder, written)  # leftovers of tasks that Spark ran twice
    if written - set(folder_names(folder)):  # an erasure deletes the parts of an incomplete export
        raise UserrepError(f"export: another command has deleted parts in {out}. Run the export again.")
    manifest = {
        **incomplete,
        "state": "complete",
        "num_rows": sum(part.num_rows for part in parts),
        "columns": dict(columns),
        **details,
        "exported_at": datetime.now(UTC),
        **({"num_at_limit": num_at_limit} if (num_at_limit := sum(part.num_at_limit for part in parts)) else {}),
        "sha256": {part.name: part.sha256 for part in parts},
    }
    _write_manifest(folder, manifest)
    return manifest


def real_folder(out: str) -> str:
    """Return the same text for all names of a folder: relative, with a trailing slash, or through a link."""
    folder = absolute(out.rstrip("/") or "/")
    return os.path.realpath(folder) if folder.startswith("/") else folder


def _write_manifest(folder: str, manifest: dict[str, Any]) -> None:
    write_bytes(f"{folder}/{MANIFEST}", json.dumps(manifest, indent=1, default=str).encode())


def _delete_others(folder: str, names: set[str]) -> None:
    for name in folder_names(folder):
        if name not in (MANIFEST, *names) and _is_export_file(name):
            delete_file(f"{folder}/{name}")
