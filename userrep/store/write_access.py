"""Checks, before any work, that a folder of output or a root can be written to."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import pyarrow.fs

from userrep.errors import UsageError, first_line
from userrep.store.filesystem import file_system, folder_names


def names_in_out(out: str) -> list[str]:
    """Return the sorted names of the entries of a command's output folder; none if it does not exist yet.

    Raises
    ------
    UsageError
        If the folder cannot be read, is a file, or is not writable for this user.
    """
    try:
        files, path = file_system(out)
        if files.get_file_info(path).is_file:
            raise UsageError(f"--out {out}: this is a file; name a folder.")
        if isinstance(files, pyarrow.fs.LocalFileSystem):
            _check_access(path)
        return folder_names(out)
    except PermissionError as error:
        raise UsageError(f"--out {out}: {error.strerror}; name another one.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"--out {out}: cannot be read as a folder ({error}).") from None


def check_new_folder(out: str) -> None:
    """Check that an output folder is empty or can be created, without creating anything.

    Raises
    ------
    UsageError
        If the folder is not empty, cannot be read, is a file, or is not writable for this user.
    """
    if names := names_in_out(out):
        raise UsageError(f"--out {out}: the folder is not empty ({', '.join(names[:3])}); name another one.")


def check_writable(uri: str) -> None:
    """Check that a root is writable or can be created. Nothing is created on a local disk.

    In an object store, a probe file is written and deleted.

    Raises
    ------
    UsageError
        If the root is not writable, with the reason.
    """
    try:
        files, path = file_system(uri)
        if isinstance(files, pyarrow.fs.LocalFileSystem):
            return _check_access(path)
        probe = f"{path}/.userrep-write-check"
        with files.open_output_stream(probe):
            pass
        with suppress(FileNotFoundError):  # deleted by another command that checks at the same time
            files.delete_file(probe)
    except (OSError, ValueError) as error:  # ValueError: a scheme that pyarrow does not support
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UsageError(f"root {uri}: not writable ({reason}). Name another one, or request write access.") from None


def _check_access(path: str) -> None:
    """Raise OSError unless a local folder is writable or, if it does not exist, its nearest existing parent is."""
    nearest = next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{nearest} is not a folder that this user may write to")
