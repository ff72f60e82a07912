"""How much quality do item vectors lose if they are fitted on a sample of the users?

Behavior vectors are fitted as the pipeline fits a version, on all users and on 30, 10 and 3%, two weeks before a date.
A user is the mean direction of the items of their past, weighted by log(1 + events). The value is the mean over users
of the AUC of the items of their next seven days against other items, drawn by their popularity in these days; 0.5 is
chance. Items without a vector score 0. Three samples at four dates of each log; no Spark.

    make bench-item-vectors-sample
    python -m benchmarks.item_vectors_sample --small
"""

import os
import statistics
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks.report import Line, Skipped, ask, print_line, progress
from userrep.config import AlsVectors, load_config
from userrep.items.als_fit import event_counts, fit_item_factors, initial_factors

SHARES = (1.0, 0.3, 0.1, 0.03)
NUM_NEGATIVES = 200
_SETTINGS = AlsVectors(kind="als")


@dataclass(frozen=True)
class SampledLog:
    """A log, and the dates after which the users' items are predicted."""

    config: str
    dates: tuple[date, ...]
    samples: int = 3

    def of_samples(self, samples: int) -> "SampledLog":
        return replace(self, samples=samples)


LOGS = (
    SampledLog("conf/online_retail_ii.yaml", tuple(date(2011, month, 1) for month in (3, 4, 5, 6))),
    SampledLog("conf/complete_journey.yaml", tuple(date(2017, month, 1) for month in (5, 6, 7, 8))),
)
SMALL = replace(LOGS[0], dates=LOGS[0].dates[:1], samples=1)


def measure(log: SampledLog, root: Path, runs: int) -> Line:
    """Fit on each share of the users, and evaluate."""
    del root, runs
    events = numbered_events(log.config)
    values: dict[float, list[float]] = {share: [] for share in SHARES}
    for day in log.dates:
        for share in SHARES:
            for seed in range(log.samples if share < 1 else 1):
                vectors_ID = fitted(events, day - timedelta(days=14), share, seed)
                values[share].append(item_auc(events, vectors_ID, day, np.random.default_rng(0)))
        progress(f"{log.config} {day}: {', '.join(f'{s:.0%} {values[s][-1]:.4f}' for s in SHARES)}")
    means = {share: statistics.mean(found) for share, found in values.items()}
    name = Path(log.config).stem
    return {
        "benchmark": f"item_vectors_sample_{name}",
        "size": {"log": name, "dates": len(log.dates), "samples": log.samples, "cores": os.cpu_count()},
        "value": round(means[1.0], 4),
        "by_share": {f"{share:.0%}": round(mean, 4) for share, mean in means.items()},
        "loss": {f"{share:.0%}": round(means[1.0] - mean, 4) for share, mean in means.items() if share < 1},
    }


def numbered_events(config_file: str) -> pa.Table:
    """Read a log: user_hash, item_index (from 0), day, num_events; one row per user, item and day."""
    log = load_config(config_file).events
    assert log.path is not None
    assert log.columns is not None
    if not Path(log.path).exists():
        raise Skipped(f"{config_file} names a log that is not here: {log.path}")
    names = {"user_hash": log.columns.user_id, "item_index": log.columns.item_id, "day": log.columns.event_at}
    rows = pq.read_table(log.path, columns=list(names.values())).rename_columns(list(names))
    for name in ("user_hash", "item_index"):
        codes = pc.dictionary_encode(rows.column(name).combine_chunks()).indices
        rows = rows.set_column(rows.column_names.index(name), name, codes)
    rows = rows.set_column(2, "day", pc.cast(rows.column("day"), pa.date32(), safe=False))
    return rows.group_by(list(names)).aggregate([([], "count_all")]).rename_columns([*names, "num_events"])


def fitted(events: pa.Table, before: date, share: float, seed: int) -> NDArray[np.float32]:
    """Return the items' directions, fitted on a share of the users before a date; zeros for items without a vector."""
    users = pc.unique(events.column("user_hash"))
    kept = np.random.default_rng(seed).random(len(users)) < share
    past = events.filter(pc.less(events.column("day"), pa.scalar(before)))
    past = past.filter(pa.array(kept[past.column("user_hash").to_numpy()]))
    num_items = 1 + pc.max(events.column("item_index")).as_py()
    counts_UI = event_counts(past, num_items)
    items = np.unique(counts_UI.indices)
    start_ID = initial_factors(np.zeros((num_items, _SETTINGS.dim), np.float32), _SETTINGS.seed)
    factors = fit_item_factors(
        counts_UI[:, items],
        start_ID[items],
        settings=_SETTINGS,
        iterations=_SETTINGS.iterations,
        num_threads=os.cpu_count() or 1,
    )
    vectors_ID = np.zeros((num_items, _SETTINGS.dim), np.float32)
    lengths = np.linalg.norm(factors, axis=1, keepdims=True)
    vectors_ID[items] = factors / np.where(lengths > 0, lengths, 1)
    return vectors_ID


def item_auc(events: pa.Table, vectors_ID: NDArray[np.float32], day: date, random: np.random.Generator) -> float:
    """Return the mean over users of the AUC of the items of their next seven days, given their past."""
    shape = (1 + pc.max(events.column("user_hash")).as_py(), len(vectors_ID))
    past = _counts(events.filter(pc.less(events.column("day"), pa.scalar(day))), shape)
    in_week = pc.and_(
        pc.greater_equal(events.column("day"), pa.scalar(day)),
        pc.less(events.column("day"), pa.scalar(day + timedelta(days=7))),
    )
    future = _counts(events.filter(in_week), shape)
    weights = past.copy()
    weights.data = np.log1p(weights.data)
    users = np.flatnonzero((np.diff(future.indptr) > 0) & (np.diff(past.indptr) > 0))
    scores_UI = (weights[users] @ vectors_ID) @ vectors_ID.T
    taken = np.asarray((future > 0).sum(axis=0)).ravel()
    aucs = []
    for k, user in enumerate(users):
        items = future.indices[future.indptr[user] : future.indptr[user + 1]]
        drawn = random.choice(len(taken), NUM_NEGATIVES, p=taken / taken.sum())
        others = scores_UI[k, drawn[~np.isin(drawn, items)]]
        if len(others):
            score = scores_UI[k, items][:, None]
            aucs.append(float(((score > others).mean() + (score >= others).mean()) / 2))
    return statistics.mean(aucs)


def _counts(rows: pa.Table, shape: tuple[int, int]) -> csr_matrix:
    """Count events by user number and item."""
    cells = rows.column("user_hash").to_numpy(), rows.column("item_index").to_numpy()
    return csr_matrix((rows.column("num_events").to_numpy(), cells), shape=shape)


if __name__ == "__main__":
    asked = ask("item_vectors_sample", LOGS[0], small=SMALL, runs=1, unit="samples", number=3,
                resized=LOGS[0].of_samples)  # fmt: skip
    for one in [asked.size] if asked.is_small else [replace(log, samples=asked.size.samples) for log in LOGS]:
        print_line(f"item_vectors_sample_{Path(one.config).stem}", lambda one=one: measure(one, asked.root, asked.runs))
