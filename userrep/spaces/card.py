"""The model card of a space in Markdown: what it was made from, how good it is, how to use it and what it is not for.

The text is in card.md.jinja. It states only what the manifest and the ledgers record.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from userrep.config.values import part_of_name
from userrep.items.versions import version_records
from userrep.spaces.registry import Space
from userrep.spaces.snapshots import list_snapshots
from userrep.store.schemas import JOB_RUNS
from userrep.store.tables import Tables
from userrep.tiles.ledger import tile_ledger

if TYPE_CHECKING:
    from userrep.model.artifact import SpaceManifest


def model_card(tables: Tables, space: Space, manifest: SpaceManifest, *, protected: Sequence[str] = ()) -> str:
    """Return the model card of a space.

    ``protected``: the columns of ``users.protected``. Cost: reads ledgers. Below a root, this needs no Spark.
    """
    spec, check = manifest.layout.spec, manifest.self_check
    records = version_records(tables, space.lineage_id)
    versions = sorted(valid_from for valid_from in records if valid_from <= space.trained_until)
    head, scores = check.table if check else ([], [])
    return (
        _environment()
        .get_template("card.md.jinja")
        .render(
            space=space,
            manifest=manifest,
            spec=spec,
            log=_log(tables, space),
            num_rows=_num_rows(tables, space),
            snapshots=list_snapshots(tables, space.space_id),
            versions=versions,
            num_vectors=records[versions[-1]].num_vectors if versions else {},
            check=check,
            check_rows=[head, ["---"] * len(head), *scores],
            location=repr(tables.location),
            protected=protected,
            protected_inputs=[name for name in protected if part_of_name(name) in spec.attributes],
        )
    )


def _environment() -> Environment:
    environment = Environment(  # noqa: S701  # Markdown, not HTML
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["named"] = _named
    return environment


def _log(tables: Tables, space: Space) -> str:
    """Describe the log that the training could see."""
    seen = {day: tiles.num_events for day, tiles in tile_ledger(tables).days.items() if day < space.trained_until}
    if not seen:
        return "not recorded"
    return f"{min(seen)} to {max(seen)}, {sum(seen.values()):,} events on {len(seen):,} days"


def _num_rows(tables: Tables, space: Space) -> str:
    """Return the number of training rows."""
    runs = tables.ledger(JOB_RUNS, ("outputs", "num_rows"), stage="train_autoencoder", outcome="done")
    num_rows = [run.num_rows for run in runs if json.loads(run.outputs).get("space_id") == space.space_id]
    return f"{num_rows[-1]:,}" if num_rows else "not recorded"


def _named(names: Iterable[str]) -> str:
    return ", ".join(f"`{name.replace('`', '')}`" for name in names) or "none"
