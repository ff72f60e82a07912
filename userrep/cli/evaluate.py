"""``userrep evaluate``: the quality of a space compared with baselines."""

from typing import Annotated

from userrep.cli.options import InSpace, Output, command, path_option, session_of, tables_of
from userrep.config import Config
from userrep.logs import in_columns


@command
def evaluate(
    config: Config,
    out: Annotated[str, path_option("--out", "New folder for metrics.json and a chart.")],
    space: InSpace = None,
) -> Output:
    """Evaluate a space against baselines.

    The same small models are trained on the embeddings and on each baseline, for dates after the training of the
    space. Missing features are built first; nothing is published. Results are written to --out and to the table
    space_metrics.
    """
    from userrep.store.filesystem import check_new_folder

    check_new_folder(out)
    from userrep.evaluation.output import result_lines
    from userrep.workflows.evaluate import evaluate_space, find_evaluable_space
    from userrep.workflows.run_context import RunContext

    find_evaluable_space(tables_of(config), config, space)
    results, metrics = evaluate_space(RunContext(config, session_of(config)), space, out)
    lines = in_columns(*result_lines(results))
    lines += ["", *(f"left out: {what}: {reason}" for what, reason in results.left_out.items())]
    return Output(metrics, [*lines, f"metrics with confidence intervals, and a chart: {out}"])
