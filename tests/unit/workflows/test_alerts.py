"""Alerts of runs and of ``userrep check``, over a real HTTP server and a metrics file."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import userrep.report.gather  # noqa: F401  # the command imports it when it runs; then torch, when imported, starts a process
from tests.support.builders import config_of
from tests.support.command_line import Userrep, config_file
from tests.support.log_lines import messages_to
from tests.support.webhook_server import WebhookServer
from tests.unit.report.test_report_gather import a_run
from userrep.config import Config
from userrep.errors import AlreadyRunningError, GateRefusedError, LogIncompleteError, UsageError
from userrep.operations import webhook
from userrep.store.file_tables import FileTables
from userrep.store.schemas import JOB_RUNS, TILE_DAYS
from userrep.store.tables import Tables
from userrep.workflows.alerts import alert, alerting, check_alerts

pytestmark = pytest.mark.fast

AT = datetime(2024, 5, 25, 2)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookServer]:
    monkeypatch.setattr(webhook, "PAUSES", (0.0, 0.0))
    with WebhookServer() as server:
        monkeypatch.setenv("HOOK", f"{server.url}/S3CRET")
        yield server


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Tables of a log whose last day is long ago, and of a run that failed."""
    tables = FileTables(None, str(tmp_path / "root"))
    tables.add(JOB_RUNS, [a_run("embed_users", "r1", AT, "failed") | {"reason": "disk full"}])
    day = {"event_date": AT.date(), "revision": 1, "fingerprint": "f", "content": "c", "built_at": AT}
    tables.add(TILE_DAYS, [day | {"num_events": 9, "num_tiles": 9, "num_rejected": 0}])
    return tables


def settings(tmp_path: Path, **more: Any) -> Config:
    return config_of(tmp_path, alerts={"webhook": "${HOOK}", "prometheus_file": str(tmp_path / "u.prom")}, **more)


def end_run(tables: Tables, config: Config, error: Exception | None = None) -> list[str]:
    """End a daily run with an error or without one; return what it logs."""
    said: list[str] = []
    try:
        with messages_to(said.append), alerting(tables, config, "daily"):
            if error is not None:
                raise error
    except Exception as raised:
        assert raised is error  # noqa: PT017
    return said


def families(file: Path) -> dict[str, dict[str, float]]:
    found = text_string_to_metric_families(file.read_text())
    return {
        family.name: {"/".join(v for k, v in s.labels.items() if k != "root"): s.value for s in family.samples}
        for family in found
    }


@pytest.mark.parametrize(
    ("error", "outcome", "line"),
    [
        (GateRefusedError("drift: psi is past drift.fail"), "refused", "drift: psi is past drift.fail"),
        (ValueError("boom"), "failed", "ValueError: boom. Committed work is kept. Use --debug for a traceback."),
    ],
)
def test_a_failed_or_refused_run_is_posted_with_its_error_and_the_findings(
    server: WebhookServer, tables: Tables, tmp_path: Path, error: Exception, outcome: str, line: str
) -> None:
    config = settings(tmp_path, freshness={"error_after": "50h"})
    assert end_run(tables, config, error) == []
    (message,) = server.messages
    assert (message["command"], message["outcome"], message["level"], message["error"]) == (
        "daily",
        outcome,
        "bad",
        [line],
    )
    assert [finding["check"] for finding in message["findings"]] == ["freshness", "runs"]
    assert message["findings"][1]["what"] == "The last run of embed_users failed: disk full"
    assert message["text"].startswith(f"userrep daily on {tmp_path}/root: {outcome}\n{line}\n")
    assert families(tmp_path / "u.prom")["userrep_stage_failed"] == {"embed_users": 1.0}


def test_an_error_that_passes_several_places_is_posted_once(
    server: WebhookServer, tables: Tables, tmp_path: Path
) -> None:
    config, error = settings(tmp_path), ValueError("boom")
    end_run(tables, config, error)
    alert(tables, config, "retraining", error)
    assert [message["command"] for message in server.messages] == ["daily"]


@pytest.mark.parametrize("error", [None, LogIncompleteError("not complete yet"), AlreadyRunningError("running")])
def test_without_a_problem_nothing_is_posted_but_metrics_are_written(
    server: WebhookServer, tables: Tables, tmp_path: Path, error: Exception | None
) -> None:
    tables.add(JOB_RUNS, [a_run("embed_users", "r2", AT + timedelta(hours=1))])
    assert end_run(tables, settings(tmp_path), error) == []
    assert server.messages == []
    metrics = families(tmp_path / "u.prom")
    assert metrics["userrep_stage_duration_seconds"] == {"embed_users": 3.0}
    assert metrics["userrep_log_events"] == {"": 9.0}


def test_an_interrupted_run_ends_at_once_and_is_not_reported_as_done(
    server: WebhookServer, tables: Tables, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt), alerting(tables, settings(tmp_path), "daily"):
        raise KeyboardInterrupt
    assert (server.messages, (tmp_path / "u.prom").exists()) == ([], False)


def test_repeated_findings_have_the_same_id_whatever_their_age(
    server: WebhookServer, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path, freshness={"error_after": "50h"})
    for hours in (100, 101):
        monkeypatch.setattr("userrep.report.gather.utc_now", lambda hours=hours: AT + timedelta(hours=hours))
        end_run(tables, config)
    end_run(tables, config, ValueError("boom"))
    first, second, third = server.messages
    assert first["text"] != second["text"]
    assert first["id"] == second["id"] != third["id"]


def test_a_webhook_that_refuses_and_tables_that_cannot_be_read_fail_no_run(
    server: WebhookServer, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.statuses = [403]
    said = end_run(tables, settings(tmp_path), ValueError("boom"))
    assert said == ["alerts.webhook: the message was not accepted (HTTP status 403)"]
    monkeypatch.setattr("userrep.workflows.alerts.read_state", lambda *_: 1 // 0)
    said = end_run(tables, settings(tmp_path))
    assert said == ["alerts: not sent (ZeroDivisionError: integer division or modulo by zero)"]


def test_nothing_is_read_or_sent_unless_configured(tables: Tables, tmp_path: Path) -> None:
    assert end_run(tables, config_of(tmp_path), ValueError("boom")) == []
    check_alerts(config_of(tmp_path))


def test_faults_of_the_settings_are_found_before_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOK", raising=False)
    with pytest.raises(UsageError, match=r"alerts\.webhook: not set in the environment: HOOK"):
        check_alerts(settings(tmp_path))
    with pytest.raises(UsageError, match="there is no folder"):
        check_alerts(config_of(tmp_path, alerts={"prometheus_file": str(tmp_path / "none" / "u.prom")}))


def test_check_writes_and_posts_the_same_findings(
    userrep: Userrep, no_spark: None, server: WebhookServer, tables: Tables, tmp_path: Path
) -> None:
    alerts = {"webhook": "${HOOK}", "prometheus_file": str(tmp_path / "u.prom")}
    answer = userrep("check", "--config", config_file(tmp_path, alerts=alerts))
    assert (answer.code, answer.err) == (3, "")
    (message,) = server.messages
    assert (message["command"], message["outcome"]) == ("check", "done")
    assert [finding["what"] for finding in message["findings"]] == ["The last run of embed_users failed: disk full"]
    assert families(tmp_path / "u.prom")["userrep_findings"]["problem"] == 2.0  # and no space is serving
    server.statuses = [500] * 3
    answer = userrep("check", "--config", config_file(tmp_path, alerts=alerts))
    assert answer.err.endswith(" alerts.webhook: the message was not accepted (HTTP status 500)\n")
    assert "S3CRET" not in answer.out + answer.err
