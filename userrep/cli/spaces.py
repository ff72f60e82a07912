"""``userrep spaces``: the registry of embedding spaces."""

import logging
from typing import TYPE_CHECKING, Annotated

import typer

from userrep.cli.options import Output, SpaceId, checked_space_id, command, name_check, path_option, tables_of
from userrep.config import Config
from userrep.errors import UsageError, plural
from userrep.logs import in_columns

if TYPE_CHECKING:
    from userrep.model.self_check import SelfCheck
    from userrep.spaces.registry import Space
    from userrep.store.tables import Tables

logger = logging.getLogger(__name__)

OldSpace = Annotated[str, typer.Argument(metavar="OLD", help="Earlier space.", callback=checked_space_id)]
NewSpace = Annotated[str, typer.Argument(metavar="NEW", help="Newer space.", callback=checked_space_id)]
ConsumerIfAny = Annotated[
    str | None, typer.Option("--consumer", metavar="NAME", help="Record the verdict.", callback=name_check("consumer"))
]

app = typer.Typer(
    help="Manage embedding spaces.\n\nA space is a candidate, ready, serving or retired.", no_args_is_help=True
)


@app.command("list")
@command
def spaces_list(config: Config) -> Output:
    """List all spaces and their states."""
    from userrep.spaces.registry import read_registry

    tables = tables_of(config)
    registry = read_registry(tables)
    in_use = registry.spaces_in_use()
    spaces = [
        vars(space) | {"in_use": in_use.get(space.space_id), "self_check": _self_check(tables, space)}
        for space in registry.spaces
    ]
    rows = [
        [
            s["space_id"], s["state"], str(s["trained_until"]), f"{s['created_at']:%Y-%m-%d %H:%M}", s["in_use"] or "-",
            s["self_check"].summary if s["self_check"] else "-",
        ]
        for s in spaces
    ]  # fmt: skip
    head = ["space", "state", "trained until", "created (UTC)", "embedded daily", "self-check"]
    return Output({"spaces": spaces}, in_columns(head, rows) if rows else ["no spaces yet"])


def _self_check(tables: "Tables", space: "Space") -> "SelfCheck | None":
    """Return the self-check in the manifest of a space; None if it has none or its artifact is missing."""
    from userrep.errors import ArtifactError
    from userrep.model.artifact import read_space_manifest
    from userrep.spaces.registry import artifact_folder

    try:
        return read_space_manifest(artifact_folder(tables, space)).self_check
    except ArtifactError:
        return None


@app.command("show")
@command
def spaces_show(
    space_id: SpaceId,
    config: Config,
    card: Annotated[bool, typer.Option("--card", help="Print a model card in Markdown. Ignored with --json.")] = False,
) -> Output:
    """Show a space's manifest, metrics and snapshots."""
    from userrep.model.artifact import load_artifact
    from userrep.spaces.registry import artifact_folder, find_space
    from userrep.spaces.snapshots import list_snapshots

    tables = tables_of(config)
    space = find_space(tables, space_id)
    folder = artifact_folder(tables, space)
    manifest = load_artifact(folder, space.content_hash).manifest
    snapshots = list_snapshots(tables, space.space_id)
    metrics = {name: value for name, value in manifest.metrics.items() if "." not in name}
    first, stop = manifest.taste_dimensions
    lines = [f"{key}: {value}" for key, value in vars(space).items() if key != "maps"]
    lines += [f"artifact: {folder}", *(f"map to {target_id}: {content_hash}" for target_id, content_hash in space.maps)]
    lines += [f"inputs: {manifest.layout.width} in {len(manifest.layout.blocks)} blocks"]
    lines += [f"{name}: {value:.4g}" for name, value in metrics.items()]
    lines += [f"dimension {index} of 0 to {manifest.model.latent_dim - 1}: {name}"
              for name, index in manifest.named_dimensions.items()]  # fmt: skip
    if first < stop:
        lines += [f"dimensions {first} to {stop - 1}: tastes, by {manifest.layout.taste_modality}"]
    if check := manifest.self_check:
        lines += check.lines
    lines += [f"snapshot {s.snapshot_id}: {plural(s.num_users, 'user')}" for s in snapshots]
    if card:
        from userrep.spaces.card import model_card

        lines = [model_card(tables, space, manifest, protected=config.users.protected if config.users else [])]
    more = {"maps": dict(space.maps), "artifact": folder, "manifest": manifest, "snapshots": snapshots}
    return Output(vars(space) | more, lines)


@app.command("diff")
@command
def spaces_diff(
    old: OldSpace,
    new: NewSpace,
    config: Config,
    model: Annotated[
        str | None, path_option("Saved pipeline with an EmbeddingJoin on OLD. Needs --labels.", "FOLDER")
    ] = None,
    labels: Annotated[
        str | None, path_option("Parquet labels for --model: the join's columns and label (0 or 1).", "PATH")
    ] = None,
) -> Output:
    """Measure what consumers lose if NEW replaces OLD.

    Maps the vectors of NEW into the coordinates of OLD, compares them with those of OLD for the same users and as-of
    dates, and measures the AUC that models of OLD lose. The map is fitted on 90% of the users and evaluated on the
    others. It is saved with the artifact of NEW, so that consumers of OLD can read NEW (mappedFrom of EmbeddingJoin).
    """
    if (model is None) != (labels is None):
        raise UsageError("--model and --labels must be given together: a saved pipeline and labels to evaluate it.")
    from userrep.spaces.registry import read_registry
    from userrep.workflows.space_diff import SavedModel, diff_lines, diff_spaces

    tables = tables_of(config, writes=True)
    registry = read_registry(tables)
    saved = SavedModel(model, labels) if model and labels else None
    diff = diff_spaces(tables, old=registry.space(old), new=registry.space(new), model=saved)
    return Output(vars(diff), diff_lines(diff))


@app.command("compare")
@command
def spaces_compare(
    old: OldSpace,
    new: NewSpace,
    labels: Annotated[str, path_option("Parquet, Delta or CSV: user id, time and label.", "PATH")],
    config: Config,
    model: Annotated[
        str | None, path_option("Your linear model on OLD, in a format of `explain model`.", "PATH")
    ] = None,
    metric: Annotated[str, typer.Option(help="auto, auc for labels of 0 and 1, r2 for numbers.")] = "auto",
    user: Annotated[str, typer.Option("--user-col", metavar="NAME", help="Column of user ids.")] = "user_id",
    time: Annotated[str, typer.Option("--time-col", metavar="NAME", help="Column of label times.")] = "label_at",
    consumer: ConsumerIfAny = None,
) -> Output:
    """Compare two spaces on a consumer's labels.

    Each label gets the vectors of both spaces that were available at its time. Probes are fitted on the earlier half
    of the labels and judged on the later half:
    on each space's own vectors, and on those of NEW mapped into the coordinates of OLD (`spaces diff` fits the map).
    The verdict is pass if a loss of more than 0.005 is unlikely (90% interval), fail (exit code 3) if NEW is worse and
    may lose more than that, and undecided otherwise. With --model, it is about that model.
    """
    from userrep.spaces.registry import read_registry
    from userrep.spaces.verdicts import FAIL, LabelTable, record_verdict
    from userrep.store.filesystem import absolute
    from userrep.workflows.space_compare import compare_spaces, comparison_lines

    tables = tables_of(config, writes=consumer is not None)
    registry = read_registry(tables)
    if consumer is not None:
        registry.consumer(consumer)
    table = LabelTable(absolute(labels), user, time, absolute(model) if model else None)
    compared = compare_spaces(
        tables, config, old=registry.space(old), new=registry.space(new), label_table=table, metric=metric
    )
    if consumer is not None:
        record_verdict(tables, compared.verdict_for(consumer, table))
        logger.info(f"verdict recorded for consumer {consumer}")
    result = compared.result | {"consumer": consumer}
    return Output(result, comparison_lines(compared), exit_code=3 if compared.overall.verdict == FAIL else 0)


@app.command("promote")
@command
def spaces_promote(
    space: SpaceId,
    config: Config,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen and change nothing.")] = False,
) -> Output:
    """Make a ready space the serving space.

    The previously serving space becomes ready, in the same commit. Refused with exit code 3 if a consumer that follows
    the serving space is not ready for this one. Pinned consumers keep their space. Shows the newest verdict of each
    consumer that follows (`spaces compare --consumer`), and which have none.
    """
    from userrep.spaces.registry import promote, read_registry
    from userrep.spaces.transitions import planned_promotion
    from userrep.spaces.verdicts import follower_verdicts, verdict_lines

    tables = tables_of(config, writes=not dry_run)
    verdicts = follower_verdicts(tables, space)
    if not dry_run:
        for line in verdict_lines(verdicts):
            logger.info(line)
        promote(tables, space)
        return Output({"serving": space, "verdicts": verdicts}, [f"space {space} is serving"])
    promotion = planned_promotion(read_registry(tables), space)
    effect = "would not serve" if promotion.blocks else "would serve"
    pinned = [f"{consumer.name} ({consumer.pinned_space_id})" for consumer in promotion.pinned]
    lines = [f"space {space} {effect}; serving now: {promotion.serving or 'none'}"]
    for label, names in (
        ("consumers that would move", [consumer.name for consumer in promotion.moves]),
        ("consumers not ready, which block it", [consumer.name for consumer in promotion.blocks]),
        ("consumers that stay pinned", pinned),
    ):
        lines.append(f"{label}: {', '.join(names) or 'none'}")
    result = vars(promotion) | {"would_serve": not promotion.blocks, "verdicts": verdicts}
    return Output(result, [*lines, *verdict_lines(verdicts)])


@app.command("rollback")
@command
def spaces_rollback(config: Config) -> Output:
    """Make the previously serving space serve again.

    No consumer blocks a rollback. A second rollback changes nothing. To go further back, retire the space that was
    rolled back, then roll back again.
    """
    from userrep.spaces.registry import rollback

    space = rollback(tables_of(config, writes=True))
    return Output({"serving": space.space_id}, [f"space {space.space_id} is serving again"])


@app.command("retire")
@command
def spaces_retire(space: SpaceId, config: Config) -> Output:
    """Retire a space permanently.

    Its tables are kept. Refused if the space is serving or a consumer is pinned to it.
    """
    from userrep.spaces.registry import retire

    retire(tables_of(config, writes=True), space)
    return Output({"retired": space}, [f"space {space} is retired"])
