"""``userrep explain``: what vectors contain, what drives a consumer's model, and segments of users."""

from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from userrep.cli.options import (
    InSpace,
    Output,
    Unrecorded,
    check_out_is_not_read,
    command,
    date_option,
    path_option,
    tables_of,
)
from userrep.config import Config
from userrep.errors import UsageError
from userrep.logs import in_columns

if TYPE_CHECKING:
    from userrep.explanations.explain import ModelExplanation, SpaceExplanation
    from userrep.spaces.registry import Space
    from userrep.spaces.snapshots import Snapshot
    from userrep.store.tables import Tables

app = typer.Typer(
    help="Explain vectors, models on them, and segments.\n\nFigures come from a sample of 20,000 users of a snapshot. "
    "`segments` then assigns every user.",
    no_args_is_help=True,
)
SnapshotDate = Annotated[
    date | None, date_option("--as-of", "As-of date of the snapshot. Default: the space's newest available one.")
]


@app.command("space")
@command
def explain_space(config: Config, as_of: SnapshotDate = None, space: InSpace = None) -> Output:
    """Show which inputs can be read from the vectors.

    Reads each block of inputs from the vector with a ridge regression. R2 is the share of the block's variance that
    this explains for held-out users: 1 means that the vector contains the block, and 0 that it predicts the block no
    better than the mean.
    """
    from userrep.explanations.explain import explain_space as explain

    tables = tables_of(config)
    explanation = explain(tables, config, *_snapshot(tables, space, as_of))
    return Output(vars(explanation), _lines_of_space(explanation))


@app.command("model")
@command
def explain_model(
    config: Config,
    model: Annotated[str, path_option("JSON with weights, intercept and space_id, or a Spark ML model.", "PATH")],
    as_of: SnapshotDate = None,
    space: InSpace = None,
) -> Output:
    """Show what drives a linear or logistic model.

    Divides the variance of the model's score among the blocks of inputs, and lists words and categories of items that
    raise or lower it. --space is needed if the model does not name its space. A model of another space is refused.
    """
    from userrep.explanations.explain import explain_model as explain
    from userrep.spaces.consumer_model import read_model

    loaded = read_model(model)
    if loaded.space_id is None and space is None:
        raise UsageError(f"--model {model}: does not name the space it was trained on. Name it with --space.")
    tables = tables_of(config)
    explanation = explain(tables, config, *_snapshot(tables, space or loaded.space_id, as_of), loaded)
    return Output(vars(explanation), _lines_of_model(explanation))


@app.command("segments")
@command
def explain_segments(
    config: Config,
    out: Annotated[str, path_option("Folder for the Parquet files and _manifest.json.")],
    as_of: SnapshotDate = None,
    space: InSpace = None,
    segments: Annotated[int, typer.Option(min=2, max=200, help="Number of segments.")] = 8,
    previous: Annotated[
        str | None, path_option("--out of an earlier run, whose segments keep their ids.", "DIR")
    ] = None,
    unrecorded: Unrecorded = False,
) -> Output:
    """Divide the users of a snapshot into segments.

    Clusters the vectors by k-means, assigns every user, and names segments by what their users have more of than
    others: words and categories of their items, attributes and activity. The folder is recorded first, so that
    `userrep forget` can erase users in it.
    """
    from userrep.store.export_folder import check_out, check_recordable, real_folder
    from userrep.workflows.segments import lines_of, read_previous, write_segments

    check_out(out)
    check_out_is_not_read(config, out)
    before = read_previous(previous) if previous else None
    if before is not None and real_folder(before.folder) == real_folder(out):
        raise UsageError(f"--out {out}: is also --previous, which is needed to count moves. Choose another folder.")
    tables = tables_of(config)
    if not unrecorded:
        check_recordable(tables, out)
    manifest = write_segments(
        tables, config, *_snapshot(tables, space, as_of), out,
        num_segments=segments, previous=before, recorded=not unrecorded,
    )  # fmt: skip
    return Output({key: value for key, value in manifest.items() if key != "sha256"}, lines_of(manifest, out))


def _snapshot(tables: "Tables", space_id: str | None, as_of: date | None) -> tuple["Space", "Snapshot"]:
    """Return a space and its newest snapshot: of a date, or the newest that is available."""
    from userrep.joins.ledger import sources_of
    from userrep.spaces.registry import find_space
    from userrep.spaces.snapshots import newest_snapshot

    space = find_space(tables, space_id)
    if as_of is not None:
        return space, newest_snapshot(tables, space.space_id, as_of)
    return space, sources_of(tables, space).newest


def _lines_of_space(explanation: "SpaceExplanation") -> list[str]:
    rows = [
        [each.block, str(each.width), f"{each.num_users:,}", "-" if each.r2 is None else f"{each.r2:.3f}"]
        for each in explanation.blocks
    ]
    return [_sampled(explanation), *in_columns(["block", "numbers", "users", "R2"], rows)]


def _lines_of_model(explanation: "ModelExplanation") -> list[str]:
    shares = {**explanation.shares, "unexplained": explanation.unexplained}
    lines = [_sampled(explanation)]
    lines += [f"score: mean {explanation.mean:.3f}, standard deviation {explanation.deviation:.3f}"]
    lines += in_columns(["block", "share of the variance"], [[name, f"{share:.3f}"] for name, share in shares.items()])
    if explanation.labels is not None:
        rows = [
            [each.label, str(each.num_items), f"{each.effect:+.3f}", f"{each.at_least:+.3f}"]
            for each in explanation.labels
        ]
        table = in_columns(["items with", "number", "effect", "at least"], rows)
        lines += ["", *(table if rows else ["no label of items stands out"])]
    return lines


def _sampled(explanation: "SpaceExplanation | ModelExplanation") -> str:
    return (
        f"snapshot {explanation.snapshot_id}: {explanation.num_users:,} users sampled, of which "
        f"{explanation.num_held_out:,} held out"
    )
