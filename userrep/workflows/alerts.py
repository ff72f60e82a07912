"""Alerts of runs and of ``userrep check``: a metrics file and a webhook, both from the findings of the report."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from userrep.config import Config
from userrep.errors import AlreadyRunningError, LogIncompleteError, explain, in_one_line
from userrep.ids import short_hash
from userrep.logs import this_run_id
from userrep.operations.metrics_file import check_metrics_file, write_metrics
from userrep.operations.webhook import post, webhook_url
from userrep.report.facts import BAD, WARN, Facts
from userrep.report.findings import Finding, findings, headline
from userrep.report.gather import gather
from userrep.report.metrics import metrics_of
from userrep.report.state import RootState, read_state
from userrep.store.tables import Tables

logger = logging.getLogger(__name__)

_NO_FAILURE = (LogIncompleteError, AlreadyRunningError)  # the same command succeeds later
_REPORTED = "userrep_alerted"  # attribute of an exception
_POSTED = {("runs", BAD), ("snapshots", BAD), ("freshness", BAD), ("drift", BAD), ("drift", WARN)}  # check and level


def check_alerts(config: Config) -> None:
    """Check that alerts can be written and sent. Raises UsageError otherwise."""
    if config.alerts.prometheus_file:
        check_metrics_file(config.alerts.prometheus_file)
    if config.alerts.webhook:
        webhook_url(config.alerts.webhook)


@contextmanager
def alerting(tables: Tables, config: Config, command: str) -> Iterator[None]:
    """Report the outcome of a run in the block, and the state of the tables after it. Raises the errors of the block.

    A log that is not complete yet is no failure, and neither is another run of the same job. An interrupted run is not
    reported. A failure of the report is logged and does not fail the run. Cost: that of ``read_state``, and up to 19
    seconds for a webhook that does not answer.
    """
    try:
        yield
    except Exception as error:
        alert(tables, config, command, error)
        raise
    alert(tables, config, command, None)


def alert(tables: Tables, config: Config, command: str, error: Exception | None) -> None:
    """Report the outcome of a run and the state of the tables, as ``alerting`` does. An error is reported once."""
    if not (config.alerts.prometheus_file or config.alerts.webhook) or hasattr(error, _REPORTED):
        return
    if error is not None:
        setattr(error, _REPORTED, True)
    try:
        state = read_state(tables, config)
        # Findings name a configuration file, which a run does not know.
        facts = gather(state, tables, config, state.registry.serving, named="CONFIG", sample=False)
        send(config, command, state, facts, error=error)
    except Exception as fault:
        logger.warning(f"alerts: not sent ({in_one_line(fault)})")


def send(config: Config, command: str, state: RootState, facts: Facts, *, error: Exception | None = None) -> None:
    """Write the metrics file, and post a message if there is something to say. Failures are reported, not raised."""
    alerts, root, checks = config.alerts, config.root or f"{config.catalog}.{config.schema_}", findings(facts)
    if alerts.prometheus_file:
        try:
            write_metrics(alerts.prometheus_file, root, metrics_of(state, facts, checks))
        except OSError as fault:
            logger.warning(f"alerts.prometheus_file: not written ({in_one_line(fault)})")
    message = message_of(command, root, checks, error) if alerts.webhook else None
    if message and alerts.webhook and (reason := post(webhook_url(alerts.webhook), message)):
        logger.warning(f"alerts.webhook: the message was not accepted ({reason})")


def message_of(command: str, root: str, checks: Sequence[Finding], error: Exception | None) -> dict[str, Any] | None:
    """Return the message about a failed or refused run and the findings that are posted; None if there is none.

    ``id`` is the same for the same error and findings, whatever their age, so that a receiver can drop repetitions.
    """
    posted = [finding for finding in checks if (finding.check, finding.level) in _POSTED]
    code, lines = (0, []) if error is None or isinstance(error, _NO_FAILURE) else explain(error)
    if not posted and not code:
        return None
    outcome = {0: "done", 3: "refused"}.get(code, "failed")
    level = BAD if code or any(finding.level == BAD for finding in posted) else WARN
    content: dict[str, Any] = {"command": command, "root": root, "outcome": outcome, "level": level, "error": lines}
    content |= {"findings": [{k: v for k, v in asdict(f).items() if k != "not_run"} for f in posted]}
    text = [f"userrep {command} on {root}: {outcome if code else headline(posted)[1]}", *lines]
    text += [f"{finding.what} {finding.cure}" for finding in posted]
    subject = [root, lines, sorted({(finding.check, re.sub(r"\d+h", "", finding.what)) for finding in posted})]
    return {"id": short_hash(subject), "run_id": this_run_id(), "text": "\n".join(text), **content}
