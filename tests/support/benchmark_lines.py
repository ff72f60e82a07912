"""Checks of a benchmark's line, and a small log in the form of Online Retail II for running benchmarks."""

import json
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.support.builders import SPARK

CONF = Path(__file__).parents[2] / "conf" / "online_retail_ii.yaml"
RETAIL_FIRST_DAY, RETAIL_DAYS = date(2011, 1, 1), 150
RETAIL_UNTIL = date(2011, 3, 1)  # the end of training: evaluations have three months after it


def check_line(line: dict[str, Any], name: str, size: Iterable[str], root: Path) -> None:
    """Check the fields that all lines share, the ratio's arithmetic, and that the run left no folder."""
    assert json.loads(json.dumps(line)) == line
    assert line["benchmark"] == name
    assert {*size, "cores"} <= line["size"].keys()
    assert line["seconds"] > 0
    if "peer_seconds" in line:
        assert line["peer"]
        rounding = 0.0006  # of seconds and of the ratio
        seconds, peer_seconds = line["seconds"], line["peer_seconds"]
        assert line["ratio"] >= (seconds - rounding) / (peer_seconds + rounding) - rounding
        assert line["ratio"] <= (seconds + rounding) / max(peer_seconds - rounding, 1e-9) + rounding
    else:
        assert line.get("value", line.get("ratio")) > 0
    assert not list(root.glob("run-*"))


def write_retail(folder: Path, *, num_users: int = 240) -> Path:
    """Write a log in which users prefer the items of one of four groups; return its configuration.

    The configuration is that of Online Retail II with smaller windows, vectors and models. A third of the users buy for
    the first time during the log; half buy about once a month, the others almost every other day.
    """
    random = np.random.default_rng(5)
    num_items, num_groups = 80, 4
    users, items, times = [], [], []
    for user in range(num_users):
        first = 0 if user % 3 else int(random.integers(RETAIL_DAYS))
        num = 1 + random.poisson(random.choice([0.03, 0.4]) * (RETAIL_DAYS - first))
        in_group = random.random(num) < 0.8
        liked = random.integers(num_items // num_groups, size=num) * num_groups + user % num_groups
        users += [f"{user:05d}"] * num
        items += np.where(in_group, liked, random.integers(num_items, size=num)).tolist()
        times += (first * 86_400 + random.integers((RETAIL_DAYS - first) * 86_400, size=num)).tolist()
    start = datetime.combine(RETAIL_FIRST_DAY, datetime.min.time())
    at = [start + timedelta(seconds=seconds) for seconds in times]
    names = [f"i{k:03d}" for k in range(num_items)]
    titles = [f"{('red', 'blue', 'green', 'white')[k % num_groups]} {('cup', 'box', 'bag')[k % 3]}" for k in range(80)]
    everyone = [f"{user:05d}" for user in range(num_users)]
    tables = {
        "events": {"user_id": users, "item_id": [names[k] for k in items], "timestamp": pa.array(at)},
        "items": {"item_id": names, "title": titles},
        "users": {"user_id": everyone, "country": [("UK", "France")[k % 5 == 0] for k in range(num_users)]},
    }
    folder.mkdir(parents=True, exist_ok=True)
    values = yaml.safe_load(CONF.read_text(encoding="utf-8"))
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
        values[name]["path"] = str(folder / f"{name}.parquet")
    values |= {
        "root": str(folder / "root"),
        "windows_days": [7, 28],
        "history_days": 0,
        "item_vectors": {
            "behaviour": {"kind": "als", "dim": 8, "iterations": 2},
            "content": {"kind": "text", "dim": 8},
        },
        "model": {"latent_dim": 16},
        "evaluation": {"max_dates": 2, "num_seeds": 1, "num_bootstraps": 20, "num_clusters": 4},
        "snapshots": {"history_dates": 4},
        "spark": {"master": "local[2]", "conf": SPARK},
    }
    values["training"] |= {
        "as_ofs": {"until": RETAIL_UNTIL, "every_days": 7}, "num_shards": 2, "batch_size": 64, "max_epochs": 5,
    }  # fmt: skip
    config = folder / "retail.yaml"
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    return config
