"""The daily run, waiting erasure requests, due maintenance and retraining, each as a part with an outcome."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from userrep.config import Config
from userrep.erasure.exports import UNREACHED
from userrep.erasure.request_states import DONE as ERASED
from userrep.erasure.request_states import newest_requests
from userrep.erasure.requests import Erasure
from userrep.errors import explain, plural, shortened
from userrep.operations.maintenance import maintain_tables
from userrep.store.leases import held
from userrep.store.schemas import JOB_RUNS
from userrep.store.tables import Tables
from userrep.utc import utc_now
from userrep.workflows.alerts import alert
from userrep.workflows.daily import daily
from userrep.workflows.run_context import RunContext
from userrep.workflows.runs import DONE, SKIPPED, Runs

MAINTENANCE_DAYS = 7  # between two runs
_MAINTENANCE = "maintain_tables"
_OUTCOMES = {1: "failed", 2: "failed", 3: "refused", 4: "waiting"}


@dataclass(frozen=True)
class NightlyPart:
    """Result of one part. ``outcome``: done, skipped, failed, refused, or waiting for the log."""

    part: str
    outcome: str
    exit_code: int
    seconds: float
    reason: str


def nightly_parts(
    tables: Tables,
    config: Config,
    as_of: date,
    context: Callable[[], RunContext],
    report: Callable[[Exception], object],
) -> Iterator[NightlyPart]:
    """Run the parts of `userrep nightly`, each even if an earlier one failed, and yield the result of each.

    ``context`` checks root, sources and date, then starts Spark and opens a run. ``report`` reports the exception of a
    part.
    """
    parts: dict[str, Callable[[], tuple[str, str]]] = {
        "daily": lambda: _daily(context(), as_of),
        "forget": lambda: _forget(tables, config),
        "maintenance": lambda: _maintain(tables, config),
    }
    if config.retraining is not None:
        # last, because it takes longest
        parts["retraining"] = lambda: _retrain(tables, config, as_of, context)
    for name, work in parts.items():
        started = time.monotonic()
        try:
            outcome, reason = work()
            code = 0
        except Exception as error:  # of any kind: the other parts still run
            report(error)
            alert(tables, config, name, error)
            code, lines = explain(error)
            outcome, reason = _OUTCOMES[code], " ".join(lines)
        yield NightlyPart(name, outcome, code, round(time.monotonic() - started, 3), reason)


def _daily(work: RunContext, as_of: date) -> tuple[str, str]:
    spaces = daily(work, on_time=False)
    return DONE, f"snapshots of {as_of} for {', '.join(space.space_id for space in spaces)}"


def _forget(tables: Tables, config: Config) -> tuple[str, str]:
    requests = newest_requests(tables)
    receipt = Erasure(tables, config, []).run(now=False) if requests else None
    if receipt is None or receipt.get("is_idle"):
        interrupted = "a request was interrupted before it began. Repeat it with its file of users"
        is_erased = all(request.state == ERASED for request in requests)
        return SKIPPED, "no request is waiting" if is_erased else interrupted
    finished, erased = plural(receipt["num_done"], "request"), plural(sum(receipt["rows"].values()), "row")
    unreadable = [path for path, result in receipt["exports"].items() if result.startswith(UNREACHED)]
    exports = f"; erased users may still be in exports that were not reached: {shortened(unreadable)}"
    return DONE, f"{finished} finished, {erased} erased{exports if unreadable else ''}"


def _maintain(tables: Tables, config: Config) -> tuple[str, str]:
    last = last_maintenance(tables)
    due = last.date() + timedelta(days=MAINTENANCE_DAYS) if last else utc_now().date()
    if utc_now().date() < due:
        return SKIPPED, f"due on {due}"
    with held(tables, _MAINTENANCE), Runs(tables, config).stage(_MAINTENANCE) as run:
        run.outputs = maintain_tables(tables, config)
    return DONE, "old files and rows removed"


def _retrain(tables: Tables, config: Config, as_of: date, context: Callable[[], RunContext]) -> tuple[str, str]:
    from userrep.workflows.retraining import retrain_if_due  # imports LightGBM, which takes a second

    return retrain_if_due(tables, config, as_of, context)


def last_maintenance(tables: Tables) -> datetime | None:
    """Return the start of the newest maintenance that succeeded. Cost: one read of the ledger of runs."""
    runs = tables.ledger(JOB_RUNS, ("started_at",), stage=_MAINTENANCE, outcome=DONE)
    return max((run.started_at for run in runs), default=None)


def exit_code(parts: list[NightlyPart]) -> int:
    """Return the exit code of the part that failed: 1 or 4, after which a retry may help, before 2 and 3; or 0."""
    return min((part.exit_code for part in parts if part.exit_code), key=(1, 4, 2, 3).index, default=0)
