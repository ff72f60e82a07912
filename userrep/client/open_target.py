"""What ``userrep.open`` opens: the tables of a configuration, a root, or a schema of a catalog."""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from userrep.config import Config, load_config
from userrep.errors import UsageError, missing_package
from userrep.store.filesystem import absolute
from userrep.store.open import open_root, open_schema, open_tables
from userrep.store.tables import Tables

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import SparkSession


def load_target(target: str | os.PathLike[str] | Config) -> str | Config:
    """Return a target with its configuration file loaded and ``~`` replaced by the home directory."""
    if isinstance(target, Config):
        return target
    if not isinstance(target, str | os.PathLike):
        raise UsageError(f"userrep.open: expected a path, a URI or catalog.schema, got {type(target).__name__}.")
    text = os.path.expanduser(os.fspath(target))
    if text.endswith((".yaml", ".yml")):
        return load_config(text)
    return text if _is_schema(text) else absolute(text)


def tables_at(target: str | Config, spark: SparkSession | None) -> Tables:
    """Return the tables of a target, for a session or for none."""
    if isinstance(target, Config):
        return open_tables(target, spark or partial(_start, target.spark.master, target.spark.conf), expected=True)
    open_at = open_schema if _is_schema(target) else open_root
    return open_at(target, spark or _start, expected=True)


def _is_schema(target: str) -> bool:
    return bool(re.fullmatch(r"[a-z0-9_-]+\.[a-z0-9_-]+", target)) and not os.path.exists(target)


def _start(*settings: Any) -> SparkSession:
    """Return the active Spark session as it is, or start one.

    Raises UsageError if PySpark is not installed, or the session has no Delta.
    """
    try:
        from pyspark.sql import SparkSession

        from userrep.spark.session import check_delta, get_session
    except ModuleNotFoundError as error:
        raise UsageError(missing_package(error) or str(error)) from None
    active = SparkSession.getActiveSession()
    if active is None:
        return get_session(*settings)
    check_delta(active)
    return active
