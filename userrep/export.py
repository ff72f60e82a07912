"""Exports: Parquet folders with a manifest beside the data, for whoever does not read Delta."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

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
from userrep.tables import Tables

MANIFEST = "_manifest.json"


def check_out(out: str) -> None:
    """Refuse to write into a folder that holds anything but an earlier export.

    Raises
    ------
    UsageError
        If the folder has other contents, or is a file.
    """
    folder = Path(out)
    if folder.is_file():
        raise UsageError(f"--out {out}: a file is there; name a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
        raise UsageError(f"--out {out}: the folder is not empty and holds no earlier export; name another one.")


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
    folder = Path(out)
    (folder / MANIFEST).unlink(missing_ok=True)
    rows.write.mode("overwrite").parquet(str(folder.absolute()))
    written = rows.sparkSession.read.parquet(str(folder.absolute()))
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.parquet"))}
    manifest = {
        "what": what,
        "as_of": as_of,
        "num_rows": written.agg(F.count("*")).first()[0],  # type: ignore[index]
        "columns": dict(written.dtypes),
        **about,
        "exported_at": datetime.now(UTC),
        "sha256": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, default=str), encoding="utf-8")
    return manifest
