"""The tables and columns of each stage, and the events that a recorded stage sends."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.builders import config_of
from userrep.config import Config
from userrep.features.ledger import features_table
from userrep.items.versions import lineage_of
from userrep.store.file_tables import FileTables
from userrep.store.schemas import FEATURE_SETS, TILE_DAYS, USER_EMBEDDINGS, USER_ITEM_DAYS
from userrep.store.spark_tables import SparkTables
from userrep.store.tables import Tables
from userrep.workflows.runs import Runs
from userrep.workflows.stage_lineage import locate, stage_facts

pytestmark = pytest.mark.fast


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tables:
    monkeypatch.setattr("userrep.workflows.runs.SparkWork", lambda _: SimpleNamespace(found=dict))
    monkeypatch.setattr(FileTables, "spark", None)
    return FileTables(None, str(tmp_path / "root"))


def test_tables_are_named_by_path_or_by_catalog(tables: Tables, tmp_path: Path) -> None:
    assert locate(tables, "t") == f"{tmp_path}/root/tables/t"
    assert locate(SparkTables(None, schema="`c`.`s`", artifacts="/a"), "t") == "c.s.t"
    assert locate(SparkTables(None, artifacts="dbfs:/r"), "t") == "dbfs:/r/tables/t"


def test_tiles_come_from_the_columns_of_the_log_as_configured(tables: Tables, tmp_path: Path) -> None:
    columns = {"user_id": "u", "item_id": "i", "event_at": "at", "context": ["device", "app"]}
    config = config_of(tmp_path, events={"columns": columns})
    tables.create(USER_ITEM_DAYS)
    facts = stage_facts(tables, config, "build_activity_tiles", {}, {}, ended=True)
    log = str(tmp_path / "events")
    assert (facts.inputs, facts.outputs) == ({log: None}, {locate(tables, "user_item_days"): 0})
    assert facts.columns[locate(tables, "user_item_days")] == {
        "user_id": [(log, "u")], "item_id": [(log, "i")], "last_event_at": [(log, "at")],
        "num_by_context": [(log, "device"), (log, "app")],
    }  # fmt: skip


def test_every_feature_column_has_its_sources_and_an_embedding_has_all_features(tables: Tables, tmp_path: Path) -> None:
    users = {
        "path": str(tmp_path / "users"),
        "columns": {"user_id": "u", "registered_at": "at"},
        "attributes": ["country"],
    }
    config = config_of(tmp_path, users=users)
    features = features_table(config, lineage_of(config))
    facts = stage_facts(tables, config, "refresh_user_features", {}, {}, ended=True)
    columns = facts.columns[locate(tables, features.name)]
    assert set(features.fields().names) - set(columns) == {"as_of", "is_exact"}
    assert columns["attribute_country"] == [(locate(tables, "user_profiles"), "attributes")]
    embeddings = stage_facts(tables, config, "embed_users", {}, {}, ended=True).columns[
        locate(tables, "user_embeddings")
    ]
    assert {column for _, column in embeddings["embedding"]} == set(columns) - {"user_id"}


def events_of(config: Config, tables: Tables, tmp_path: Path, fail: bool = False) -> list[dict[str, Any]]:
    runs = Runs(tables, config)
    runs.command = "daily"
    try:
        with runs.stage("embed_users", [FEATURE_SETS], space_id="s001-a") as run:
            tables.create(USER_EMBEDDINGS)
            run.reason = "2 snapshots"
            if fail:
                raise ValueError("boom")
    except ValueError:
        pass
    return [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("fail", [False, True])
def test_a_recorded_stage_sends_its_events(tables: Tables, tmp_path: Path, fail: bool) -> None:
    transport = {"type": "file", "log_file_path": str(tmp_path / "events.jsonl"), "append": True}
    tables.create(FEATURE_SETS)
    begun, ended = events_of(config_of(tmp_path, lineage={"transport": transport}), tables, tmp_path, fail)
    assert (begun["eventType"], ended["eventType"]) == ("START", "FAIL" if fail else "COMPLETE")
    assert begun["run"]["runId"] == ended["run"]["runId"]
    facet = begun["run"]["facets"]["userrep"]
    assert (facet["command"], facet["space_id"], "outcome" in facet) == ("daily", "s001-a", False)
    assert begun["inputs"][0]["name"] == f"{tmp_path}/root/tables/feature_sets"
    assert begun["inputs"][0]["facets"]["version"]["datasetVersion"] == "0"
    names = [Path(output["name"]).name for output in ended["outputs"]]
    assert names == ([] if fail else ["user_embeddings"])
    if not fail:
        assert ended["run"]["facets"]["userrep"]["reason"] == "2 snapshots"


def test_a_stage_of_unknown_tables_and_a_skipped_one_have_no_outputs(tables: Tables, tmp_path: Path) -> None:
    tables.create(TILE_DAYS)
    assert stage_facts(tables, config_of(tmp_path), "check_quality", {"tile_days": 3}, {}, ended=True).outputs == {}
    assert stage_facts(tables, config_of(tmp_path), "build_activity_tiles", {}, {}, ended=False).outputs == {}
