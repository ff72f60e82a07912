"""Help, wrong use, messages and exit codes of the command line. Nothing here needs Spark."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import userrep.workflows.evaluate  # noqa: F401  # commands import it when they run; then torch, when imported, starts a process
from tests.support.command_line import Answer, Userrep, config_file, with_tables
from userrep.cli.doctor import Finding
from userrep.errors import GateRefusedError, UsageError, UserrepError

pytestmark = pytest.mark.fast


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A valid configuration file."""
    return config_file(tmp_path)


COMMANDS = {
    ("demo",): "Generate a log, run every stage on it",
    ("pipeline",): "Run every batch stage for an as-of date; what is up to date is skipped, and said.",
    ("daily",): "Refresh the features, embed, gate and publish for one date; no training.",
    ("backfill",): "Build and publish snapshots of many dates, as if on time",
    ("run",): "Run one job of jobs/ by its name.",
    ("export",): "Write embeddings, features or item vectors of a date as Parquet",
    ("evaluate",): "Evaluate a space on the days after its training, next to baselines",
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
def test_help_describes_a_command_and_names_the_common_flags(
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
def test_no_command_prints_the_help(userrep: Userrep, no_spark: None, group: tuple[str, ...]) -> None:
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
        ("consumers register ads --owner X --pin s9 --config C", "space s9: not in the registry. Known spaces: no"),
        ("consumers ready ads S1 --config C", "space 'S1' is not a valid name: use 1 to 64 of a-z"),
        ("consumers ready ads s1 --config C", "consumer ads: not registered. Known consumers: none. Register it"),
        ("consumers pin ads serving --config C", "consumer ads: not registered. Known consumers: none."),
        ("consumers remove ads --config C", "consumer ads: not registered. Known consumers: none."),
        ("spaces promote s1 --dry-run --config C", "space s1: not in the registry. Known spaces: none."),
        ("export features --config C --as-of 2024-05-02 --out O --space ../x", "space '../x' is not a valid name"),
        ("evaluate --config C --out O --space ../x", "space '../x' is not a valid name"),
        ("evaluate --config C", "Missing option '--out'. `--help` shows what there is."),
        ("report --config C", "Missing option '--out'. `--help` shows what there is."),
        ("report --config C --out O", "the name does not end in .html. The figures go next to the page as JSON."),
        ("stream", "stream: --config is missing; name a configuration file."),
        ("stream --config C --new-query-id ../x", "query id '../x' is not a valid name: use 1 to 64 of a-z"),
        ("stream --config C --set stream.events.topic=t", "stream: events.topic needs kafka.bootstrap_servers"),
        ("stream verfy", "No such command 'verfy'. Did you mean 'verify'? `--help` shows what there is."),
        ("stream verify --as-of 2024-05-02", "Missing option '--config'. `--help` shows what there is."),
        ("stream verify --config C", "Missing option '--as-of'. `--help` shows what there is."),
        ("stream verify --config C --as-of today", "--as-of today: not a date; write YYYY-MM-DD."),
        ("evaluate --config C --out O", "no space is serving. Run `userrep pipeline` to train and promote the first "),
        ("--run-id ../x status --config C", "run id '../x' is not a valid name: use 1 to 64 of a-z"),
        ("run embed_users --config C --retrain", "run embed_users: --retrain is for train_item_vectors, build_user_f"),
    ],
)
def test_wrong_use_is_one_line_on_stderr_and_exit_code_2_before_spark_starts(
    userrep: Userrep, no_spark: None, config: Path, tmp_path: Path, arguments: str, said: str
) -> None:
    named = {"C": str(with_tables(config)), "O": str(tmp_path / "out")}
    answer = userrep(*(named.get(word, word) for word in arguments.split()))
    assert (answer.code, answer.out) == (2, "")
    assert len(answer.err.splitlines()) == 1
    assert said in answer.faults[0].replace(str(config), "C")
    assert not (tmp_path / "out").exists()


def test_with_json_logs_a_fault_is_an_object(userrep: Userrep, no_spark: None, monkeypatch: pytest.MonkeyPatch) -> None:
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
@pytest.mark.parametrize("command", ["pipeline --as-of 2024-05-02", "run build_activity_tiles", "spaces rollback"])
def test_a_root_that_cannot_be_written_to_is_refused_before_spark_starts(
    userrep: Userrep, no_spark: None, tmp_path: Path, parent: str, command: str
) -> None:
    (tmp_path / "a file").write_text("kept")
    root = f"{tmp_path / parent}/root"
    answer = userrep(*command.split(), "--config", config_file(tmp_path), "--set", f"root={root}")
    assert (answer.code, answer.out) == (2, "")
    assert len(answer.faults) == 1
    assert answer.faults[0].startswith(f"root {root}: not writable (")
    assert answer.faults[0].endswith("Name another one, or request write access.")


READING = {
    "status": "", "plan": "--users 9 --events-per-day 9", "report": "--out O.html", "spaces list": "",
    "spaces show s1": "", "spaces promote s1": "--dry-run", "consumers list": "", "evaluate": "--out O",
    "export embeddings": "--as-of 2024-05-02 --out O", "stream verify": "--as-of 2024-05-02", "forget": "",
    "consumers register ads": "--owner ads", "spaces diff s1 s2": "",
}  # fmt: skip


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("place", ["root", "a file/root"])
def test_a_root_without_tables_is_refused_and_not_made(
    userrep: Userrep, no_spark: None, config: Path, tmp_path: Path, command: str, place: str
) -> None:
    (tmp_path / "a file").write_text("kept")
    before, root = sorted(tmp_path.rglob("*")), tmp_path / place
    named = {"O": str(tmp_path / "out"), "O.html": str(tmp_path / "out.html")}
    options = [named.get(word, word) for word in READING[command].split()]
    answer = userrep(*command.split(), *options, "--config", config, "--set", f"root={root}")
    assert (answer.code, answer.out, len(answer.faults)) == (2, "", 1)
    is_writer = command.split(maxsplit=1)[0] in ("forget",) or "register" in command or "diff" in command
    if place != "root" and is_writer:
        assert answer.faults[0].startswith(f"root {root}: not writable (")
    else:
        assert answer.faults[0].startswith(f"no userrep tables at {root}: check the location, or build them with")
    assert sorted(tmp_path.rglob("*")) == before


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
        ("a file", "this is a file; name a folder."),
        ("a file/out", "a file is not a folder that this user may write to; name another one."),
        ("/dev/null/out", "/dev/null is not a folder that this user may write to; name another one."),
        ("nowhere://bucket/out", "cannot be read as a folder (Unrecognized filesystem type in URI"),
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
def test_any_error_is_one_line_and_an_exit_code(
    userrep: Userrep,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr("userrep.workflows.status.status", failing_with(error))
    answer = userrep("status", "--config", with_tables(config), "--json")
    assert answer == (code, "", f"userrep: {said}\n")


def test_a_full_disk_is_reported_with_its_cure_however_the_error_is_wrapped(
    userrep: Userrep, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="No space left") as full, open("/dev/full", "wb", buffering=0) as disk:
        disk.write(b"more")
    wrapped, shown = UserrepError("table registry is not readable."), UsageError(f"root: not writable ({full.value}).")
    wrapped.__cause__ = full.value
    for error in (full.value, wrapped, shown):
        monkeypatch.setattr("userrep.workflows.status.status", failing_with(error))
        answer = userrep("status", "--config", with_tables(config))
        assert (answer.code, answer.out) == (1, "")
        assert answer.err.startswith("userrep: a disk is full (No space left on device): ")
        assert answer.err.endswith("What was committed stays. Make room, then run the same command again.\n")


def test_debug_shows_the_traceback_and_keeps_the_exit_code(
    userrep: Userrep, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("userrep.workflows.status.status", failing_with(GateRefusedError("not published: no rows.")))
    answer = userrep("status", "--config", with_tables(config), "--debug")
    assert (answer.code, answer.out) == (3, "")
    assert answer.err.startswith("Traceback (most recent call last):")
    assert "in status\n" in answer.err
    assert answer.faults == ["not published: no rows."]


def test_the_doctor_prints_each_finding_and_fails_if_one_is_bad(
    userrep: Userrep, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Finding("java", True, "17"), Finding("root", False, "not writable", "Name another.")]
    monkeypatch.setattr("userrep.cli.doctor.findings", lambda config: iter(found))
    answer = userrep("doctor")
    assert (answer.code, answer.err) == (1, "")
    assert answer.out == "ok   java: 17\nFAIL root: not writable. Name another.\n"
    answer = userrep("doctor", "--json")
    assert (answer.code, answer.err) == (1, "")
    checks = json.loads(answer.out)["checks"]
    assert [(check["check"], check["ok"]) for check in checks] == [("java", True), ("root", False)]
    found.pop()
    assert userrep("doctor", "--json").code == 0
