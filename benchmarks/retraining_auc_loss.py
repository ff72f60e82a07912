"""What does an existing consumer's model lose if it continues with the mapped vectors of a retrained space?

The space is trained again with one more month, and its vectors are mapped into the old space's coordinates. Online
Retail II, as of 2011-12-01; for each of three seeds, one space is trained until 2011-08-01 and one until 2011-09-01.
The model is the example consumer's (will this user return within seven days), trained on the first space. The value is
the mean loss in AUC over the seeds; below zero, the model is better with the new vectors. ``--small``: one seed.

    make bench-retraining-auc-loss
    python -m benchmarks.retraining_auc_loss --small
"""

import os
import statistics
from datetime import date
from pathlib import Path

from benchmarks.report import Line, Skipped, ask, print_line, progress
from return_propensity.training import loss_if_mapped, train_return_propensity
from userrep.config import Config, load_config
from userrep.spaces.agreement import Agreement
from userrep.spaces.registry import Space, find_space, list_spaces
from userrep.spark.session import get_session
from userrep.workflows.pipeline import run_pipeline
from userrep.workflows.run_context import RunContext
from userrep.workflows.space_diff import ModelLoss, diff_spaces

CONFIG = "conf/online_retail_ii.yaml"
AS_OF, UNTILS = date(2011, 12, 1), (date(2011, 8, 1), date(2011, 9, 1))
SEEDS = 3


def measure(num_seeds: int, root: Path) -> Line:
    """Train a pair of spaces for each seed, in one root, and compare them."""
    log = load_config(CONFIG).events.path
    if log is None or not Path(log).exists():
        raise Skipped(f"{CONFIG} names a log that is not here: {log}")
    agreements, models = [], []
    for seed in range(num_seeds):
        old, new = (_space(root, seed, until) for until in UNTILS)
        work = _pipeline(_config(root, seed, UNTILS[0]))
        agreements.append(diff_spaces(work.tables, old=old, new=new).agreement)
        models.append(loss_if_mapped(work.tables, work.config, old, new))
        progress(f"seed {seed}: loss in AUC {models[-1].auc_loss:.4f}")
    return _line(agreements, models)


def _line(agreements: list[Agreement], models: list[ModelLoss]) -> Line:
    return {
        "benchmark": "retraining_auc_loss",
        "size": {
            "log": "online_retail_ii",
            "seeds": len(models),
            "labels": models[0].num_labels,
            "cores": os.cpu_count(),
        },
        "value": round(statistics.mean(m.auc_loss for m in models), 4),
        "by_seed": [round(m.auc_loss, 4) for m in models],
        "auc_own": [round(m.auc_own, 4) for m in models],
        "mean_cosine": round(statistics.mean(t.mean_cosine for t in agreements), 4),
        "residual": round(statistics.mean(t.residual for t in agreements), 4),
        "overlap_at_10": round(statistics.mean(t.overlap_at_10 for t in agreements), 3),
    }


def _space(root: Path, seed: int, until: date) -> Space:
    """Return the space of a seed and date; train it and the consumer's model if no earlier run has."""
    work = _pipeline(_config(root, seed, until))
    done = root / f"retraining-seed{seed}-{until}.txt"
    if not done.exists():
        before = {space.space_id for space in list_spaces(work.tables)}
        run_pipeline(work, retrain=bool(before))
        train_return_propensity(work)
        (trained,) = (s.space_id for s in list_spaces(work.tables) if s.space_id not in before)
        done.write_text(trained)
    return find_space(work.tables, done.read_text())


def _pipeline(config: Config) -> RunContext:
    return RunContext(config, get_session(config.spark.master, {"spark.driver.memory": "3g"}), AS_OF)


def _config(root: Path, seed: int, until: date) -> Config:
    settings = [f"root={root}/retraining", f"training.as_ofs.until={until}", f"training.seed={seed + 1}"]
    return load_config(CONFIG, [*settings, "tracking.mlflow=false", "quality.self_check=false"])


if __name__ == "__main__":
    asked = ask("retraining_auc_loss", SEEDS, small=1, runs=1, unit="seeds", number=SEEDS, resized=int)
    print_line("retraining_auc_loss", lambda: measure(asked.size, asked.root))
