"""How many hidden users of a list does each representation find, and what do smaller storage types lose?

On the later split of each log: one training, and lists of users who bought from a cluster of items in the next 30 days,
or who have one value of an attribute that is not an input. One line per log, ``look_alikes_LOG``: recall and lift by
task and representation, and what the embedding loses in other storage types, as AUC with an interval of 90% over
resampled users. ``value`` is the largest relative loss of int8.

    make bench-look-alikes
    python -m benchmarks.look_alikes --small
    python -m benchmarks.look_alikes --log complete_journey
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality_by_log import PEERS, SPLITS, STORAGES, config_of_split, prepared_space, storage_losses
from benchmarks.report import Line, print_line
from userrep.evaluation.families import EMBEDDING
from userrep.evaluation.measure import fit_and_describe
from userrep.evaluation.measure import measure as measure_tasks
from userrep.evaluation.representations.catalog import representations
from userrep.evaluation.results import Measured
from userrep.evaluation.run import read_context_and_truth, reasons_without_picks
from userrep.evaluation.tasks.catalog import audience_tasks
from userrep.model.artifact import load_artifact
from userrep.spaces.registry import artifact_folder

LOGS = ("online_retail_ii", "complete_journey")  # lists need a few thousand users
_SEED = 1


def measure(name: str, split: str, root: Path) -> Line:
    """Train a space and evaluate all representations on the look-alike tasks."""
    measured = _measured(name, split, root)
    losses = storage_losses(measured)
    return {
        "benchmark": f"look_alikes_{name}",
        "size": {"log": name, "split": split, "cores": os.cpu_count()},
        "value": max(loss["int8"][0] for loss in losses.values()),
        "look_alikes": recall_and_lift(measured),
        "storage_losses": losses,
    }


def _measured(name: str, split: str, root: Path) -> list[Measured]:
    config = config_of_split(name, split, _SEED, root)
    work, space, plan = prepared_space(config)
    artifact = load_artifact(artifact_folder(work.tables, space), space.content_hash)
    context, truth = read_context_and_truth(
        work.tables, config, artifact=artifact, versions=work.schedule.versions, plan=plan, ledger=work.tiles
    )
    wanted = {EMBEDDING, *PEERS, *STORAGES} - reasons_without_picks(context).keys()
    chosen = {name: fit for name, fit in representations(("float16", "int8")).items() if name in wanted}
    described = [fit_and_describe(name, fit, context)[1] for name, fit in chosen.items()]
    tasks = audience_tasks(plan, config.evaluation.attribute_names)
    return measure_tasks(tasks, truth, described, config.evaluation)[0]


def recall_and_lift(measured: Sequence[Measured]) -> dict[str, dict[str, list[float]]]:
    """Return recall and lift by task and representation."""
    figures: dict[str, dict[str, list[float]]] = {}
    for one in measured:
        if one.metric in ("recall", "lift"):  # recall comes first
            figures.setdefault(one.task, {}).setdefault(one.representation, []).append(round(one.value, 4))
    return figures


def main() -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.look_alikes")
    parser.add_argument("--small", action="store_true", help="the earlier split of one log")
    parser.add_argument("--log", choices=LOGS, help="one log (default: all)")
    parser.add_argument("--root", type=Path, default=Path("build/benchmarks"), help="where data is kept (%(default)s)")
    options = parser.parse_args()
    logs = [options.log] if options.log else list(LOGS)
    logs, split = (logs[:1], SPLITS[0]) if options.small else (logs, SPLITS[1])
    for name in logs:
        print_line(f"look_alikes_{name}", lambda n=name: measure(n, split, options.root.absolute()))


if __name__ == "__main__":
    main()
