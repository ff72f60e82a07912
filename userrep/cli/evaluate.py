"""``userrep evaluate``: the quality of a space compared with baselines."""

from typing import Annotated, cast, get_args

import typer

from userrep.cli.options import InSpace, Output, check_out_is_not_read, command, context_for_run, path_option, tables_of
from userrep.config import Config, Storage
from userrep.errors import UsageError
from userrep.logs import in_columns


@command
def evaluate(
    config: Config,
    out: Annotated[str, path_option("New folder for metrics.json and a chart.")],
    space: InSpace = None,
    storage: Annotated[
        str, typer.Option(metavar="TYPES", help="Also evaluate storage types, such as float16,int8.")
    ] = "",
) -> Output:
    """Evaluate a space against baselines.

    The same small models are trained on the embeddings and on each baseline, for dates after the training of the
    space. Missing features are built first; nothing is published. Results are written to --out and to the table
    space_metrics.
    """
    from userrep.store.write_access import check_new_folder

    check_new_folder(out)
    check_out_is_not_read(config, out)
    from userrep.evaluation.output import lead_lines, loss_lines, result_lines
    from userrep.model.self_check import AKIN_NOTE
    from userrep.workflows.evaluate import evaluate_space, find_evaluable_space

    storages = storage_types(storage)
    find_evaluable_space(tables_of(config), config, space)
    results, metrics = evaluate_space(context_for_run(config), space, out, storages)
    lines = [*in_columns(*result_lines(results)), *[AKIN_NOTE] * bool(results.akin)]
    if metrics["leads"]:
        lines += ["", *in_columns(*lead_lines(metrics))]
    if storages:
        lines += ["", *in_columns(*loss_lines(results))]
    lines += ["", *(f"left out: {what}: {reason}" for what, reason in results.left_out.items())]
    return Output(metrics, [*lines, f"metrics with confidence intervals, and a chart: {out}"])


def storage_types(text: str) -> list[Storage]:
    """Return the storage types in a comma-separated list, each once. Raises UsageError for an unknown type."""
    known, names = get_args(Storage), [name for name in dict.fromkeys(text.replace(" ", "").split(",")) if name]
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"--storage: expected types among {', '.join(known)}, got {', '.join(unknown)}.")
    return cast(list[Storage], names)
