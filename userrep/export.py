"""Exports: Parquet folders with a manifest beside the data, for whoever does not read Delta."""

import hashlib
import json
import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow.fs
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import Config
from userrep.errors import UsageError
from userrep.features.build import feature_sets, read_features
from userrep.items.versions import read_vectors, versions_of
from userrep.model.artifact import load_artifact
from userrep.schemas import USER_EMBEDDINGS
from userrep.spaces.registry import Space, artifact_folder
from userrep.spaces.snapshots import newest_snapshot
from userrep.storage import absolute, delete_file, exists, file_system, write_bytes
from userrep.tables import Tables

MANIFEST = "_manifest.json"


def check_out(out: str) -> None:
    """Refuse to write into a folder that holds anything but an earlier export. Nothing is made or changed.

    Raises
    ------
    UsageError
        If the folder has other contents, is a file, or lies where this user may not write.
    """
    try:
        files, path = file_system(out)
        kind = files.get_file_info(path).type
        is_folder = kind == pyarrow.fs.FileType.Directory
        names = [file.base_name for file in files.get_file_info(pyarrow.fs.FileSelector(path))] if is_folder else []
    except (OSError, ValueError) as error:
        raise UsageError(f"--out {out}: not a folder that can be looked into ({error}).") from None
    if kind == pyarrow.fs.FileType.File:
        raise UsageError(f"--out {out}: a file is there; name a folder.")
    foreign = sorted(name for name in names if not _is_of_an_export(name))
    if names and (foreign or MANIFEST not in names):
        found = f" ({', '.join(foreign[:3])})" if foreign else ""
        raise UsageError(f"--out {out}: the folder is not empty and holds no earlier export{found}; name another one.")
    if isinstance(files, pyarrow.fs.LocalFileSystem):
        there = next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise UsageError(f"--out {out}: {there} is not a folder that this user may write to; name another one.")


def _is_of_an_export(name: str) -> bool:
    return name in (MANIFEST, "_SUCCESS") or name.endswith((".parquet", ".crc"))


def export_embeddings(tables: Tables, config: Config, space: Space, as_of: date, out: str) -> dict[str, Any]:
    """Write the newest revision of a snapshot: user_id, as_of, embedding. Returns the manifest."""
    snapshot = newest_snapshot(tables, space.space_id, as_of)
    rows = tables.read(USER_EMBEDDINGS).where(snapshot.where).select("user_id", "as_of", "embedding")
    dim = load_artifact(artifact_folder(config, space.space_id), space.content_hash).manifest.model.latent_dim
    about = {
        "space_id": space.space_id,
        "snapshot_id": snapshot.snapshot_id,
        "revision": snapshot.revision,
        "available_at": snapshot.available_at,
        "dimension": dim,
        "metric": "cosine",
    }
    return _write(rows, out, "embeddings", as_of, about)


def export_features(tables: Tables, config: Config, lineage_id: str, as_of: date, out: str) -> dict[str, Any]:
    """Write the user features of a date: user_id, as_of, one column per block. Returns the manifest.

    Raises
    ------
    UsageError
        If they are not built.
    """
    if as_of not in feature_sets(tables, lineage_id):
        raise UsageError(f"no features of {as_of}: `userrep run build_user_features --as-of {as_of}` builds them.")
    rows = read_features(tables, config, lineage_id, [as_of]).drop("is_exact")
    ordered = rows.select("user_id", "as_of", *(name for name in rows.columns if name not in ("user_id", "as_of")))
    return _write(ordered, out, "features", as_of, {"lineage_id": lineage_id, "windows_days": config.windows_days})


def export_item_vectors(tables: Tables, config: Config, lineage_id: str, as_of: date, out: str) -> dict[str, Any]:
    """Write the item vectors that features of a date use: modality, item_id, vector. Returns the manifest.

    Raises
    ------
    UsageError
        If the version is not there.
    """
    versions = versions_of(tables, config, anchor=as_of)
    valid_from = versions.valid_at(as_of)
    if valid_from not in versions.present:
        raise UsageError(f"no item vectors for {as_of}: `userrep run train_item_vectors --as-of {as_of}` makes them.")
    rows = read_vectors(tables, lineage_id, valid_from).select("modality", "item_id", "vector")
    about = {"lineage_id": lineage_id, "valid_from": valid_from, "fitted_on_events_before": valid_from}
    return _write(rows, out, "item-vectors", as_of, about)


EXPORTS: dict[str, Callable[..., dict[str, Any]]] = {
    "embeddings": export_embeddings,
    "features": export_features,
    "item-vectors": export_item_vectors,
}


def _write(rows: DataFrame, out: str, what: str, as_of: date, about: dict[str, Any]) -> dict[str, Any]:
    """Write rows as Parquet, then the manifest with each file's SHA-256; a folder without one is not complete."""
    check_out(out)
    folder = absolute(out.rstrip("/") or "/")
    if exists(f"{folder}/{MANIFEST}"):
        delete_file(f"{folder}/{MANIFEST}")
    rows.write.mode("overwrite").parquet(folder)
    written = rows.sparkSession.read.parquet(folder)
    manifest = {
        "what": what,
        "as_of": as_of,
        "num_rows": written.agg(F.count("*")).first()[0],  # type: ignore[index]
        "columns": dict(written.dtypes),
        **about,
        "exported_at": datetime.now(UTC),
        "sha256": _checksums(folder),
    }
    write_bytes(f"{folder}/{MANIFEST}", json.dumps(manifest, indent=1, default=str).encode())
    return manifest


def _checksums(folder: str) -> dict[str, str]:
    """Hash each Parquet file of a folder; one piece of a file in memory at a time."""
    files, path = file_system(folder)
    found = {}
    for file in sorted(files.get_file_info(pyarrow.fs.FileSelector(path)), key=lambda file: file.base_name):
        if file.base_name.endswith(".parquet"):
            with files.open_input_file(file.path) as content:
                found[file.base_name] = hashlib.file_digest(content, "sha256").hexdigest()
    return found
