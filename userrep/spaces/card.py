"""The model card of a space in Markdown: what it was made from, how good it is, how to use it and what it is not for.

It states only what the manifest and the ledgers record.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from userrep.config.values import part_of_name
from userrep.spaces.registry import Space
from userrep.spaces.snapshots import list_snapshots
from userrep.store.schemas import ITEM_VECTOR_VERSIONS, JOB_RUNS, TILE_DAYS
from userrep.store.tables import Tables

if TYPE_CHECKING:
    from userrep.features.spec import FeatureSpec
    from userrep.model.artifact import SpaceManifest


def model_card(tables: Tables, space: Space, manifest: SpaceManifest, *, protected: Sequence[str] = ()) -> str:
    """Return the model card of a space.

    ``protected``: the columns of ``users.protected``. Cost: reads ledgers. Below a root, this needs no Spark.
    """
    sections = {
        f"# Space {space.space_id}": _summary(space, manifest),
        "## Data": _data(tables, space, manifest),
        "## Inputs": _inputs(manifest, protected),
        "## Item vectors": _item_vectors(tables, space, manifest.layout.spec),
        "## Training": _training(manifest),
        "## Self-check": _self_check(manifest),
        "## Named dimensions": _named_dimensions(manifest),
        "## Limits": _limits(space, manifest, protected),
        "## How to use it": _usage(tables, space),
    }
    return "\n\n".join("\n".join([title, "", *lines]) for title, lines in sections.items())


def _summary(space: Space, manifest: SpaceManifest) -> list[str]:
    facts = {
        "state": space.state, "created": f"{space.created_at:%Y-%m-%d %H:%M} UTC",
        "trained until": f"{space.trained_until} (exclusive)", "lineage": space.lineage_id,
        "content hash": space.content_hash, "hash of the configuration": manifest.config_hash,
        "hash of the code": manifest.code_hash,
    }  # fmt: skip
    about = f"A vector of {manifest.model.latent_dim} numbers per user and date, made by userrep from an event log."
    return [about, "", *_table(["fact", "value"], facts.items())]


def _data(tables: Tables, space: Space, manifest: SpaceManifest) -> list[str]:
    entries = tables.ledger(TILE_DAYS, ("event_date", "revision", "num_events"))
    newest = {row.event_date: row.num_events for row in sorted(entries, key=lambda row: row.revision) if row.event_date}
    seen = {day: num_events for day, num_events in newest.items() if day < space.trained_until}
    log = f"{min(seen)} to {max(seen)}, {sum(seen.values()):,} events on {len(seen):,} days" if seen else "not recorded"
    runs = tables.ledger(JOB_RUNS, ("outputs", "num_rows"), stage="train_autoencoder", outcome="done")
    num_rows = [run.num_rows for run in runs if json.loads(run.outputs).get("space_id") == space.space_id]
    rows, dates = f"{num_rows[-1]:,}" if num_rows else "not recorded", manifest.training.as_ofs
    snapshots = list_snapshots(tables, space.space_id)
    newest_one = f", the newest {snapshots[-1].as_of} with {snapshots[-1].num_users:,} users" if snapshots else ""
    return [
        f"- Log before {space.trained_until}: {log}.",
        f"- Training rows, one per user and as-of date: {rows}. At most {dates.max_dates} dates, {dates.every_days} "
        f"days apart; {manifest.training.held_out_share:.0%} of the users were held out for validation.",
        f"- Published snapshots: {len(snapshots)}{newest_one}.",
    ]  # fmt: skip


def _inputs(manifest: SpaceManifest, protected: Sequence[str]) -> list[str]:
    layout, spec = manifest.layout, manifest.layout.spec
    history = f", and {spec.history_days} days of history for counts and item vectors" if spec.history_days else ""
    return [
        f"- {layout.width} numbers in {len(layout.blocks)} blocks.",
        f"- Windows before the as-of date: {', '.join(map(str, spec.windows_days))} days{history}.",
        f"- Counts and days since events: {len(spec.scalars)} numbers. Shares of parts of the day and of weekdays.",
        f"- Item vectors: {_named(spec.modalities)}.",
        f"- Registration time: {_yes(spec.registered_at)}. Onboarding picks: {_yes(spec.onboarding)}.",
        f"- Context columns of events: {_named(spec.context)}.",
        f"- Attributes of users: {_named(spec.attributes)}.",
        f"- Protected attributes (`users.protected` of the current configuration): {_named(protected)}.",
    ]  # fmt: skip


def _item_vectors(tables: Tables, space: Space, spec: FeatureSpec) -> list[str]:
    rows = sorted(tables.ledger(ITEM_VECTOR_VERSIONS, lineage_id=space.lineage_id), key=lambda row: row.valid_from)
    versions = [row for row in rows if row.valid_from <= space.trained_until]
    if not versions:
        return ["No version is recorded."]
    last = dict(versions[-1].num_vectors)
    head = ["modality", "numbers", "versions until the end of training", "vectors in the newest of them"]
    dates = f"{len(versions)}: {versions[0].valid_from} to {versions[-1].valid_from}"
    modalities = ((name, dim, dates, f"{last.get(name, 0):,}") for name, dim in spec.modalities.items())
    return [*_table(head, modalities), "", "A version is fitted only on events before its date."]


def _training(manifest: SpaceManifest) -> list[str]:
    model, training = manifest.model, manifest.training
    kind = f"a hidden layer of {model.hidden_dim} units" if model.hidden_dim else "linear"
    futures = ", ".join(map(str, manifest.targets.futures))
    settings = {
        "preset": model.preset, "encoder": f"{kind}, {manifest.layout.width} to {model.latent_dim} numbers",
        "predicts": f"the inputs{f', and the next {futures} days' if futures else ''}",
        "batch size": training.batch_size, "seed": training.seed, "starts from": training.init_from or "random weights",
    }  # fmt: skip
    metrics = {
        name: f"{value:.4g}" if value < 10_000 else f"{value:,.0f}"
        for name, value in manifest.metrics.items()
        if "." not in name
    }
    return _table(["setting or figure of the kept epoch", "value"], (settings | metrics).items())


def _self_check(manifest: SpaceManifest) -> list[str]:
    if (check := manifest.self_check) is None:
        return ["Not recorded: it was switched off, or the log was too short."]
    head, rows = check.table
    notes = [f"Too few examples to judge: {', '.join(check.not_judged)}."] if check.not_judged else []
    notes += [f"Left out: {task}: {reason}" for task, reason in check.left_out.items()]
    about = (
        f"A model with the same settings, trained until {check.trained_until}, was judged on the days after that, for "
        f"{check.num_test_users:,} users: {check.summary}."
    )
    return [about, "", *_table(head, rows), *(line for note in notes for line in ("", note))]


def _named_dimensions(manifest: SpaceManifest) -> list[str]:
    if not (names := manifest.named_dimensions):
        return ["None."]
    rows = [(index, f"`{name}`") for name, index in names.items()]
    return [*_table(["dimension, from 0", "meaning"], rows), "", "The other dimensions have no meaning of their own."]


def _limits(space: Space, manifest: SpaceManifest, protected: Sequence[str]) -> list[str]:
    spec = manifest.layout.spec
    inputs = [name for name in protected if part_of_name(name) in spec.attributes]
    return [
        f"- **In-sample dates.** The encoder has seen what users did before {space.trained_until}. Labels before that "
        "date make a model look better than it will be.",
        "- **One space.** Coordinates differ between spaces. Train, validate and serve on this one.",
        f"- **Only users of a snapshot have a vector**: those with an event in {spec.longest} days, a registration or "
        "a pick.",
        "- **Not anonymous.** Vectors are personal data: they show what a user did.",
        f"- **Attributes among the inputs can be read** from vectors: {_named(spec.attributes)}; protected ones among "
        f"them: {_named(inputs)}. Events may reveal others. Only `userrep audience` removes what a linear model can "
        "read of protected attributes.",
        "- **Not measured.** Differences in quality between groups of users, and items that users were not shown.",
    ]  # fmt: skip


def _usage(tables: Tables, space: Space) -> list[str]:
    return [
        "```python", "import userrep", "", f"embeddings = userrep.open({tables.location!r})",
        f"joined = embeddings.join(labels, space={space.space_id!r})  # columns user_id and label_at", "```",
    ]  # fmt: skip


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in cells]


def _named(names: Iterable[str]) -> str:
    return ", ".join(f"`{name.replace('`', '')}`" for name in names) or "none"


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"
