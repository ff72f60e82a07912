"""Validated names, which are safe in paths and SQL predicates, and hashes that identify content."""

import hashlib
import json
import re
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from userrep.errors import UsageError

NAME_RULE = "use 1 to 64 of a-z, 0-9, _ and -, starting with a letter or digit"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def checked_name(name: str, what: str) -> str:
    """Return ``name`` if it is safe in a path or a SQL predicate. ``what``: the kind of name, for the message.

    Raises
    ------
    UsageError
        If it does not match ``[a-z0-9][a-z0-9_-]{0,63}``.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"{what} {str(name)[:80]!r} is not a valid name: {NAME_RULE}.")
    return name


def short_hash(value: Any, length: int = 10) -> str:
    """Return the first hex digits of the SHA-256 of a value as JSON; dates and paths are converted to text."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


def snapshot_id(space_id: str, as_of: date, revision: int) -> str:
    """Return the name of a snapshot: unique per (space, as-of date, revision), and a valid name itself."""
    return checked_name(f"{space_id}-{as_of:%Y%m%d}-r{revision}", "snapshot")


@cache
def code_hash() -> str:
    """Return a hash of the package's sources, which identifies the code of a run in its record. Cost: 50 ms, once."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for source in sorted(root.rglob("*.py")):
        digest.update(str(source.relative_to(root)).encode() + source.read_bytes())
    return digest.hexdigest()[:10]
