"""The retraining policy on real tables: nights that train a candidate, compare it for a consumer, and promote it."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.builders import AS_OF, pipeline_config
from tests.support.command_line import Userrep, file_of
from userrep.config import Config, DriftLimits
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.full

POLICY = {"every": "365d", "on_drift": True, "promote": "when_all_pass"}
LABEL_DATES = [AS_OF - timedelta(days=days) for days in (7, 0)]  # the pipeline published snapshots of both
Night = Callable[[int], dict[str, Any]]


@pytest.fixture
def config(done: tuple[RunContext, Config], log: Path, tmp_path: Path) -> Path:
    """A configuration with the policy, in which any drift makes a training due, on a copy of the pipeline's tables."""
    root = shutil.copytree(str(done[1].root), tmp_path / "root")
    limits = {"warn": dict.fromkeys(DriftLimits.model_fields) | {"norm_change": 0.0}}
    return file_of(pipeline_config(log, root, retraining=POLICY, drift=limits), tmp_path)


@pytest.fixture
def labels(log: Path, tmp_path: Path) -> Path:
    """Labels that any space knows, so that all spaces are judged alike: events in the week before the label."""
    rows = pq.read_table(log / "events", columns=["user_id", "event_at"]).to_pylist()
    events = [row for row in rows if row["user_id"] and row["event_at"]]  # without the malformed ones
    labels = []
    for day in LABEL_DATES:
        at, since = (datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=back) for back in (0, 7))
        known = {event["user_id"] for event in events if event["event_at"] < at}
        recent = {event["user_id"] for event in events if since <= event["event_at"] < at}
        labels += [
            {"user_id": user, "label_at": at + timedelta(hours=12), "label": float(user in recent)}
            for user in sorted(known)
        ]
    pq.write_table(pa.Table.from_pylist(labels), tmp_path / "labels.parquet")
    return tmp_path / "labels.parquet"


@pytest.fixture
def night(userrep: Userrep, config: Path) -> Night:
    """Return a function that runs `nightly` some days after the pipeline; it returns the part `retraining`."""

    def run(days: int) -> dict[str, Any]:
        answer = userrep("nightly", "--as-of", str(AS_OF + timedelta(days=days)), "--config", config, "--json")
        assert answer.code == 0, answer.err[-4000:]
        return dict(json.loads(answer.out)["parts"][-1])

    return run


def states(userrep: Userrep, config: Path) -> list[str]:
    spaces = json.loads(userrep("spaces", "list", "--config", config, "--json").out)["spaces"]
    return [space["state"] for space in spaces]


def test_nights_train_compare_and_promote(userrep: Userrep, night: Night, config: Path, labels: Path) -> None:
    def run(*arguments: str | Path) -> dict[str, Any]:
        answer = userrep(*arguments, "--config", config, "--json")
        assert answer.code == 0, answer.err[-4000:]
        return dict(json.loads(answer.out))

    first = run("spaces", "list")["spaces"][0]["space_id"]
    for consumer in run("consumers", "list")["consumers"]:
        run("consumers", "pin", consumer["name"], first)
    run("consumers", "register", "ads", "--owner", "team ads")

    trained = night(1)
    second = run("spaces", "list")["spaces"][-1]["space_id"]
    assert trained["outcome"] == "done"
    assert "norm_change" in trained["reason"]
    assert trained["reason"].endswith(f"space {second} waits to serve: ads has no verdict")

    run("spaces", "diff", first, second)
    assert run("spaces", "compare", first, second, "--labels", labels, "--consumer", "ads")["verdict"] == "pass"
    assert night(1)["reason"] == f"space {second} waits to serve: ads pass"
    assert states(userrep, config) == ["serving", "ready"]

    run("consumers", "ready", "ads", second)
    promoted = night(2)
    assert promoted["reason"] == f"space {second} is serving, because all consumers that follow pass"
    assert states(userrep, config) == ["ready", "serving"]

    compared = night(3)
    third = run("spaces", "list")["spaces"][-1]["space_id"]
    assert compared["reason"].endswith(f"space {third} waits to serve: ads pass")
    assert states(userrep, config) == ["ready", "serving", "ready"]
