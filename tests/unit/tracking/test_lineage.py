"""OpenLineage events, written by the client's file transport and read back by its own classes."""

import importlib.util
import json
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import column_lineage_dataset, dataset_version_dataset

from tests.support.builders import config_of
from tests.support.webhook_server import WebhookServer
from userrep.config import Config
from userrep.errors import UsageError
from userrep.tracking.lineage import (
    COMPLETE,
    FAIL,
    START,
    StageEvents,
    StageFacts,
    check_lineage_client,
    dataset_name,
    is_on,
)

pytestmark = pytest.mark.fast

STAGE = StageFacts(
    stage="embed_users",
    inputs={"s3a://bucket/root/tables/user_features": 3, "cat.sch.events": None},
    outputs={"/root/tables/user_embeddings": 7},
    columns={"/root/tables/user_embeddings": {"embedding": [("s3a://bucket/root/tables/user_features", "pooled")]}},
    facts={"run_id": "r1", "space_id": "s001-a"},
)


def settings(tmp_path: Path, **more: Any) -> Config:
    transport = {"type": "file", "log_file_path": str(tmp_path / "events.jsonl"), "append": True}
    return config_of(tmp_path, lineage={"transport": transport, **more})


def written(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]


def as_event(values: dict[str, Any]) -> RunEvent:
    """Construct an event by the client's classes, which check ids, times, URLs and names."""
    run, job = values["run"], values["job"]
    return RunEvent(
        eventTime=values["eventTime"],
        eventType=RunState[values["eventType"]],
        producer=values["producer"],
        run=Run(run["runId"], run["facets"]),
        job=Job(job["namespace"], job["name"], job["facets"]),
        inputs=[InputDataset(d["namespace"], d["name"]) for d in values["inputs"]],
        outputs=[OutputDataset(d["namespace"], d["name"]) for d in values["outputs"]],
    )


def test_a_stage_that_ends_is_two_events_of_one_run_with_its_tables(tmp_path: Path, lines: list[str]) -> None:
    events = StageEvents(settings(tmp_path, namespace="prod"))
    stage_id = str(uuid4())
    events.emit(START, stage_id, lambda: STAGE)
    events.emit(COMPLETE, stage_id, lambda: STAGE)
    begun, ended = written(tmp_path)
    assert lines == []
    for values, kind in ((begun, RunState.START), (ended, RunState.COMPLETE)):
        event = as_event(values)
        assert (event.eventType, event.run.runId) == (kind, stage_id)
        assert (event.job.namespace, event.job.name) == ("prod", "embed_users")
        assert datetime.fromisoformat(event.eventTime).tzinfo is not None
        assert values["run"]["facets"]["userrep"]["space_id"] == "s001-a"
        assert [(d.namespace, d.name) for d in event.inputs] == [
            ("s3a://bucket", "root/tables/user_features"), ("catalog", "cat.sch.events"),
        ]  # fmt: skip
    features, log = begun["inputs"]
    version = dataset_version_dataset.DatasetVersionDatasetFacet("3")
    assert features["facets"]["version"] == {
        "datasetVersion": "3", "_producer": "https://pypi.org/project/userrep", "_schemaURL": version._schemaURL,
    }  # fmt: skip
    assert (log["facets"], begun["outputs"]) == ({}, [])
    (output,) = ended["outputs"]
    assert (output["namespace"], output["name"]) == ("file", "/root/tables/user_embeddings")
    fields = output["facets"]["columnLineage"]["fields"]
    source = column_lineage_dataset.InputField(**fields["embedding"]["inputFields"][0])
    assert (source.namespace, source.name, source.field) == ("s3a://bucket", "root/tables/user_features", "pooled")


def test_a_failed_stage_has_its_message_and_no_outputs(tmp_path: Path) -> None:
    events = StageEvents(settings(tmp_path))
    events.emit(FAIL, str(uuid4()), lambda: STAGE, "gates: too few users")
    (failed,) = written(tmp_path)
    assert as_event(failed).eventType == RunState.FAIL
    assert failed["outputs"] == []
    assert failed["run"]["facets"]["errorMessage"]["message"] == "gates: too few users"


def test_a_client_that_fails_is_reported_once_and_is_left_alone_then(tmp_path: Path, lines: list[str]) -> None:
    config = config_of(
        tmp_path, lineage={"transport": {"type": "file", "log_file_path": str(tmp_path / "no" / "e"), "append": True}}
    )
    events = StageEvents(config)
    for _ in range(2):
        events.emit(START, str(uuid4()), lambda: STAGE)
    (line,) = lines
    assert line.startswith("lineage: no more events of this run are sent (")


def test_a_server_that_refuses_is_reported_without_its_address(tmp_path: Path, lines: list[str]) -> None:
    with WebhookServer() as server:
        server.statuses = [403] * 9
        transport = {"type": "http", "url": server.url, "endpoint": "S3CRET/lineage", "retry": {"total": 0}}
        events = StageEvents(config_of(tmp_path, lineage={"transport": transport}))
        events.emit(START, str(uuid4()), lambda: STAGE)
        assert server.requests[0][:2] == ("POST", "/S3CRET/lineage")
    assert len(lines) == 1
    assert "S3CRET" not in lines[0]


def test_events_are_off_unless_configured_or_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENLINEAGE_URL", raising=False)
    assert not is_on(config_of(tmp_path))
    assert is_on(config_of(tmp_path, lineage={}))
    monkeypatch.setenv("OPENLINEAGE_URL", "http://localhost:5000")
    assert is_on(config_of(tmp_path))
    check_lineage_client(config_of(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"lineage: needs openlineage-python\. Install it with"):
        check_lineage_client(config_of(tmp_path))
    monkeypatch.delenv("OPENLINEAGE_URL")
    check_lineage_client(config_of(tmp_path))


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("/data/root/tables/t", ("file", "/data/root/tables/t")),
        ("abfss://c@account.dfs/root/t", ("abfss://c@account.dfs", "root/t")),
        ("main.embeddings.t", ("catalog", "main.embeddings.t")),
    ],
)
def test_a_dataset_is_named_by_its_store_and_path(location: str, name: tuple[str, str]) -> None:
    assert dataset_name(location) == name
