"""The command line: what it says, where, and with which exit code; wrong input is refused before long work."""

import json
import shutil
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from tests.support.builders import AS_OF, event, write_rows
from tests.support.command_line import Answer, Userrep, config_file
from userrep.config import Config
from userrep.doctor import Finding, findings
from userrep.errors import GateRefusedError, UsageError, UserrepError
from userrep.export import EXPORTS
from userrep.jobs import JOBS
from userrep.pipeline import Pipeline
from userrep.schemas import EMBEDDING_UPDATES
from userrep.spaces.registry import add_candidate, find_space, mark_ready
from userrep.tables import Tables

pytestmark = pytest.mark.default


@pytest.fixture(scope="module")
def empty_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of a log of three days, and of a root in which nothing is built."""
    folder = tmp_path_factory.mktemp("cli")
    days = ("2024-05-01", "2024-05-02", "2024-05-03")
    write_rows(folder / "events" / "part.parquet", [event("u", "i", f"{day} 12:00:00") for day in days])
    return config_file(folder)


COMMANDS = {
    ("demo",): "Generate a log, run every stage on it",
    ("pipeline",): "Run every batch stage for an as-of date; what is up to date is skipped, and said.",
    ("daily",): "Refresh the features, embed, gate and publish for one date; no training.",
    ("backfill",): "Build and publish snapshots of many dates, as if on time",
    ("run",): "Run one job of jobs/ by its name.",
    ("export",): "Write embeddings, features or item vectors of a date as Parquet",
    ("evaluate",): "Judge a space on the log after its training: tasks it was not built for, beside baselines",
    ("stream",): "Encode users anew as their events arrive, until Ctrl-C or SIGTERM",
    ("stream", "verify"): "Compare the last streamed vectors of an as-of date with its snapshot: equal to the bit?",
    ("forget",): "Take users out of all tables, snapshots, exports and the online store, and keep them out.",
    ("report",): "Write one HTML page: is all well, what ran, on which data, how it moved",
    ("plan",): "Estimate core hours, shuffles and storage at a size",
    ("status",): "Show what there is: days of tiles, rejected rows, spaces with their snapshots",
    ("doctor",): "Check this machine: versions that belong together",
    ("spaces",): "The registry of embedding spaces",
    ("spaces", "list"): "List all spaces with their states.",
    ("spaces", "show"): "Show a space: its manifest, its metrics, its snapshots.",
    ("spaces", "promote"): "Let a ready space serve, in one commit",
    ("spaces", "rollback"): "Let the space serve again that served before; no consumer blocks it.",
    ("spaces", "retire"): "Take a space out of use for good; its tables stay.",
    ("consumers",): "The registry of consumers",
    ("consumers", "list"): "List all consumers: whose they are",
    ("consumers", "register"): "Register a consumer, which follows the space that serves or is pinned to one",
    ("consumers", "ready"): "Declare that a consumer could move to a space",
    ("consumers", "pin"): "`pin CONSUMER serving` lets it follow what serves again.",
    ("consumers", "remove"): "Take a consumer off the registry",
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_says_what_a_command_does_and_names_the_common_flags(
    userrep: Userrep, no_spark: None, command: tuple[str, ...]
) -> None:
    answer = userrep(*command, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert COMMANDS[command] in " ".join(answer.out.split())
    if command not in (("spaces",), ("consumers",)):
        assert all(flag in answer.out for flag in ("--set KEY.PATH=VALUE", "--json", "--debug"))


def test_help_lists_all_commands(userrep: Userrep, no_spark: None) -> None:
    answer = userrep("--help")
    assert answer.code == 0
    listed = {line.split()[0] for line in answer.out.split("Commands:")[1].splitlines() if line.startswith("  ")}
    assert listed >= {
        "demo",
        "pipeline",
        "daily",
        "backfill",
        "run",
        "export",
        "evaluate",
        "stream",
        "status",
        "doctor",
        "spaces",
        "consumers",
    }


@pytest.mark.parametrize("group", [(), ("spaces",), ("consumers",)])
def test_no_command_is_answered_with_the_help(userrep: Userrep, no_spark: None, group: tuple[str, ...]) -> None:
    answer = userrep(*group)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Usage: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("backfill --config x.yaml --from 2024-05-01", "backfill: give --from and --to, or --stale."),
        ("backfill --config x.yaml --from 2024-05-01 --to x", "--from/--to x: not a date; write YYYY-MM-DD."),
        ("pipline", "No such command 'pipline'. Did you mean 'pipeline'? `--help` shows what there is."),
        ("spaces lst", "No such command 'lst'. Did you mean 'list'? `--help` shows what there is."),
        ("status", "Missing option '--config'. `--help` shows what there is."),
        ("pipeline --config C", "Missing option '--as-of'. `--help` shows what there is."),
        ("export embeddings --config C --as-of 2024-05-02", "Missing option '--out'. `--help` shows what there is."),
        ("status --config C --verbose", "No such option: --verbose. `--help` shows what there is."),
        ("status --config C more", "Got unexpected extra argument(s) (more). `--help` shows what there is."),
        ("pipeline --config C --as-of 2024-02-30", "--as-of 2024-02-30: not a date; write YYYY-MM-DD."),
        ("run build_activity_tiles --config C --as-of today", "--as-of today: not a date; write YYYY-MM-DD."),
        ("export features --config C --as-of 1.5.2024 --out O", "--as-of 1.5.2024: not a date; write YYYY-MM-DD."),
        (
            "status --config nowhere.yaml",
            "nowhere.yaml: No such file or directory. Name a configuration file with --co",
        ),
        ("status --config C --set modle.latent_dim=3", "C: unknown key modle; did you mean model?"),
        ("demo --set model.latent_dim=wide", "model.latent_dim: Input should be a valid integer"),
        ("doctor --config C --set windows_days=[]", "C: windows_days: List should have at least 1 item"),
        (
            "status --config C --set latent_dim",
            "--set latent_dim: write key.path=value, for example --set model.latent",
        ),
        ("run build_tiles --config C", "run build_tiles: no such job; there are: build_activity_tiles, train_item_vec"),
        (
            "export vectors --config C --as-of 2024-05-02 --out O",
            "export vectors: not known; there are: embeddings, features, item-vectors.",
        ),
        ("spaces show ../x --config C", "space '../x' is not a valid name: use 1 to 64 of a-z"),
        ("spaces promote S1 --config C", "space 'S1' is not a valid name: use 1 to 64 of a-z"),
        ("spaces retire a'b --config C", "is not a valid name: use 1 to 64 of a-z"),
        ("consumers register A/B --owner X --config C", "consumer 'A/B' is not a valid name: use 1 to 64 of a-z"),
        ("consumers register ads --config C", "Missing option '--owner'. `--help` shows what there is."),
        ("consumers register ads --owner X --pin .. --config C", "space '..' is not a valid name"),
        ("consumers register ads --owner X --pin s9 --config C", "space s9: not in the registry; spaces there are: no"),
        ("consumers ready ads S1 --config C", "space 'S1' is not a valid name: use 1 to 64 of a-z"),
        ("consumers ready ads s1 --config C", "consumer ads: not registered; consumers there are: none. `userrep co"),
        ("consumers pin ads serving --config C", "consumer ads: not registered; consumers there are: none."),
        ("consumers remove ads --config C", "consumer ads: not registered; consumers there are: none."),
        ("spaces promote s1 --dry-run --config C", "space s1: not in the registry; spaces there are: none."),
        ("export features --config C --as-of 2024-05-02 --out O --space ../x", "space '../x' is not a valid name"),
        ("evaluate --config C --out O --space ../x", "space '../x' is not a valid name"),
        ("evaluate --config C", "Missing option '--out'. `--help` shows what there is."),
        ("report --config C", "Missing option '--out'. `--help` shows what there is."),
        ("report --config C --out O", "name a file that ends in .html; figures as JSON go beside it."),
        ("stream", "stream: --config is missing; name a configuration file."),
        ("stream --config C --new-query-id ../x", "query id '../x' is not a valid name: use 1 to 64 of a-z"),
        ("stream --config C --set stream.events.topic=t", "stream: events.topic needs kafka.bootstrap_servers"),
        ("stream verfy", "No such command 'verfy'. Did you mean 'verify'? `--help` shows what there is."),
        ("stream verify --as-of 2024-05-02", "Missing option '--config'. `--help` shows what there is."),
        ("stream verify --config C", "Missing option '--as-of'. `--help` shows what there is."),
        ("stream verify --config C --as-of today", "--as-of today: not a date; write YYYY-MM-DD."),
        ("evaluate --config C --out O", "no space is serving. `userrep pipeline` trains one and promotes it where"),
        ("--run-id ../x status --config C", "run id '../x' is not a valid name: use 1 to 64 of a-z"),
        ("run embed_users --config C --retrain", "run embed_users: --retrain is for train_item_vectors, build_user_f"),
    ],
)
def test_wrong_use_is_one_line_on_stderr_and_exit_code_2_before_spark_starts(
    userrep: Userrep, no_spark: None, empty_root: Path, tmp_path: Path, arguments: str, said: str
) -> None:
    named = {"C": str(empty_root), "O": str(tmp_path / "out")}
    answer = userrep(*(named.get(word, word) for word in arguments.split()))
    assert (answer.code, answer.out) == (2, "")
    assert len(answer.err.splitlines()) == 1
    assert said in answer.faults[0].replace(str(empty_root), "C")
    assert not (tmp_path / "out").exists()


def test_with_json_logs_a_fault_is_an_object_too(
    userrep: Userrep, no_spark: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USERREP_LOG", "json")
    monkeypatch.setenv("USERREP_RUN_ID", "nightly-3")
    answer = userrep("status", "--config", "nowhere.yaml")
    assert (answer.code, answer.out) == (2, "")
    fault = json.loads(answer.err)
    assert (fault["level"], fault["run_id"]) == ("error", "nightly-3")
    assert fault["message"].startswith("nowhere.yaml: No such file or directory.")


def test_each_fault_of_a_configuration_has_its_line(userrep: Userrep, no_spark: None, tmp_path: Path) -> None:
    config = config_file(tmp_path, modle={}, windows_days=[0], training={"num_workers": 2})
    answer = userrep("status", "--config", config)
    assert (answer.code, answer.out) == (2, "")
    assert [line.startswith(f"userrep: {config}: ") for line in answer.err.splitlines()] == [True] * 3


@pytest.mark.parametrize("parent", ["/dev/null", "a file"])
@pytest.mark.parametrize(
    "command", ["pipeline --as-of 2024-05-02", "run build_activity_tiles", "status", "spaces list", "spaces rollback"]
)
def test_a_root_that_cannot_be_written_to_is_refused_before_spark_starts(
    userrep: Userrep, no_spark: None, tmp_path: Path, parent: str, command: str
) -> None:
    (tmp_path / "a file").write_text("kept")
    root = f"{tmp_path / parent}/root"
    answer = userrep(*command.split(), "--config", config_file(tmp_path), "--set", f"root={root}")
    assert (answer.code, answer.out) == (2, "")
    assert len(answer.faults) == 1
    assert answer.faults[0].startswith(f"root {root}: not writable (")
    assert answer.faults[0].endswith("Name a folder that this user may write to.")


def export_to(userrep: Userrep, config: Path, out: object) -> Answer:
    return userrep("export", "features", "--config", config, "--as-of", "2024-05-02", "--out", str(out))


def test_a_folder_that_holds_something_else_is_not_exported_to(
    userrep: Userrep, no_spark: None, tmp_path: Path
) -> None:
    config = config_file(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "part-0.parquet").write_text("someone's log")
    answer = export_to(userrep, config, out)
    assert answer.code == 2
    assert answer.faults == [f"--out {out}: the folder is not empty and holds no earlier export; name another one."]
    (out / "_manifest.json").write_text("{}")
    (out / "notes.txt").write_text("kept")
    answer = export_to(userrep, config, out)
    assert answer.code == 2
    assert "holds no earlier export (notes.txt); name another one." in answer.faults[0]
    assert (out / "notes.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("a file", "a file is there; name a folder."),
        ("a file/out", "a file is not a folder that this user may write to; name another one."),
        ("/dev/null/out", "/dev/null is not a folder that this user may write to; name another one."),
        ("nowhere://bucket/out", "not a folder that can be looked into (Unrecognized filesystem type in URI"),
    ],
)
def test_an_export_to_where_no_folder_can_be_is_refused(
    userrep: Userrep, no_spark: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a file").write_text("kept")
    answer = export_to(userrep, config_file(tmp_path), out)
    assert (answer.code, len(answer.faults)) == (2, 1)
    assert answer.faults[0].startswith(f"--out {out}: ")
    assert said in answer.faults[0]


def failing_with(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (GateRefusedError("not published: too few rows."), 3, "not published: too few rows."),
        (
            RuntimeError("An error occurred while calling o58.sql.\n: java.io.IOException: disk full\n\tat X"),
            1,
            "RuntimeError: java.io.IOException: disk full. --debug shows the traceback; what was committed stays.",
        ),
        (ValueError(), 1, "ValueError: no message. --debug shows the traceback; what was committed stays."),
        (KeyboardInterrupt(), 1, "interrupted; what was committed stays, run the command again to go on."),
    ],
)
def test_whatever_happens_is_one_line_and_an_exit_code(
    userrep: Userrep,
    empty_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr("userrep.session.get_session", failing_with(error))
    answer = userrep("status", "--config", empty_root, "--json")
    assert answer == (code, "", f"userrep: {said}\n")


def test_a_full_disk_is_told_with_its_cure_whoever_has_wrapped_the_error(
    userrep: Userrep, empty_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="No space left") as full, open("/dev/full", "wb", buffering=0) as disk:
        disk.write(b"more")
    wrapped, told = UserrepError("table registry is not readable."), UsageError(f"root: not writable ({full.value}).")
    wrapped.__cause__ = full.value
    for error in (full.value, wrapped, told):
        monkeypatch.setattr("userrep.session.get_session", failing_with(error))
        answer = userrep("status", "--config", empty_root)
        assert (answer.code, answer.out) == (1, "")
        assert answer.err.startswith("userrep: a disk is full (No space left on device): ")
        assert answer.err.endswith("What was committed stays. Make room, then run the same command again.\n")


def test_debug_shows_the_traceback_and_keeps_the_exit_code(
    userrep: Userrep, empty_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("userrep.session.get_session", failing_with(GateRefusedError("not published: no rows.")))
    answer = userrep("status", "--config", empty_root, "--debug")
    assert (answer.code, answer.out) == (3, "")
    assert answer.err.startswith("Traceback (most recent call last):")
    assert "in status\n" in answer.err
    assert answer.faults == ["not published: no rows."]


def test_the_doctor_says_each_finding_and_fails_if_one_is_bad(
    userrep: Userrep, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Finding("java", True, "17"), Finding("root", False, "not writable", "Name another.")]
    monkeypatch.setattr("userrep.doctor.findings", lambda config: iter(found))
    answer = userrep("doctor")
    assert (answer.code, answer.err) == (1, "")
    assert answer.out == "ok   java: 17\nFAIL root: not writable. Name another.\n"
    answer = userrep("doctor", "--json")
    assert (answer.code, answer.err) == (1, "")
    checks = json.loads(answer.out)["checks"]
    assert [(check["check"], check["ok"]) for check in checks] == [("java", True), ("root", False)]
    found.pop()
    assert userrep("doctor", "--json").code == 0


def test_the_doctor_goes_by_the_java_that_spark_will_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    found = next(finding for finding in findings(None) if finding.check == "java")
    assert str(found) == "FAIL java: 11. Spark 4.2 needs Java 17 or 21; set JAVA_HOME to one."
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    found = next(finding for finding in findings(None) if finding.check == "java")
    assert not found.ok
    assert found.found == f"none in JAVA_HOME {tmp_path / 'nowhere'}"


def test_a_missing_log_is_named_before_any_table_is_made(userrep: Userrep, spark: SparkSession, tmp_path: Path) -> None:
    users = {"path": str(tmp_path / "users"), "columns": {"user_id": "user_id"}}
    answer = userrep("pipeline", "--config", config_file(tmp_path, users=users), "--as-of", "2024-05-02", "--json")
    assert (answer.code, answer.out) == (2, "")
    assert [fault.split(". ")[0] for fault in answer.faults] == [
        f"events.path {tmp_path / 'events'}: not there",
        f"users.path {tmp_path / 'users'}: not there",
    ]
    assert not (tmp_path / "root" / "tables").exists()


def test_all_missing_columns_are_named_with_those_found(userrep: Userrep, spark: SparkSession, tmp_path: Path) -> None:
    write_rows(tmp_path / "events" / "part.parquet", [{"user": "u", "item_id": "i", "at": "2024-05-01"}])
    write_rows(tmp_path / "items" / "part.parquet", [{"item_id": "i", "name": "a"}])
    items = {"path": str(tmp_path / "items"), "columns": {"item_id": "item_id", "text": "title"}}
    answer = userrep("run", "build_activity_tiles", "--config", config_file(tmp_path, items=items))
    assert (answer.code, answer.out) == (2, "")
    assert answer.faults == [
        "events.columns.user_id: no column 'user_id'; columns found: user, item_id, at.",
        "events.columns.event_at: no column 'event_at'; columns found: user, item_id, at.",
        "items.columns.text: no column 'title'; columns found: item_id, name.",
    ]
    assert not (tmp_path / "root" / "tables").exists()


def test_json_is_one_object_on_stdout_also_where_there_is_nothing(
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


def test_an_as_of_date_outside_the_log_is_refused_with_those_that_can_be(
    userrep: Userrep, spark: SparkSession, empty_root: Path
) -> None:
    answer = userrep("run", "build_activity_tiles", "--config", empty_root, "--as-of", "2024-05-05")
    assert (answer.code, answer.out) == (2, "")
    assert answer.faults == [
        "--as-of 2024-05-05: outside the log, whose days are 2024-05-01 to 2024-05-03; "
        "choose a date from 2024-05-02 to 2024-05-04."
    ]


def test_what_needs_a_space_says_so_where_there_is_none(
    userrep: Userrep, spark: SparkSession, empty_root: Path, tmp_path: Path
) -> None:
    shown = userrep("spaces", "show", "s-unknown", "--config", empty_root)
    assert (shown.code, shown.out) == (2, "")
    assert shown.faults == ["space s-unknown: not in the registry; spaces there are: none."]
    exported = userrep(
        "export", "embeddings", "--config", empty_root, "--as-of", "2024-05-02", "--out", tmp_path / "out"
    )
    assert (exported.code, exported.out) == (2, "")
    assert exported.faults[0].startswith("no space is serving. `userrep pipeline` trains one")
    assert not (tmp_path / "out").exists()
    back = userrep("spaces", "rollback", "--config", empty_root)
    assert (back.code, back.faults) == (2, ["rollback: no other space has served before."])


def test_a_stream_that_has_nothing_to_begin_with_says_so(userrep: Userrep, spark: SparkSession, tmp_path: Path) -> None:
    days = ("2024-05-01", "2024-05-02")
    write_rows(tmp_path / "events" / "part.parquet", [event("u", "i", f"{day} 12:00:00") for day in days])
    config = config_file(tmp_path)
    for arguments in ((), ("--until-empty",)):
        answer = userrep("stream", "--config", config, *arguments)
        assert (answer.code, answer.out) == (2, "")
        assert answer.faults == [
            "stream: no snapshot is published yet; `userrep pipeline` trains a space and publishes one."
        ]
    verified = userrep("stream", "verify", "--config", config, "--as-of", "2024-05-02")
    assert (verified.code, verified.out) == (2, "")
    assert verified.faults[0].startswith("no space is serving. `userrep pipeline` trains one")


def test_a_stream_is_verified_only_where_there_is_something_to_compare(
    userrep: Userrep, spark: SparkSession, done: tuple[Pipeline, Config], tmp_path: Path
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
    assert nothing.faults == [f"stream verify: no stream has written vectors of space {space_id} for {AS_OF}."]
    row = {"space_id": space_id, "as_of": AS_OF, "user_id": "u0000001", "query_id": "stream", "batch_id": 0,
           "event_at": datetime(2024, 3, 14), "computed_at": datetime(2024, 3, 14), "is_new": False,
           "embedding": [0.0]}  # fmt: skip
    Tables(spark, root=str(root)).add(EMBEDDING_UPDATES, [row])
    different = userrep(*command, "--json")
    assert different.code == 3
    found = json.loads(different.out)
    assert (found["equal"], found["different"]) == (0, 1)
    assert found["not_streamed"] > 50
    assert "equal to the bit: 0.0000%" in userrep(*command).out


def test_a_space_reaches_its_consumers_by_the_command_line_without_spark(
    userrep: Userrep, no_spark: None, tmp_path: Path
) -> None:
    config = config_file(tmp_path)

    def told(command: str, *more: str, code: int = 0) -> Any:
        """Run a command both ways; return what it says as JSON, or its faults."""
        answer = userrep(*command.split(), *more, "--config", config, "--json")
        assert answer.code == code, answer.err
        return answer.faults if code else json.loads(answer.out)

    tables = Tables(None, root=str(tmp_path / "root"))
    for space_id in ("s1", "s2"):
        add_candidate(tables, space_id=space_id, lineage_id="l", trained_until=date(2024, 5, 1), content_hash="x")
    assert told("spaces promote s1", code=2)[0].startswith("space s1 is candidate; only a ready space can serve.")
    for space_id in ("s1", "s2"):
        mark_ready(tables, find_space(tables, space_id))
    told("spaces promote s1")
    told("consumers register ads", "--owner", "team ads")
    told("consumers register mail", "--owner", "team mail", "--pin", "s1")
    told("consumers register search", "--owner", "team search")
    told("consumers ready search s2")
    assert told("consumers register ads", "--owner", "me", code=2) == [
        "consumer ads belongs to team ads; choose another name, or ask them to remove it."
    ]
    planned = told("spaces promote s2 --dry-run")
    names = {what: [c["name"] for c in planned[what]] for what in ("moves", "blocks", "pinned")}
    assert names == {"moves": ["search"], "blocks": ["ads"], "pinned": ["mail"]}
    assert (planned["serving"], planned["space_id"], planned["would_serve"]) == ("s1", "s2", False)
    for_people = userrep("spaces", "promote", "s2", "--dry-run", "--config", config).out.splitlines()
    assert for_people == [
        "space s2 would not serve; now: s1",
        "would move: search",
        "block it, not ready yet: ads",
        "stay pinned: mail (s1)",
    ]
    refused = told("spaces promote s2", code=3)
    assert refused[0] == "space s2 is not promoted: a consumer that follows is not ready for it; nothing has changed."
    assert "`userrep consumers ready ads s2` once" in refused[1]
    told("consumers ready ads s2")
    assert told("spaces promote s2 --dry-run")["would_serve"]
    assert [space["state"] for space in told("spaces list")["spaces"]] == ["serving", "ready"]
    told("spaces promote s2")
    uses = {c["name"]: (c["space_id"], c["follows"]) for c in told("consumers list")["consumers"]}
    assert uses == {"ads": ("s2", True), "mail": ("s1", False), "search": ("s2", True)}
    assert told("spaces rollback") == {"serving": "s1"}
    told("spaces promote s2")
    assert "consumer mail (owner team mail) is pinned to it" in told("spaces retire s1", code=2)[0]
    told("consumers pin mail serving")
    told("spaces retire s1")
    assert told("consumers pin mail s1", code=2) == ["space s1 is retired; spaces that can be used: s2."]
    assert told("spaces rollback", code=2) == ["rollback: no other space has served before."]
    told("consumers remove mail")
    listed = userrep("consumers", "list", "--config", config).out.splitlines()
    assert [line.split()[:5] for line in listed[1:]] == [
        ["ads", "team", "ads", "serving", "(s2)"],
        ["search", "team", "search", "serving", "(s2)"],
    ]
    assert [space["in_use"] for space in told("spaces list")["spaces"]] == [None, "serving"]


def test_a_job_tells_what_it_did_as_a_table_or_as_json(
    userrep: Userrep, spark: SparkSession, empty_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(pipeline: Pipeline) -> None:
        with pipeline.runs.stage("embed_users") as run:
            run.num_rows, run.reason = 1200, "2 snapshots"

    monkeypatch.setitem(JOBS, "embed_users", job)
    command = ("run", "embed_users", "--config", empty_root, "--as-of", "2024-05-03")
    told = userrep("--run-id", "nightly-3", *command, "--json")
    assert (told.code, len(told.out.splitlines())) == (0, 1)
    result = json.loads(told.out)
    assert (result["as_of"], result["run_id"]) == ("2024-05-03", "nightly-3")
    (stage,) = (stage for stage in result["stages"] if stage["stage"] == "embed_users")
    assert (stage["outcome"], stage["num_rows"], stage["reason"]) == ("done", 1200, "2 snapshots")
    head, *_, row = userrep(*command).out.splitlines()
    assert head.split() == ["stage", "outcome", "rows", "seconds", "why"]
    assert row.split()[:3] == ["embed_users", "done", "1,200"]
    assert row.endswith("2 snapshots")
    state = json.loads(userrep("status", "--config", empty_root, "--json").out)
    assert ("embed_users", "done", 1200) in [(run["stage"], run["outcome"], run["num_rows"]) for run in state["runs"]]


@pytest.mark.parametrize(
    ("what", "built"),
    [
        ("features", ["build_activity_tiles", "train_item_vectors", "build_user_features"]),
        ("item-vectors", ["build_activity_tiles", "train_item_vectors"]),
    ],
)
def test_an_export_builds_what_is_missing_first_and_needs_no_space(
    userrep: Userrep,
    spark: SparkSession,
    empty_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    built: list[str],
) -> None:
    called: list[str] = []
    for stage in ("build_activity_tiles", "train_item_vectors", "build_user_features"):
        monkeypatch.setattr(Pipeline, stage, lambda *_, stage=stage: called.append(stage))
    monkeypatch.setitem(EXPORTS, what, lambda *_: {"num_rows": 5, "sha256": {}})
    out = tmp_path / "out"
    answer = userrep("export", what, "--config", empty_root, "--as-of", "2024-05-03", "--out", out)
    assert (answer.code, answer.out) == (0, f"{what} of 2024-05-03: 5 rows in {out}\n")
    assert called == built
