"""Commands that start Spark: what they print, where, and with which exit code. See test_cli_usage.py for the others."""

import json
import shutil
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from pyspark.sql import SparkSession

from tests.support.builders import AS_OF, event, write_rows
from tests.support.command_line import Userrep, config_file, with_tables
from userrep.config import Config
from userrep.spaces.registry import find_space
from userrep.store.file_tables import FileTables
from userrep.store.schemas import EMBEDDING_UPDATES
from userrep.workflows import jobs
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.default


@pytest.fixture(scope="module")
def empty_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of a log of three days, and of a root in which nothing is built but an empty table."""
    folder = tmp_path_factory.mktemp("cli")
    days = ("2024-05-01", "2024-05-02", "2024-05-03")
    write_rows(folder / "events" / "part.parquet", [event("u", "i", f"{day} 12:00:00") for day in days])
    return with_tables(config_file(folder))


def test_a_missing_log_is_named_before_any_table_is_made(userrep: Userrep, spark: SparkSession, tmp_path: Path) -> None:
    users = {"path": str(tmp_path / "users"), "columns": {"user_id": "user_id"}}
    answer = userrep("pipeline", "--config", config_file(tmp_path, users=users), "--as-of", "2024-05-02", "--json")
    assert answer.code == 2
    assert json.loads(answer.out) == {"exit_code": 2, "faults": answer.faults}
    assert [fault.split(". ")[0] for fault in answer.faults] == [
        f"events.path {tmp_path / 'events'}: does not exist",
        f"users.path {tmp_path / 'users'}: does not exist",
    ]
    assert not (tmp_path / "root" / "tables").exists()


def test_all_missing_columns_are_named_with_those_found(userrep: Userrep, spark: SparkSession, tmp_path: Path) -> None:
    write_rows(tmp_path / "events" / "part.parquet", [{"user": "u", "item_id": "i", "at": "2024-05-01"}])
    write_rows(tmp_path / "items" / "part.parquet", [{"item_id": "i", "name": "a"}])
    items = {"path": str(tmp_path / "items"), "columns": {"item_id": "item_id", "text": "title"}}
    answer = userrep("run", "build_activity_tiles", "--config", config_file(tmp_path, items=items))
    assert (answer.code, answer.out) == (2, "")
    assert answer.faults == [
        "events.columns.user_id: no column 'user_id'; did you mean user? Columns found: user, item_id, at.",
        "events.columns.event_at: no column 'event_at'; columns found: user, item_id, at.",
        "items.columns.text: no column 'title'; columns found: item_id, name.",
    ]
    assert not (tmp_path / "root" / "tables").exists()


def test_json_is_one_object_on_stdout_even_for_an_empty_root(
    userrep: Userrep, spark: SparkSession, empty_root: Path
) -> None:
    state = userrep("status", "--config", empty_root, "--json")
    assert state.code == 0
    assert len(state.out.splitlines()) == 1
    found = json.loads(state.out)
    assert found["tiles"]["num_days"] == 0
    assert (found["rejected"], found["spaces"], found["runs"]) == ({}, [], [])
    listed = userrep("spaces", "list", "--config", empty_root, "--json")
    assert (listed.code, json.loads(listed.out)) == (0, {"spaces": []})
    for_people = userrep("status", "--config", empty_root)
    assert (for_people.code, for_people.out) == (0, "tiles: none yet\nspaces: none yet\n")


def test_an_as_of_date_outside_the_log_is_refused_with_the_range_of_valid_dates(
    userrep: Userrep, spark: SparkSession, empty_root: Path
) -> None:
    answer = userrep("run", "build_activity_tiles", "--config", empty_root, "--as-of", "2024-05-07")
    assert (answer.code, answer.out) == (2, "")
    assert answer.faults == [
        "as-of date 2024-05-07: outside the log, whose days are 2024-05-01 to 2024-05-03; "
        "choose a date from 2024-05-02 to 2024-05-04."
    ]
    late = userrep("run", "build_activity_tiles", "--config", empty_root, "--as-of", "2024-05-05")
    assert late.code == 4
    assert late.faults[0].startswith("as-of date 2024-05-05: the log is not complete yet, its last day is 2024-05-03.")


def test_commands_that_need_a_space_are_refused_where_there_is_none(
    userrep: Userrep, spark: SparkSession, empty_root: Path, tmp_path: Path
) -> None:
    shown = userrep("spaces", "show", "s-unknown", "--config", empty_root)
    assert (shown.code, shown.out) == (2, "")
    assert shown.faults == ["space s-unknown: not in the registry. Known spaces: none."]
    exported = userrep(
        "export", "embeddings", "--config", empty_root, "--as-of", "2024-05-02", "--out", tmp_path / "out"
    )
    assert (exported.code, exported.out) == (2, "")
    assert exported.faults[0].startswith(
        f"no space is serving. Run `userrep pipeline --as-of DATE --config {empty_root}` to train"
    )
    assert not (tmp_path / "out").exists()
    back = userrep("spaces", "rollback", "--config", empty_root)
    assert (back.code, back.faults) == (2, ["rollback: no other space has served before."])


def test_a_stream_without_a_published_snapshot_is_refused(
    userrep: Userrep, spark: SparkSession, tmp_path: Path
) -> None:
    days = ("2024-05-01", "2024-05-02")
    write_rows(tmp_path / "events" / "part.parquet", [event("u", "i", f"{day} 12:00:00") for day in days])
    config = config_file(tmp_path)
    for arguments in ((), ("--until-empty",)):
        answer = userrep("stream", "--config", config, *arguments)
        assert (answer.code, answer.out) == (2, "")
        assert answer.faults == [
            f"stream: no snapshot is published yet. Run `userrep pipeline --as-of DATE --config {config}` to train a "
            "space and publish one."
        ]
    verified = userrep("stream", "verify", "--config", config, "--as-of", "2024-05-02")
    assert (verified.code, verified.out) == (2, "")
    assert verified.faults[0].startswith(f"no userrep tables at {tmp_path / 'root'}: ")


def test_a_stream_is_verified_only_where_there_are_vectors_to_compare(
    userrep: Userrep, spark: SparkSession, done: tuple[RunContext, Config], tmp_path: Path
) -> None:
    values = done[1].model_dump(mode="json", by_alias=True, exclude_unset=True)
    root = shutil.copytree(values["root"], tmp_path / "root")
    config = tmp_path / "userrep.yaml"
    config.write_text(yaml.safe_dump(values | {"root": str(root)}))
    space_id = find_space(done[0].tables, None).space_id
    early = userrep("stream", "verify", "--config", config, "--as-of", "2024-03-20")
    assert (early.code, early.out) == (2, "")
    assert len(early.faults) == 1
    assert "2024-03-20" in early.faults[0]
    command = ("stream", "verify", "--config", config, "--as-of", str(AS_OF))
    nothing = userrep(*command)
    assert (nothing.code, nothing.out) == (2, "")
    assert nothing.faults == [f"stream verify: no streamed vectors of space {space_id} for as-of date {AS_OF}."]
    row = {"space_id": space_id, "as_of": AS_OF, "user_id": "u0000001", "query_id": "stream", "batch_id": 0,
           "event_at": datetime(2024, 3, 14), "computed_at": datetime(2024, 3, 14), "is_new": False,
           "embedding": [0.0]}  # fmt: skip
    FileTables(spark, str(root)).add(EMBEDDING_UPDATES, [row])
    different = userrep(*command, "--json")
    assert different.code == 3
    found = json.loads(different.out)
    assert (found["equal"], found["different"]) == (0, 1)
    assert found["not_streamed"] > 50
    assert "bit-identical: 0.0000%" in userrep(*command).out


def test_a_job_prints_its_stages_as_a_table_or_as_json(
    userrep: Userrep, spark: SparkSession, empty_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(pipeline: RunContext, name: str, *, retrain: bool) -> None:
        with pipeline.runs.stage("embed_users") as run:
            run.num_rows, run.reason = 1200, "2 snapshots"

    monkeypatch.setattr(jobs, "run_job", job)
    command = ("run", "embed_users", "--config", empty_root, "--as-of", "2024-05-03")
    told = userrep("--run-id", "nightly-3", *command, "--json")
    assert (told.code, len(told.out.splitlines())) == (0, 1)
    result = json.loads(told.out)
    assert (result["as_of"], result["run_id"]) == ("2024-05-03", "nightly-3")
    (stage,) = (stage for stage in result["stages"] if stage["stage"] == "embed_users")
    assert (stage["outcome"], stage["num_rows"], stage["reason"]) == ("done", 1200, "2 snapshots")
    head, *_, row = userrep(*command).out.splitlines()
    assert head.split() == ["stage", "outcome", "rows", "seconds", "reason"]
    assert row.split()[:3] == ["embed_users", "done", "1,200"]
    assert row.endswith("2 snapshots")
    state = json.loads(userrep("status", "--config", empty_root, "--json").out)
    assert ("embed_users", "done", 1200) in [(run["stage"], run["outcome"], run["num_rows"]) for run in state["runs"]]


@pytest.mark.parametrize(
    ("what", "missing"), [("features", "no features for"), ("item-vectors", "no item vectors for")]
)
def test_an_export_of_what_is_not_built_names_the_command_and_writes_nothing(
    userrep: Userrep, spark: SparkSession, empty_root: Path, tmp_path: Path, what: str, missing: str
) -> None:
    out, tables = tmp_path / "out", empty_root.parent / "root" / "tables"
    before = sorted(tables.iterdir())
    answer = userrep("export", what, "--config", empty_root, "--as-of", "2024-05-03", "--out", out)
    assert (answer.code, answer.out) == (2, "")
    command = f"`userrep pipeline --as-of 2024-05-03 --config {empty_root}`"
    assert answer.faults == [f"{missing} 2024-05-03. Run {command} to build them."]
    early = userrep("export", what, "--config", empty_root, "--as-of", "2024-05-01", "--out", out)
    assert early.faults == [f"{missing} 2024-05-01. The log starts on 2024-05-01. Choose a later date."]
    late = userrep("export", what, "--config", empty_root, "--as-of", "2024-06-01", "--out", out)
    assert late.faults == [f"{missing} 2024-06-01. The log ends on 2024-05-03. Choose 2024-05-04 or earlier."]
    assert not out.exists()
    assert sorted(tables.iterdir()) == before
