"""``userrep evaluate``: the quality of a space compared with baselines."""

from typing import Annotated

import typer

from userrep.cli.options import (
    AsJson,
    ConfigFile,
    Debug,
    InSpace,
    Overrides,
    expanded,
    print_result,
    session_of,
    tables_of,
)
from userrep.config import load_config
from userrep.logs import in_columns


def evaluate(
    config_file: ConfigFile,
    out: Annotated[str, typer.Option("--out", help="New folder for metrics.json and a chart.", callback=expanded)],
    space: InSpace = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Evaluate a space against baselines.

    The same small models are trained on the embeddings and on each baseline, for dates after the training of the
    space. Missing features are built first; nothing is published. Results are written to --out and to the table
    space_metrics.
    """
    config = load_config(config_file, overrides or [])
    from userrep.store.filesystem import check_new_folder

    check_new_folder(out)
    from userrep.evaluation.output import result_lines
    from userrep.workflows.evaluate import evaluate_space, find_evaluable_space
    from userrep.workflows.pipeline import Pipeline

    find_evaluable_space(tables_of(config), config, space)
    results, metrics = evaluate_space(Pipeline(config, session_of(config)), space, out)
    lines = in_columns(*result_lines(results))
    lines += ["", *(f"left out: {what}: {reason}" for what, reason in results.left_out.items())]
    print_result(metrics, [*lines, f"metrics with confidence intervals, and a chart: {out}"], as_json=as_json)
