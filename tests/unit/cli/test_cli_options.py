"""What the commands share: columns of text, results, dates, names and sessions."""

import inspect
import json
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated

import pytest
import typer
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from tests.support.builders import config_of
from tests.support.command_line import config_file
from userrep.cli.options import (
    Output,
    as_date,
    checked_consumer_name,
    checked_space_id,
    choice_argument,
    command,
    context_for_run,
    session_of,
    tables_of,
)
from userrep.config import Config
from userrep.errors import UsageError
from userrep.logs import in_columns
from userrep.store.file_tables import FileTables
from userrep.store.schemas import JOB_RUNS
from userrep.store.spark_tables import SparkTables

pytestmark = pytest.mark.fast


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return what Spark sessions were asked for with; none is started."""
    asked: list[object] = []
    monkeypatch.setattr("userrep.spark.session.get_session", lambda *given, **_: asked.append(given) or "a session")
    return asked


def test_columns_are_as_wide_as_their_widest_cell_and_numbers_end_at_one_place() -> None:
    rows = [["tiles", "1,200", "0.5", "2 days"], ["embed_users", "7", "1234.5", ""]]
    assert in_columns(["stage", "rows", "seconds", "why"], rows) == [
        "stage         rows  seconds  why",
        "tiles        1,200      0.5  2 days",
        "embed_users      7   1234.5",
    ]


def test_a_column_of_numbers_and_text_is_one_of_text() -> None:
    assert in_columns(["id", "value"], [["1", "n/a"], ["22", "7"], ["x", "10"]]) == [
        "id  value",
        "1   n/a",
        "22  7",
        "x   10",
    ]


def test_a_result_is_either_its_lines_or_one_json_object() -> None:
    app, shell = typer.Typer(), CliRunner()
    result = {"day": date(2024, 5, 1), "at": datetime(2024, 5, 1, 9, 30), "size": Decimal("1.5"), "no": None}

    @app.command()
    @command
    def show() -> Output:
        return Output(result, ["first", "second"])

    printed = shell.invoke(app, ["--json"]).stdout
    assert printed.count("\n") == 1
    assert json.loads(printed) == {"day": "2024-05-01", "at": "2024-05-01T09:30:00", "size": "1.5", "no": None}
    assert shell.invoke(app, []).stdout == "first\nsecond\n"


def test_an_argument_with_choices_names_the_nearest_one_and_all_and_a_shell_completes_it() -> None:
    app, shell = typer.Typer(rich_markup_mode=None), CliRunner()

    @app.command()
    def get(
        what: Annotated[str, choice_argument("WHAT", ("apples", "pears"), "get", elsewhere={"plums": "userrep pick"})],
    ) -> None:
        print(what)

    assert shell.invoke(app, ["pears"]).stdout == "pears\n"
    assert "WHAT <str>  One of apples, pears.  [required]" in shell.invoke(app, ["--help"]).stdout
    assert (
        str(shell.invoke(app, ["pear"]).exception)
        == "get pear: unknown; did you mean pears? Choose one of: apples, pears."
    )
    assert str(shell.invoke(app, ["x"]).exception) == "get x: unknown. Choose one of: apples, pears."
    assert str(shell.invoke(app, ["plums"]).exception) == "get plums: this job is the command `userrep pick`. Run that."
    assert "Missing argument 'WHAT'" in shell.invoke(app, []).stderr


@command
def adding(number: Annotated[int, typer.Argument()], config: Config, more: int = 0) -> Output:
    """Add to a number."""
    return Output({"sum": number + more, "root": config.root}, [f"{number} + {more}"], exit_code=3 if more else 0)


def test_a_command_gets_its_configuration_and_prints_what_it_returns(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(adding)
    shell, file = CliRunner(), str(config_file(tmp_path))
    answer = shell.invoke(app, ["4", "--config", file, "--set", "root=/r", "--json"])
    assert (answer.exit_code, json.loads(answer.stdout)) == (0, {"sum": 4, "root": "/r"})
    answer = shell.invoke(app, ["4", "-c", file, "--more", "2", "--debug"])
    assert (answer.exit_code, answer.stdout) == (3, "4 + 2\n")
    assert "Add to a number." in shell.invoke(app, ["--help"]).stdout


def test_a_command_has_only_the_common_options_that_it_needs() -> None:
    def options(run: Callable[..., Output | None]) -> list[str]:
        return list(inspect.signature(command(run)).parameters)

    def bare(more: int) -> None: ...
    def printing(as_json: bool, more: int) -> None: ...
    def loading(config: Config | None, config_file: Path) -> None: ...

    assert options(bare) == ["more", "as_json", "debug"]
    assert options(printing) == ["more", "as_json", "debug"]
    assert options(loading) == ["config_file", "overrides", "as_json", "debug"]
    assert options(adding.__wrapped__) == ["number", "more", "config_file", "overrides", "as_json", "debug"]  # type: ignore[attr-defined]


def test_a_date_is_read_and_anything_else_is_refused_by_the_name_of_the_option() -> None:
    assert as_date("2024-02-29") == date(2024, 2, 29)
    for text in ("2023-02-29", "29.02.2024", "2024-02-29T00:00:00", "20240229", "2024-W09-4", "", "now"):
        with pytest.raises(UsageError, match=rf"^--from {text}: not a date\. Use YYYY-MM-DD, today or yesterday\.$"):
            as_date(text, "--from")


def test_today_and_yesterday_are_days_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("userrep.config.values.utc_now", lambda: datetime(2024, 3, 1, 0, 1))
    assert (as_date("today"), as_date("yesterday")) == (date(2024, 3, 1), date(2024, 2, 29))


def test_names_from_the_command_line_are_checked_as_what_they_name() -> None:
    assert checked_space_id(None) is None
    assert (checked_space_id("s1"), checked_consumer_name("ads")) == ("s1", "ads")
    with pytest.raises(UsageError, match=r"space '\.\./x' is not a valid name"):
        checked_space_id("../x")
    with pytest.raises(UsageError, match="consumer 'Ads' is not a valid name"):
        checked_consumer_name("Ads")


def test_a_session_gets_the_configured_master_and_settings(tmp_path: Path, sessions: list[object]) -> None:
    done: list[int] = []
    session_of(config_of(tmp_path, spark={"master": "local[3]", "conf": {"a": 1}}), meanwhile=lambda: done.append(1))
    assert sessions == [("local[3]", {"a": "1"})]
    assert done == [1]
    assert not (tmp_path / "root").exists()


def test_a_root_without_tables_is_refused_before_a_session_is_asked_for(tmp_path: Path, sessions: list[object]) -> None:
    with pytest.raises(UsageError, match=rf"^no userrep tables at {tmp_path}/root: "):
        tables_of(config_of(tmp_path))
    assert sessions == []
    FileTables(None, str(tmp_path / "root")).create(JOB_RUNS)
    tables = tables_of(config_of(tmp_path))
    assert isinstance(tables, FileTables)
    assert sessions == []
    assert tables.spark is tables.spark
    assert sessions == [("local[*]", {})]


WRITING = [partial(session_of, meanwhile=lambda: None), context_for_run, partial(tables_of, writes=True)]


@pytest.mark.parametrize("start", WRITING)
def test_a_root_that_cannot_be_written_to_is_refused_before_a_session_is_asked_for(
    tmp_path: Path, sessions: list[object], start: Callable[[Config], object]
) -> None:
    (tmp_path / "root").write_text("a file")
    with pytest.raises(UsageError, match=rf"^root {tmp_path}/root: not writable"):
        start(config_of(tmp_path))
    assert sessions == []


def test_tables_of_a_catalog_ask_for_a_session_when_they_are_looked_at(
    tmp_path: Path, sessions: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("userrep.store.write_access.check_writable", sessions.append)
    tables = tables_of(config_of(tmp_path, root=None, catalog="main", schema="reps", artifacts="/models"), writes=True)
    assert isinstance(tables, SparkTables)
    assert sessions == ["/models"]
    _ = tables.spark
    assert sessions[1:] == [("local[*]", {})]


def test_a_run_checks_its_sources_before_it_reports_that_spark_starts(
    tmp_path: Path, sessions: list[object], lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)  # of another test of this process
    with pytest.raises(UsageError, match=r"events\.path .*: does not exist"):
        context_for_run(config_of(tmp_path))
    assert (sessions, lines) == ([], [])
    (tmp_path / "events").mkdir()
    context_for_run(config_of(tmp_path))
    assert sessions == [("local[*]", {})]
    assert lines == [f"starting Spark (local[*]); root {tmp_path / 'root'}"]
