"""``userrep init``, ``inspect`` and ``validate``."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml

from tests.support.builders import event, write_rows
from tests.support.command_line import Userrep
from userrep.config import load_config

pytestmark = pytest.mark.fast


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 300 days."""
    rows = [event(f"u{k % 9}", f"i{k % 5}", str(datetime(2024, 1, 1) + timedelta(days=k))) for k in range(300)]
    return write_rows(tmp_path / "events.parquet", rows)


def test_init_writes_to_stdout_or_to_a_new_file_which_validates(
    userrep: Userrep, no_spark: None, log: Path, tmp_path: Path
) -> None:
    shown = userrep("init", "--events", log)
    assert (shown.code, shown.err) == (0, "")
    file = tmp_path / "userrep.yaml"
    answer = userrep("init", "--events", log, "--out", file)
    assert (answer.code, file.read_text()) == (0, shown.out)
    assert f"userrep pipeline --config {file} --as-of 2024-10-27" in answer.out
    assert userrep("validate", "--config", file)[:2] == (0, "ok\n")
    assert json.loads(userrep("validate", "--config", file, "--json").out) == {
        "ok": True,
        "faults": [],
        "unchecked": [],
    }
    assert not (tmp_path / "userrep-root").exists()


def test_init_never_overwrites_a_file(userrep: Userrep, no_spark: None, log: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("kept")
    answer = userrep("init", "--events", log, "--out", file)
    assert answer.code == 2
    assert answer.faults == [f"--out {file}: already exists, and init never overwrites a file. Name another file."]
    assert file.read_text() == "kept"
    answer = userrep("init", "--events", log, "--out", tmp_path / "no" / "mine.yaml")
    assert answer.faults == [f"--out {tmp_path / 'no' / 'mine.yaml'}: its folder does not exist. Name another file."]
    answer = userrep("init", "--events", log, "--out", "/dev/full/x")
    assert (answer.code, len(answer.faults)) == (2, 1)


def test_init_names_the_root_after_the_file_and_writes_none_inside_the_log(
    userrep: Userrep, no_spark: None, log: Path, tmp_path: Path
) -> None:
    userrep("init", "--events", log, "--out", tmp_path / "shop.yaml")
    assert load_config(tmp_path / "shop.yaml").root == str(tmp_path / "shop-root")
    (tmp_path / "log" / "day").mkdir(parents=True)
    write_rows(tmp_path / "log" / "a.parquet", [event("u", "i", "2024-05-01")])
    answer = userrep("init", "--events", tmp_path / "log", "--out", tmp_path / "log" / "day" / "mine.yaml")
    assert (answer.code, [*(tmp_path / "log" / "day").iterdir()]) == (2, [])
    assert answer.faults[0].endswith(f"inside the log {tmp_path / 'log'}, as its root would be. Name another folder.")


def test_init_prints_to_stderr_what_to_fill_in(userrep: Userrep, no_spark: None, tmp_path: Path) -> None:
    write_rows(tmp_path / "log.parquet", [{"foo": 1}])
    answer = userrep("init", "--events", tmp_path / "log.parquet", "--out", tmp_path / "mine.yaml")
    assert answer.code == 0
    assert "events.columns.user_id: not found. Fill it in; columns: foo." in answer.err
    assert f"next: replace FILL_ME, then userrep validate --config {tmp_path / 'mine.yaml'}" in answer.out
    found = json.loads(userrep("init", "--events", tmp_path / "log.parquet", "--json").out)
    assert yaml.safe_load(found["config"])["events"]["columns"]["user_id"] == "FILL_ME"
    assert len(found["to_fill"]) == 3


def test_init_recommends_a_run_only_for_a_log_that_is_long_enough(
    userrep: Userrep, no_spark: None, tmp_path: Path
) -> None:
    write_rows(tmp_path / "log.parquet", [event(f"u{k}", "i", f"2024-05-{k + 1:02}") for k in range(20)])
    answer = userrep("init", "--events", tmp_path / "log.parquet", "--out", tmp_path / "my log.yaml")
    assert (answer.code, answer.err.count("\n")) == (0, 1)
    assert answer.out.splitlines()[1:] == [f"next: userrep validate --config '{tmp_path / 'my log.yaml'}'"]


def test_inspect_shows_the_log_of_a_configuration_or_of_a_path(
    userrep: Userrep, no_spark: None, log: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    userrep("init", "--events", log, "--out", file)
    answer = userrep("inspect", "--config", file)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == userrep("inspect", "--events", log).out
    assert "log: 300 days, 2024-01-01 to 2024-10-26; it fits windows_days: [7, 30, 180]" in answer.out
    answer = userrep("inspect", "--config", file, "--set", "windows_days=[365]", "--json")
    verdict = [finding["what"] for finding in json.loads(answer.out)["verdict"]]
    assert verdict[0] == "windows_days: 300 days of history, but a window of 365. Use [7, 30, 180]."


def test_inspect_takes_a_path_instead_of_the_default_configuration_and_paths_are_expanded(
    userrep: Userrep, no_spark: None, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_HOME", str(log.parent))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERREP_CONFIG", "~/mine.yaml")
    answer = userrep("init", "--events", "${LOG_HOME}/" + log.name, "--out", "~/mine.yaml")
    assert (answer.code, (tmp_path / "mine.yaml").exists()) == (0, True)
    assert userrep("validate") == (0, "ok\n", "")
    expected = userrep("inspect")
    assert expected.code == 0
    (tmp_path / "mine.yaml").write_text("windows: 3\n")
    assert userrep("inspect").code == 2
    assert userrep("inspect", "--events", "${LOG_HOME}/" + log.name) == expected


def test_inspect_refuses_a_log_whose_columns_it_cannot_guess(userrep: Userrep, no_spark: None, tmp_path: Path) -> None:
    write_rows(tmp_path / "log.parquet", [event("u", "i", "2024-05-01") | {"item_id": 1.5}])
    answer = userrep("inspect", "--events", tmp_path / "log.parquet")
    assert (answer.code, answer.out) == (2, "")
    assert answer.faults[0].startswith("events.columns.item_id: not found.")
    assert answer.faults[1] == "inspect: write a configuration with `userrep init`, and use --config."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "inspect",
            "no configuration: neither --config nor USERREP_CONFIG is set, and ./userrep.yaml does not exist. Name",
        ),
        ("inspect --config C --events E", "inspect: give either --config or --events."),
        ("inspect --events E --set windows_days=[7]", "inspect: --set changes a configuration; use it with --config."),
        ("init", "Missing option '--events'."),
        ("init --events nowhere", "events.path nowhere: does not exist."),
        ("validate --config nowhere.yaml", "nowhere.yaml: No such file or directory."),
    ],
)
def test_wrong_use_is_one_line(userrep: Userrep, no_spark: None, log: Path, arguments: str, said: str) -> None:
    answer = userrep(*(str(log) if word == "E" else word for word in arguments.split()))
    assert (answer.code, len(answer.faults)) == (2, 1)
    assert answer.faults[0].startswith(said)


def test_validate_lists_all_faults(userrep: Userrep, no_spark: None, log: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    userrep("init", "--events", log, "--out", file)
    wrong = ("--set", "events.columns.user_id=buyer", "--set", "training.as_ofs.until=2030-01-01")
    answer = userrep("validate", "--config", file, *wrong)
    assert (answer.code, answer.out) == (2, "")
    assert answer.faults[0] == "events.columns.user_id: no column 'buyer'; columns found: user_id, item_id, event_at."
    assert answer.faults[1].startswith("training.as_ofs.until 2030-01-01: after the log")
    answer = userrep("validate", "--config", file, *wrong, "--json")
    assert answer.code == 2
    assert json.loads(answer.out) == {"ok": False, "faults": answer.faults, "unchecked": []}
    far = ("--set", "events.path=s3a://no-such-bucket/log")
    assert userrep("validate", "--config", file, *far).out.splitlines() == [
        "ok", "not checked: columns of events.path s3a://no-such-bucket/log",
    ]  # fmt: skip
    answer = userrep("validate", "--config", file, "--set", "windows_days=[0]", "--set", "modle.x=1")
    assert (answer.code, len(answer.faults)) == (2, 2)
