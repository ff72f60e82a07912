"""Help, wrong use, messages and exit codes of the command line. Nothing here needs Spark."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import userrep.workflows.evaluate  # noqa: F401  # commands import it when they run; then torch, when imported, starts a process
from tests.support.command_line import Userrep, config_file, with_tables
from userrep import __version__
from userrep.cli import main as cli
from userrep.cli.check_result import CheckResult
from userrep.cli.main import app
from userrep.errors import GateRefusedError, LogIncompleteError, UsageError, UserrepError

pytestmark = pytest.mark.fast


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A valid configuration file."""
    return config_file(tmp_path)


COMMANDS = {
    ("init",): "Write a configuration for your event log.",
    ("inspect",): "Show what an event log contains.",
    ("validate",): "Check a configuration and its sources.",
    ("demo",): "Run all batch stages on a generated log.",
    ("pipeline",): "Run all batch stages for an as-of date. Stages that are up to date are skipped.",
    ("daily",): "Refresh, embed, gate and publish; no training.",
    ("nightly",): "Run `daily`, erasures, maintenance and retraining. Maintenance runs if",
    ("backfill",): "Build and publish snapshots of past dates.",
    ("run",): "Run one job of jobs/ by name.",
    ("export",): "Export embeddings, features or item vectors.",
    ("evaluate",): "Evaluate a space against baselines.",
    ("explain",): "Explain vectors, models on them, and segments.",
    ("explain", "space"): "Show which inputs can be read from the vectors.",
    ("explain", "model"): "Show what drives a linear or logistic model.",
    ("explain", "segments"): "Divide the users of a snapshot into segments.",
    ("stream",): "Refresh embeddings as events arrive.",
    ("stream", "verify"): "Compare streamed vectors with a snapshot.",
    ("forget",): "Erase users from all tables and exports. Also erases them from snapshots and the online store.",
    ("report",): "Write an HTML report.",
    ("check",): "Check freshness, runs, gates, drift and erasures. Exits with code 3 if",
    ("estimate",): "Estimate cost and storage at a given size.",
    ("status",): "Show tiles, spaces, snapshots and recent runs.",
    ("doctor",): "Check that this machine can run userrep.",
    ("spaces",): "Manage embedding spaces.",
    ("spaces", "list"): "List all spaces and their states.",
    ("spaces", "show"): "Show a space's manifest, metrics and snapshots.",
    ("spaces", "diff"): "Measure what consumers lose if NEW replaces OLD.",
    ("spaces", "promote"): "Make a ready space the serving space.",
    ("spaces", "rollback"): "Make the previously serving space serve again. No consumer blocks a rollback.",
    ("spaces", "retire"): "Retire a space permanently. Its tables are kept.",
    ("consumers",): "Manage the consumers of embeddings.",
    ("consumers", "list"): "List all consumers.",
    (
        "consumers",
        "register",
    ): "Register a consumer. The consumer follows the serving space, or is pinned to one with --pin.",
    ("consumers", "ready"): "Declare a consumer ready for a space.",
    ("consumers", "pin"): "`pin CONSUMER serving` makes it follow the serving space again.",
    ("consumers", "remove"): "Remove a consumer from the registry.",
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_describes_a_command_and_names_the_common_flags(
    userrep: Userrep, no_spark: None, command: tuple[str, ...]
) -> None:
    answer = userrep(*command, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert userrep(*command, "-h") == answer
    assert COMMANDS[command] in " ".join(answer.out.split())
    if command not in (("spaces",), ("consumers",), ("explain",)):
        flags = ("--json", "--debug", *(() if command == ("init",) else ("--set KEY.PATH=VALUE",)))
        assert all(flag in answer.out for flag in flags)


def listed(help_text: str, *headings: str) -> dict[str, str]:
    """Return the commands below these headings of a help text with their summaries."""
    sections = [section for section in help_text.split("\n\n") if section.split("\n")[0] in headings]
    lines = [line for section in sections for line in section.strip().split("\n")[1:]]
    return {name: summary.strip() for name, _, summary in (line.strip().partition(" ") for line in lines)}


def test_help_lists_all_commands_under_headings(userrep: Userrep, no_spark: None) -> None:
    answer = userrep("--help")
    assert answer.code == 0
    build, consume, operate = (listed(answer.out, heading) for heading in ("Build:", "Consume:", "Operate:"))
    assert {"init", "inspect", "validate", "demo", "pipeline", "daily", "backfill", "run", "stream"} == {*build}
    assert {"export", "audience", "evaluate", "explain", "spaces", "consumers"} == {*consume}
    assert {"nightly", "status", "check", "report", "doctor", "forget", "estimate"} == {*operate}
    hidden = {"plan"}
    assert {*build, *consume, *operate} == {*get_command(app).commands} - hidden  # type: ignore[attr-defined]
    assert max(map(len, answer.out.splitlines())) <= 80


@pytest.mark.parametrize("group", [(), ("spaces",), ("consumers",), ("explain",), ("stream",)])
def test_the_list_of_commands_has_a_whole_sentence_of_at_most_50_characters_for_each(
    userrep: Userrep, no_spark: None, group: tuple[str, ...]
) -> None:
    summaries = listed(userrep(*group, "--help").out, "Commands:", "Build:", "Consume:", "Operate:").values()
    assert summaries
    assert all(summary.endswith(".") and not summary.endswith("...") for summary in summaries)
    assert max(map(len, summaries)) <= 50


def test_the_version_is_printed(userrep: Userrep, no_spark: None) -> None:
    assert userrep("--version") == (0, f"userrep {__version__}\n", "")


def test_the_configuration_is_that_of_the_option_or_the_environment_or_the_working_directory(
    userrep: Userrep, no_spark: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("option", "environment", "here"):
        (tmp_path / name).mkdir()
        with_tables(config_file(tmp_path / name))
        (tmp_path / name / "userrep.yaml").write_text((tmp_path / name / "userrep.yaml").read_text() + f"{name}: 1\n")

    def read(*arguments: str) -> str:
        return userrep("status", *arguments).faults[0].partition(";")[0]

    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("USERREP_CONFIG", raising=False)
    assert read() == "userrep.yaml:12: unknown key here"
    assert userrep("doctor").faults[0].startswith("userrep.yaml:12: unknown key here")
    assert userrep("stream").faults[0].startswith("userrep.yaml:12: unknown key here")
    assert userrep("inspect").faults[0].startswith("userrep.yaml:12: unknown key here")
    assert userrep("validate").faults[0].startswith("userrep.yaml:12: unknown key here")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERREP_CONFIG", "~/environment/userrep.yaml")
    assert read() == f"{tmp_path}/environment/userrep.yaml:12: unknown key environment"
    assert read("-c", "${HOME}/option/userrep.yaml") == f"{tmp_path}/option/userrep.yaml:12: unknown key option"
    monkeypatch.setenv("USERREP_CONFIG", "")
    assert read() == "userrep.yaml:12: unknown key here"


@pytest.mark.parametrize("group", [(), ("spaces",), ("consumers",)])
def test_no_command_prints_the_help(userrep: Userrep, no_spark: None, group: tuple[str, ...]) -> None:
    answer = userrep(*group)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Usage: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("backfill --config C --from 2024-05-01", "backfill: needs either both --from and --to, or --stale."),
        (
            "backfill --config x.yaml --from 2024-05-01 --to x",
            "--to x: not a date. Use YYYY-MM-DD, today or yes",
        ),
        ("pipline", "No such command 'pipline'. Did you mean 'pipeline'? Try `--help`."),
        ("spaces lst", "No such command 'lst'. Did you mean 'list'? Try `--help`."),
        (
            "status",
            "no configuration: neither --config nor USERREP_CONFIG is set, and ./userrep.yaml does not exist. Name",
        ),
        ("pipeline --config C", "Missing option '--as-of'. Try `--help`."),
        ("export embeddings --config C --as-of 2024-05-02", "Missing option '--out'. Try `--help`."),
        ("status --config C --verbose", "No such option: --verbose. Try `--help`."),
        ("status --config C more", "Got unexpected extra argument(s) (more). Try `--help`."),
        ("pipeline --config C --as-of 2024-02-30", "--as-of 2024-02-30: not a date. Use YYYY-MM-DD, today or"),
        ("run build_activity_tiles --config C --as-of now", "--as-of now: not a date. Use YYYY-MM-DD, today or"),
        ("export features --config C --as-of 1.5.2024 --out O", "--as-of 1.5.2024: not a date. Use YYYY-MM-DD, today"),
        (
            "status --config nowhere.yaml",
            "nowhere.yaml: No such file or directory. Name a configuration file with --co",
        ),
        ("status --config ${USERREP_ABSENT}/c.yaml", "${USERREP_ABSENT}/c.yaml: must only use environment variables "),
        (
            "evaluate --config C --out ~absent-user/out",
            "~absent-user/out: must not begin with ~absent-user, which is not",
        ),
        (
            "status --config C --set modle.latent_dim=3",
            "--set modle.latent_dim: unknown key modle; did you mean model?",
        ),
        ("demo --set model.latent_dim=wide", "--set model.latent_dim: must be a whole number, got 'wide'."),
        ("doctor --config C --set windows_days=[]", "--set windows_days: must not be empty, got []."),
        ("doctor --as consumer", "--as consumer: no root to check. Pass --open ROOT or --config FILE."),
        ("doctor --open build/demo", "--open is for --as consumer. Name a producer's root with --config FILE"),
        (
            "status --config C --set latent_dim",
            "--set latent_dim: not of the form key.path=value. Example: --set model.latent",
        ),
        (
            "run build_tiles --config C",
            "run build_tiles: unknown; did you mean build_activity_tiles? Choose one of: build_activity_tiles, train",
        ),
        (
            "export vectors --config C --as-of 2024-05-02 --out O",
            "export vectors: unknown; did you mean item-vectors? Choose one of: embeddings, features, item-vectors.",
        ),
        ("run", "Missing argument 'JOB'. Try `--help`."),
        ("export", "Missing argument 'WHAT'. Try `--help`."),
        ("doctor --as user", "Invalid value for '--as': 'user' is not one of 'producer', 'consumer'. Try `--help`."),
        ("spaces show ../x --config C", "space '../x' is not a valid name: use 1 to 64 of a-z"),
        ("spaces promote S1 --config C", "space 'S1' is not a valid name: use 1 to 64 of a-z"),
        ("spaces retire a'b --config C", "is not a valid name: use 1 to 64 of a-z"),
        ("consumers register A/B --owner X --config C", "consumer 'A/B' is not a valid name: use 1 to 64 of a-z"),
        ("consumers register ads --config C", "Missing option '--owner'. Try `--help`."),
        ("consumers register ads --owner X --pin .. --config C", "space '..' is not a valid name"),
        ("consumers register ads --owner X --pin s9 --config C", "space s9: not in the registry. Known spaces: no"),
        ("consumers ready ads S1 --config C", "space 'S1' is not a valid name: use 1 to 64 of a-z"),
        ("consumers ready ads s1 --config C", "consumer ads: not registered. Known consumers: none. Register it"),
        ("consumers pin ads serving --config C", "consumer ads: not registered. Known consumers: none."),
        ("consumers remove ads --config C", "consumer ads: not registered. Known consumers: none."),
        ("spaces promote s1 --dry-run --config C", "space s1: not in the registry. Known spaces: none."),
        ("export features --config C --as-of 2024-05-02 --out O --space ../x", "space '../x' is not a valid name"),
        ("evaluate --config C --out O --space ../x", "space '../x' is not a valid name"),
        ("evaluate --config C", "Missing option '--out'. Try `--help`."),
        ("report --config C", "Missing option '--out'. Try `--help`."),
        ("report --config C --out O", "the name does not end in .html. The figures go next to the page as JSON."),
        (
            "stream",
            "no configuration: neither --config nor USERREP_CONFIG is set, and ./userrep.yaml does not exist. Name",
        ),
        ("stream --config C --new-query-id ../x", "query id '../x' is not a valid name: use 1 to 64 of a-z"),
        ("stream --config C --set stream.events.topic=t", "stream: events.topic needs kafka.bootstrap_servers"),
        ("stream verfy", "No such command 'verfy'. Did you mean 'verify'? Try `--help`."),
        (
            "stream verify --as-of 2024-05-02",
            "no configuration: neither --config nor USERREP_CONFIG is set, and ./userrep.yaml does not exist. Name",
        ),
        ("stream verify --config C", "Missing option '--as-of'. Try `--help`."),
        ("stream verify --config C --as-of now", "--as-of now: not a date. Use YYYY-MM-DD, today or"),
        (
            "evaluate --config C --out O",
            "no space is serving. Run `userrep pipeline --as-of DATE --config C` to train and promote the first ",
        ),
        ("--run-id ../x status --config C", "run id '../x' is not a valid name: use 1 to 64 of a-z"),
        ("run embed_users --config C --retrain", "run embed_users: --retrain applies only to train_item_vectors, bui"),
    ],
)
def test_wrong_use_is_one_line_on_stderr_and_exit_code_2_before_spark_starts(
    userrep: Userrep,
    no_spark: None,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    said: str,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    named = {"C": str(with_tables(config)), "O": str(tmp_path / "out")}
    answer = userrep(*(named.get(word, word) for word in arguments.split()))
    assert (answer.code, answer.out) == (2, "")
    assert len(answer.err.splitlines()) == 1
    assert said in answer.faults[0].replace(str(config), "C")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", ["status --config nowhere.yaml", "spaces lst", "status --verbose", "validate --config nowhere.yaml"]
)
def test_with_json_an_error_is_one_object_on_stdout_and_the_same_lines_on_stderr(
    userrep: Userrep, no_spark: None, arguments: str
) -> None:
    without, answer = userrep(*arguments.split()), userrep(*arguments.split(), "--json")
    assert (without.code, without.out, without.err) == (2, "", answer.err)
    found = json.loads(answer.out)
    assert found["faults"] == answer.faults
    assert answer.out.count("\n") == 1


def test_a_shell_completes_commands_choices_and_options_without_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def completed(words: str) -> list[str]:
        variables = {"_USERREP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        return CliRunner().invoke(app, [], prog_name="userrep", env=variables).stdout.split()

    assert completed("userrep spaces pro") == ["promote"]
    assert completed("userrep run build_u") == ["build_user_features"]
    assert completed("userrep export ") == ["embeddings", "features", "item-vectors"]
    assert completed("userrep daily --as-o") == ["--as-of"]


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
    lines = config.read_text().splitlines()
    expected = {f"{config}:{lines.index(line) + 1}" for line in ("modle: {}", "training:", "- 0")}
    assert {line.split(": ")[1] for line in answer.err.splitlines()} == expected


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
    "status": "", "check": "", "estimate": "--users 9 --events-per-day 9", "report": "--out O.html", "spaces list": "",
    "spaces show s1": "", "spaces promote s1": "--dry-run", "consumers list": "", "evaluate": "--out O",
    "export embeddings": "--as-of 2024-05-02 --out O", "stream verify": "--as-of 2024-05-02", "forget": "",
    "consumers register ads": "--owner ads", "spaces diff s1 s2": "", "nightly": "",
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
    is_writer = command.split(maxsplit=1)[0] in ("forget", "nightly") or "register" in command or "diff" in command
    if place != "root" and is_writer:
        assert answer.faults[0].startswith(f"root {root}: not writable (")
    else:
        assert answer.faults[0].startswith(f"no userrep tables at {root}: check the location, or build them with")
    assert sorted(tmp_path.rglob("*")) == before


def failing_with(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (GateRefusedError("not published: too few rows."), 3, "not published: too few rows."),
        (LogIncompleteError("the log is not complete yet."), 4, "the log is not complete yet."),
        (
            RuntimeError("An error occurred while calling o58.sql.\n: java.io.IOException: disk full\n\tat X"),
            1,
            "RuntimeError: java.io.IOException: disk full. Committed work is kept. Use --debug for a traceback.",
        ),
        (ValueError(), 1, "ValueError: no message. Committed work is kept. Use --debug for a traceback."),
        (KeyboardInterrupt(), 1, "interrupted. Committed work is kept. Run the same command again to continue."),
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
    assert (answer.code, answer.err) == (code, f"userrep: {said}\n")
    assert json.loads(answer.out) == {"exit_code": code, "faults": [said]}


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
        assert answer.err.endswith("Committed work is kept. Make room, then run the same command again.\n")


def test_debug_shows_the_traceback_and_keeps_the_exit_code(
    userrep: Userrep, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("userrep.workflows.status.status", failing_with(GateRefusedError("not published: no rows.")))
    answer = userrep("status", "--config", with_tables(config), "--debug")
    assert (answer.code, answer.out) == (3, "")
    assert answer.err.startswith("Traceback (most recent call last):")
    assert "in status\n" in answer.err
    assert answer.faults == ["not published: no rows."]


def test_the_doctor_prints_each_result_and_fails_if_a_check_failed(
    userrep: Userrep, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [CheckResult("java", True, "17"), CheckResult("root", False, "not writable", "Name another.")]
    monkeypatch.setattr("userrep.cli.doctor.doctor_checks", lambda config: iter(found))
    answer = userrep("doctor")
    assert (answer.code, answer.err) == (1, "")
    assert answer.out == "ok   java: 17\nFAIL root: not writable. Name another.\n"
    answer = userrep("doctor", "--json")
    assert (answer.code, answer.err) == (1, "")
    checks = json.loads(answer.out)["checks"]
    assert [(check["check"], check["ok"]) for check in checks] == [("java", True), ("root", False)]
    found.pop()
    assert userrep("doctor", "--json").code == 0


def test_sigterm_ends_a_command_as_an_exception_does(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[str] = []

    def work(_: object) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            released.append("lease")
        return 0

    monkeypatch.setattr(cli, "_exit_code", work)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, released) == (143, ["lease"])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_command_that_sigterm_ends_reports_it(userrep: Userrep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("userrep.cli.doctor.doctor_checks", lambda config: os.kill(os.getpid(), signal.SIGTERM))
    line = "terminated. Committed work is kept. Run the same command again to continue."
    answer = userrep("doctor")
    assert (answer.code, answer.out, answer.faults) == (143, "", [line])
    assert json.loads(userrep("doctor", "--json").out) == {"exit_code": 143, "faults": [line]}
