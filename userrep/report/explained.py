"""Explanations in a report: what a space's vectors contain, what drives models on them, and the newest segments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from userrep.config import Config
from userrep.errors import ArtifactError, UsageError
from userrep.explanations.explain import ModelExplanation, SpaceExplanation, explain_model, explain_space
from userrep.spaces.consumer_model import ConsumerModel
from userrep.spaces.registry import Space
from userrep.spaces.snapshots import Snapshot
from userrep.store.export_files import read_manifest
from userrep.store.schemas import EXPORTS
from userrep.store.tables import Tables

_MOST_USERS = 5_000
_MOST_FOLDERS = 5  # of segments, newest first, that are tried


_SEGMENT = ("segment", "name", "num_users", "share", "is_new")  # what a report has of a segment in the manifest


@dataclass(frozen=True)
class ExplanationFacts:
    """What is known about the meaning of a space's vectors. ``fault``: why the inputs could not be read.

    ``models``: by path. ``segmented``: id of the snapshot that the segments divide, or None without segments.
    ``moves``: numbers of users by their segment ``before`` and ``now``; None: they are not in that snapshot.
    """

    inputs: SpaceExplanation | None
    fault: str | None
    models: Mapping[str, ModelExplanation]
    segmented: str | None
    segments: Sequence[Mapping[str, Any]]
    moves: Sequence[Mapping[str, Any]]


def explanation_facts(
    tables: Tables, config: Config, space: Space, snapshot: Snapshot, models: Mapping[str, ConsumerModel]
) -> ExplanationFacts:
    """Explain the newest snapshot, and read the newest readable segments of the space.

    Cost: those of ``explain_space`` for 5,000 users, of ``explain_model`` for each model, and one manifest. Raises
    UsageError if a model cannot be explained.
    """
    inputs, fault = None, None
    try:
        inputs = explain_space(tables, config, space, snapshot, most_users=_MOST_USERS)
    except (ArtifactError, UsageError) as error:
        fault = str(error)
    manifest = _newest_segments(tables, space)
    return ExplanationFacts(
        inputs=inputs,
        fault=fault,
        models={path: explain_model(tables, config, space, snapshot, models[path]) for path in models if inputs},
        segmented=manifest.get("snapshot_id"),
        segments=[{name: each[name] for name in _SEGMENT} for each in manifest.get("segments", [])],
        moves=[
            {"before": each["from"], "now": each["to"], "num_users": each["num_users"]}
            for each in manifest.get("moves", [])
        ],
    )


def _newest_segments(tables: Tables, space: Space) -> dict[str, Any]:
    """Return the manifest of the newest complete segments of a space; empty if none can be read."""
    rows = sorted(tables.ledger(EXPORTS, what="segments"), key=lambda row: row.exported_at, reverse=True)
    for path in list(dict.fromkeys(row.path for row in rows))[:_MOST_FOLDERS]:
        try:
            manifest = read_manifest(path)
        except (OSError, ValueError):
            continue
        if [manifest.get(key) for key in ("what", "state", "space_id")] == ["segments", "complete", space.space_id]:
            return manifest
    return {}
