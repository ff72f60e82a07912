"""Is the embedding better than what a sensible engineer would use instead?

Online Retail II. Three spaces with different seeds are trained until 2011-09-01 and evaluated on later dates, with the
tasks and probes of ``userrep evaluate``; one line per question. ``value`` is the lead of the embedding over the best of
the named baselines: relative, or the difference for R2. It is the mean over spaces and tasks, with a 90% interval over
resampled users. Up to five items of a user's first day stand in for onboarding picks, which the log lacks: they are
inputs of the embedding, of raw blocks and of their averages, and never count as hits. Settings of the baselines, the
history and the form of the item vectors were chosen on these same tasks and dates, which the interval does not include.
``--small``: one space. About 40 minutes.

    make bench-quality
    python -m benchmarks.quality --small
"""

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from pyspark.sql import Window
from pyspark.sql import functions as F

from benchmarks.report import Line, Skipped, ask, print_lines
from userrep.config import Config, load_config
from userrep.evaluation.representations.catalog import representations
from userrep.evaluation.results import Interval, Measured
from userrep.evaluation.run import evaluate
from userrep.model.artifact import load_artifact
from userrep.spaces.registry import CANDIDATE, Space, artifact_folder, list_spaces
from userrep.spark.session import get_session
from userrep.workflows.evaluate import prepare_evaluation
from userrep.workflows.pipeline import run_pipeline
from userrep.workflows.run_context import RunContext

CONFIG = "conf/online_retail_ii.yaml"
AS_OF = date(2011, 10, 1)
SEEDS = 3
PICKS = 5
EMBEDDING = "embedding"


class Question(NamedTuple):
    """Tasks, as (task, metric), and baselines; of several, the best one counts at each task."""

    name: str
    tasks: list[tuple[str, str]]
    baselines: list[str]


_PAIR, _COLD = [("next_item_7d", "auc")], [("new_users_after_0", "auc")]
_RETURN, _VOLUME = [("return_7d", "auc"), ("return_30d", "auc")], [("volume_30d", "r2")]
_OTHERS = [("next_item_7d_new", "auc"), ("next_categories_30d", "auc"), ("neighbours", "ndcg")]
QUESTIONS = [
    Question("quality_pair_vs_average", _PAIR, ["pooled_longest", "pooled_all"]),
    Question("quality_pair_vs_als", _PAIR, ["als_static", "als_folded"]),
    Question("quality_return_vs_rfm", _RETURN, ["rfm", "rfm_history"]),
    Question("quality_volume_vs_rfm", _VOLUME, ["rfm", "rfm_history"]),
    Question("quality_cold_vs_popularity", _COLD, ["popularity"]),
    Question("quality_cold_vs_average", _COLD, ["picks"]),
    Question("quality_vs_nmf", _PAIR, ["nmf"]),
    Question("quality_mean_vs_raw", [*_PAIR, *_RETURN, *_VOLUME, *_OTHERS], ["raw"]),
]


def measure(num_seeds: int, root: Path) -> list[Line]:
    """Train the spaces, measure the first one with all baselines and the others alone, and answer the questions."""
    log = load_config(CONFIG).events.path
    if log is None or not Path(log).exists():
        raise Skipped(f"{CONFIG} names a log that is not here: {log}")
    picks = _first_day_picks(root)
    found: list[Sequence[Measured]] = []
    for seed in range(1, num_seeds + 1):
        config = _config(root, picks, seed)
        space = _space(_pipeline(config, AS_OF), seed)
        work = _pipeline(config, None)
        some = [one for one in representations() if one.name == EMBEDDING or not found]
        plan = prepare_evaluation(work, space)
        results = evaluate(
            work.tables, work.config, space=space, versions=work.schedule.versions, plan=plan, representations=some,
        )  # fmt: skip
        found.append(results.measured)
    return lines(found)


def lines(found: Sequence[Sequence[Measured]]) -> list[Line]:
    """Answer all questions from the measurements of each space; baselines are those of the first."""
    return [_answered(question, found) for question in QUESTIONS]


def _answered(question: Question, found: Sequence[Sequence[Measured]]) -> Line:
    by_space = [{(m.task, m.metric, m.representation): m for m in measured} for measured in found]
    parts, best, by_seed = [], [], []
    for task in question.tasks:
        theirs = [by_space[0][*task, name] for name in question.baselines if (*task, name) in by_space[0]]
        ours = [measured[*task, EMBEDDING] for measured in by_space if (*task, EMBEDDING) in measured]
        if not theirs or not ours:
            return {"benchmark": question.name, "skipped": f"{task[0]} was left out: too few examples"}
        baseline = max(theirs, key=lambda one: one.value)
        mean_B = np.mean([one.bootstraps_B for one in ours], axis=0)
        value = float(np.mean([one.value for one in ours]))
        our_side, their_side = np.append(mean_B, value), np.append(baseline.bootstraps_B, baseline.value)
        parts.append(our_side - their_side if task[1] == "r2" else our_side / their_side - 1)
        best.append(f"{task[0]}: {baseline.representation} {baseline.value:.4f}")
        by_seed.append([round(one.value, 4) for one in ours])
    ahead = np.mean(parts, axis=0)
    interval = Interval.of(float(ahead[-1]), ahead[:-1])
    return {
        "benchmark": question.name,
        "size": {"log": "online_retail_ii", "seeds": len(found), "cores": os.cpu_count()},
        "value": round(interval.value, 4),
        "interval": [round(interval.low, 4), round(interval.high, 4)],
        "baseline": best,
        "embedding_by_seed": by_seed,
    }


def _first_day_picks(root: Path) -> Path:
    """Write up to ``PICKS`` items of each user's first day, drawn by a hash, as picks at the start of that day."""
    target = root / "quality-picks.parquet"
    if not target.exists():
        log = load_config(CONFIG).events
        columns = log.columns
        spark = get_session("local[2]", {"spark.driver.memory": "3g"})
        events = spark.read.parquet(str(log.path)).select(
            F.col(columns.user_id).alias("user_id"), F.col(columns.item_id).alias("item_id"),
            F.to_date(columns.event_at).alias("day"),
        )  # fmt: skip
        first = events.withColumn("first", F.min("day").over(Window.partitionBy("user_id"))).where("day = first")
        draw = Window.partitionBy("user_id").orderBy(F.xxhash64("user_id", "item_id"))
        drawn = first.distinct().withColumn("place", F.row_number().over(draw)).where(F.col("place") <= PICKS)
        rows = drawn.select("user_id", "item_id", F.col("day").cast("timestamp").alias("event_at")).toArrow()
        pq.write_table(rows, target)
    return target


def _space(work: RunContext, seed: int) -> Space:
    """Return the space of a seed; train it if no earlier run has, or resume a killed training."""

    def trained() -> dict[int, Space]:
        spaces = [space for space in list_spaces(work.tables) if space.state != CANDIDATE]
        folders = {space: artifact_folder(work.config, space) for space in spaces}
        return {load_artifact(folder).manifest.training.seed: space for space, folder in folders.items()}

    if seed not in trained():
        run_pipeline(work, retrain=bool(list_spaces(work.tables)))
    return trained()[seed]


def _pipeline(config: Config, as_of: date | None) -> RunContext:
    return RunContext(config, get_session(config.spark.master, {"spark.driver.memory": "4g"}), as_of)


def _config(root: Path, picks: Path, seed: int) -> Config:
    columns = "{user_id: user_id, item_id: item_id, event_at: event_at}"
    onboarding = f"onboarding={{path: {picks}, format: parquet, columns: {columns}}}"
    settings = [f"root={root}/quality", onboarding, f"training.seed={seed}"]
    return load_config(
        CONFIG, [*settings, "evaluation.newcomer_events=[0]", "tracking.mlflow=false", "quality.self_check=false"]
    )


if __name__ == "__main__":
    asked = ask("quality", SEEDS, small=1, runs=1, unit="seeds", number=SEEDS, resized=int)
    print_lines("quality", lambda: measure(asked.size, asked.root))
