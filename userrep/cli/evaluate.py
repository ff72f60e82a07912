"""``userrep evaluate``: what an embedding is worth, beside what could be had without it."""

from typing import Annotated

import typer

from userrep.cli.options import (
    AsJson,
    ConfigFile,
    Debug,
    InSpace,
    Overrides,
    print_result,
    session_of,
    tables_of,
)
from userrep.config import load_config
from userrep.logs import in_columns


def evaluate(
    config_file: ConfigFile,
    out: Annotated[str, typer.Option("--out", help="New folder to write metrics.json and a chart to.")],
    space: InSpace = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Evaluate a space on the days after its training, next to baselines that the same small models read.

    What the dates lack of features is built first; nothing is published. Figures go to --out and to space_metrics.
    """
    config = load_config(config_file, overrides or [])
    from userrep.store.storage import check_new_folder

    check_new_folder(out)
    from userrep.evaluation.output import result_lines
    from userrep.workflows.evaluate import evaluable, evaluate_space
    from userrep.workflows.pipeline import Pipeline

    evaluable(tables_of(config), config, space)
    results, found = evaluate_space(Pipeline(config, session_of(config)), space, out)
    lines = in_columns(*result_lines(results))
    lines += ["", *(f"left out: {what}: {reason}" for what, reason in results.left_out.items())]
    print_result(found, [*lines, f"figures with their intervals, and a chart: {out}"], as_json=as_json)
