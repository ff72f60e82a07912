"""Is one vector better than each of its peers, on every log?

Each log has an *earlier* split, on which choices are made, and a *later* one (``--split later``), which is reported
once per release. MovieLens 100K only has a later split, and so have the generated logs, which serve as illustrations:
users who repeat a few items, who explore, or who leave for good. A unit is a log, a split and a training. A finished
unit is kept, and skipped when the benchmark runs again with the same code and settings. One line per log and split:
``ahead`` is the lead of the embedding by peer and family of tasks, relative (or the difference for R2), and the mean
over families with equal weights; ``mean without *`` leaves out the tasks akin to training. Intervals of 90% are over
resampled users and, with several seeds, over trainings. ``value`` is the smallest ``mean`` over peers. The line also
has what the embedding loses in other storage types, with an interval. Look-alike audiences are in ``look_alikes``.
``--small``: one training, the earlier split of one log.

    make bench-quality-by-log
    python -m benchmarks.quality_by_log --small
    python -m benchmarks.quality_by_log --log complete_journey --split later --seeds 3
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pyspark.sql import SparkSession

from benchmarks.report import Line, Skipped, print_line, progress
from userrep.config import Config, load_config
from userrep.evaluation.dates import EvaluationPlan
from userrep.evaluation.families import EMBEDDING, first_metrics, lead_inputs, leads
from userrep.evaluation.representations.catalog import representations
from userrep.evaluation.results import Measured, interval_of
from userrep.evaluation.run import evaluate
from userrep.evaluation.tasks.task import is_akin_to_training
from userrep.ids import code_hash, short_hash
from userrep.model.self_check import MEAN
from userrep.spaces.registry import Space, list_spaces
from userrep.spark.session import get_session
from userrep.store.vector_storage import STORED
from userrep.synthetic.log_spec import REGIMES, LogSpec
from userrep.workflows.demo import ensure_log
from userrep.workflows.evaluate import prepare_evaluation
from userrep.workflows.pipeline import run_pipeline
from userrep.workflows.run_context import RunContext

PEERS = (
    "untrained", "principal", "rfm", "rfm_history", "pooled_longest", "pooled_all", "raw", "pca", "als_static",
    "als_folded", "als_refitted", "nmf", "picks",
)  # fmt: skip

STORAGES = (f"{STORED}float16", f"{STORED}int8")
_LOOK_ALIKES = "look_alikes"
# Metrics of storage losses: where there are trees, that of the regression, since trees change with any perturbation.
_STEADY = ("auc_linear", "r2_linear", "ndcg")


class Log(NamedTuple):
    """A log and the end of training for each split; that of the later one is in its configuration.

    A log that is too short for two splits only has a later one, so no choice is made on it. A generated log has the
    demo's configuration.
    """

    config: str
    earlier_until: date | None
    spec: LogSpec | None = None


def _generated(regime: str) -> Log:
    return Log("conf/demo.yaml", None, LogSpec(num_days=240, **REGIMES[regime]))


LOGS = {
    "online_retail_ii": Log("conf/online_retail_ii.yaml", date(2011, 6, 2)),
    "complete_journey": Log("conf/complete_journey.yaml", date(2017, 6, 8)),
    "ml100k": Log("conf/ml100k.yaml", None),
    "repeat": _generated("repeat"),
    "explore": _generated("explore"),
    "churn": _generated("churn"),
}
SPLITS = ("earlier", "later")


def measure(name: str, split: str, num_seeds: int, root: Path) -> Line:
    """Measure the units of a log's split that are not finished, and compare."""
    found = [_unit(name, split, seed, root) for seed in range(1, num_seeds + 1)]
    tasks = {one.task for one in found[0]}
    compared = leads(over_trainings(found), [task for task in tasks if is_akin_to_training(task)])
    return {
        "benchmark": f"quality_{name}_{split}",
        "size": {"log": name, "split": split, "seeds": num_seeds, "cores": os.cpu_count()},
        "value": min(families[MEAN].value for families in compared.values()),
        "ahead": compared,
        "values": _values(found),
        "storage_losses": storage_losses([one for one in found[0] if not one.task.startswith(_LOOK_ALIKES)]),
        "not judged": sorted({one.task for one in first_metrics(found[0]) if not one.is_judged}),
    }


def over_trainings(found: Sequence[Sequence[Measured]]) -> list[Measured]:
    """Return the results of the first training that leads are computed from, with the embedding's over all trainings.

    Intervals are over users and trainings: each resampling uses one of the trainings at random.
    """
    by_key = [{_key(one): one for one in measured} for measured in found]
    training_B = np.random.default_rng(0).integers(0, len(found), len(found[0][0].bootstraps_B))

    def over_all(one: Measured) -> Measured:
        same = [measured[_key(one)] for measured in by_key]
        drawn_B = np.stack([m.bootstraps_B for m in same])[training_B, np.arange(len(training_B))]
        return replace(one, by_seed=tuple(m.value for m in same), bootstraps_B=drawn_B)

    return [over_all(one) if one.representation == EMBEDDING else one for one in lead_inputs(found[0])]


def _values(found: Sequence[Sequence[Measured]]) -> dict[str, dict[str, float]]:
    """Return all values by task and representation; for the embedding, the mean over trainings."""
    values: dict[str, dict[str, float]] = {}
    for one in first_metrics(found[0]):
        if one.representation.startswith(STORED):
            continue
        same = [m.value for m in chain.from_iterable(found) if _key(m) == _key(one)]
        values.setdefault(one.task, {})[one.representation] = round(float(np.mean(same)), 4)
    return values


def storage_losses(measured: Sequence[Measured]) -> dict[str, dict[str, list[float]]]:
    """Return the loss of the embedding by task and storage type, with the ends of its interval: relative, or of R2."""
    figures: dict[str, dict[str, list[float]]] = {}
    by_key = {_key(one): one for one in measured}
    for one in measured:
        embedding = by_key.get((one.task, one.metric, EMBEDDING))
        is_steady = one.metric in _STEADY or (one.metric == "auc" and (one.task, "auc_linear", EMBEDDING) not in by_key)
        if one.representation.startswith(STORED) and is_steady and embedding is not None:
            loss_B, loss = embedding.bootstraps_B - one.bootstraps_B, embedding.value - one.value
            if not one.metric.startswith("r2"):
                loss_B, loss = loss_B / embedding.bootstraps_B, loss / embedding.value
            interval = interval_of(loss, loss_B)
            storage = one.representation.removeprefix(STORED)
            figures.setdefault(one.task, {})[storage] = [
                round(x, 6) for x in (interval.value, interval.low, interval.high)
            ]
    return figures


def _key(one: Measured) -> tuple[str, str, str]:
    return one.task, one.metric, one.representation


def _unit(name: str, split: str, seed: int, root: Path) -> list[Measured]:
    """Train and evaluate a space, or read the result of an earlier run. Peers are fitted with the first seed."""
    config = config_of_split(name, split, seed, root)
    made_by = short_hash([code_hash(), config.model_dump()])
    kept = root / "quality_by_log" / f"{name}-{split}" / f"seed{seed}-{made_by}.json"
    if not kept.exists():
        progress(f"{name}, {split} split, seed {seed}")
        measured = _evaluated(config, with_peers=seed == 1)
        rows = [m.__dict__ | {"bootstraps_B": np.round(m.bootstraps_B, 6).tolist()} for m in measured]
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.with_suffix(".partial").write_text(json.dumps(rows), encoding="utf-8")
        kept.with_suffix(".partial").rename(kept)
    rows = json.loads(kept.read_text(encoding="utf-8"))
    return [Measured(**row | {"bootstraps_B": np.array(row["bootstraps_B"])}) for row in rows]


def config_of_split(name: str, split: str, seed: int, root: Path) -> Config:
    """Return the configuration of a log's split, with its tables below ``root``. Raises Skipped without the log."""
    log = LOGS[name]
    settings = [
        f"root={root}/quality_by_log/{name}-{split}/tables",
        f"training.seed={seed}",
        "tracking.mlflow=false",
        "quality.self_check=false",
    ]
    if split == "earlier" and log.earlier_until is None:
        raise Skipped(f"{log.config}: the log is too short for an earlier split")
    if split == "earlier":  # test labels end before the later split's begin
        settings += [f"training.as_ofs.until={log.earlier_until}", "evaluation.max_dates=4"]
    if log.spec:
        folder = f"{root}/quality_by_log/{name}-{split}/log"
        settings += [f"{key}.path={folder}/{key}" for key in ("events", "items", "users", "onboarding")]
    config = load_config(log.config, [*settings, "evaluation.newcomer_events=[0,3]"])
    if log.spec:
        ensure_log(config, log.spec)
    if config.events.path is None or not Path(config.events.path).exists():
        raise Skipped(f"{log.config} names a log that is not here: {config.events.path}")
    return config


def prepared_space(config: Config) -> tuple[RunContext, Space, EvaluationPlan]:
    """Train a space, and build what an evaluation of it reads."""
    until = config.training.as_ofs.until
    assert until is not None
    trained = _pipeline(config, until)
    run_pipeline(trained, retrain=bool(list_spaces(trained.tables)))
    space = _newest(list_spaces(trained.tables))
    work = _pipeline(config, None)
    return work, space, prepare_evaluation(work, space)


def _evaluated(config: Config, *, with_peers: bool) -> list[Measured]:
    work, space, plan = prepared_space(config)
    wanted = {EMBEDDING, *(PEERS + STORAGES if with_peers else ())}
    some = {name: fit for name, fit in representations(("float16", "int8")).items() if name in wanted}
    results = evaluate(
        work.tables, work.config, space=space, versions=work.schedule.versions, plan=plan, representations=some,
        ledger=work.tiles,
    )  # fmt: skip
    return list(results.measured)


def _newest(spaces: Sequence[Space]) -> Space:
    return max(spaces, key=lambda space: space.space_id)  # ids begin with a running number


def _pipeline(config: Config, as_of: date | None) -> RunContext:
    return RunContext(config, _session(config), as_of)


def _session(config: Config) -> SparkSession:
    return get_session(config.spark.master, {"spark.driver.memory": "4g"})


def main() -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality_by_log")
    parser.add_argument("--small", action="store_true", help="one training, the earlier split of one log")
    parser.add_argument("--log", choices=LOGS, help="one log (default: all)")
    parser.add_argument("--split", choices=SPLITS, default=SPLITS[0], help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings (%(default)s)")
    parser.add_argument("--root", type=Path, default=Path("build/benchmarks"), help="where data is kept (%(default)s)")
    options = parser.parse_args()
    logs = [options.log] if options.log else list(LOGS)
    if options.small:
        logs, options.split, options.seeds = logs[:1], SPLITS[0], 1
    for name in logs:
        benchmark = f"quality_{name}_{options.split}"
        print_line(benchmark, lambda n=name: measure(n, options.split, options.seeds, options.root.absolute()))


if __name__ == "__main__":
    main()
