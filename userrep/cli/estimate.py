"""``userrep estimate``: the estimated cost of a deployment, compared with separate feature pipelines."""

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from userrep.cli.options import Output, command, tables_of
from userrep.config import Config
from userrep.errors import UsageError
from userrep.logs import in_columns

if TYPE_CHECKING:
    from userrep.operations.cost_plan import CostPlan

_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


def _count_option(name: str, help: str) -> Any:  # noqa: A002  # as in Typer
    """Return an option for a number of at least 1, which may end in k, M or G."""

    def count(text: str) -> int:
        match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?)([kMG]?)", text)
        number = Decimal(match[1]) * _FACTORS[match[2]] if match else 0
        if number < 1 or number % 1:
            raise UsageError(f"{name} {text}: must be a whole number of at least 1, such as 50000, 50k, 2.5M or 1G.")
        return int(number)

    return typer.Option(name, metavar="N", parser=count, help=help)


@command
def estimate(
    config: Config,
    users: Annotated[int, _count_option("--users", "Users embedded daily, such as 50M.")],
    events_per_day: Annotated[int, _count_option("--events-per-day", "Log rows per day, such as 1.5G.")],
    consumers: Annotated[
        int, typer.Option(min=1, metavar="K", help="Models that would need features of their own.")
    ] = 5,
    log_days: Annotated[
        int | None,
        typer.Option(min=1, metavar="DAYS", help="Days of tiles. Default: longest window or history."),
    ] = None,
    retrain_days: Annotated[int, typer.Option(min=1, metavar="DAYS", help="Days between trainings.")] = 28,
    core_hour_price: Annotated[float, typer.Option(min=0, metavar="PRICE", help="Price of one core hour.")] = 0.05,
    gb_month_price: Annotated[
        float, typer.Option(min=0, metavar="PRICE", help="Price of one GB stored for a month.")
    ] = 0.023,
) -> Output:
    """Estimate cost and storage at a given size.

    Estimates core hours, shuffles and storage, and compares them with K consumers that each run their own pipeline.
    Rates are measured from the runs in job_runs, so run `userrep pipeline` and one `userrep daily` on a sample first.
    Each separate pipeline is assumed to build tiles and window features daily, as this one does. Embeddings are listed
    in each type of snapshots.storage; the total has the configured one.
    """
    from userrep.operations.cost_plan import Size, plan_for

    days_kept = log_days or config.history_window or config.windows_days[-1]
    size = Size(users, events_per_day, consumers, days_kept, retrain_days, core_hour_price, gb_month_price)
    estimate = plan_for(tables_of(config), config, size)
    return Output(vars(estimate), _lines(estimate, consumers))


def _lines(estimate: "CostPlan", consumers: int) -> list[str]:
    summary, figures = estimate.summary, {"core_hours": 3, "gb": 3, "price": 2}  # with their decimals
    work_rows = [[w.stage, w.grows_by, f"{w.core_hours:,.3f}", f"{w.shuffle_gb:,.3f}"] for w in estimate.work]
    storage_rows = [[s.table, s.grows_by, f"{s.bytes_each:,.1f}", f"{s.gb:,.3f}"] for s in estimate.storage]
    type_rows = [[name, f"{s.bytes_each:,.1f}", f"{s.gb:,.3f}"] for name, s in estimate.embeddings.items()]
    comparison_rows = [
        [setup, *(f"{summary[f'{name}_{figure}']:,.{digits}f}" for figure, digits in figures.items())]
        for setup, name in (("one embedding", "shared"), (f"{consumers} separate pipelines", "own"))
    ]
    return [
        *in_columns(["stage", "grows with", "core hours per day", "shuffled GB"], work_rows), "",
        *in_columns(["table", "grows with", "bytes each", "GB"], storage_rows), "",
        *([*in_columns(["user_embeddings as", "bytes each", "GB"], type_rows), ""] if type_rows else []),
        *in_columns(["setup", "core hours per day", "GB", "price per month"], comparison_rows),
        f"saved: {summary['saved_core_hours']:.0%} of core hours, {summary['saved_price']:.0%} of the price",
    ]  # fmt: skip
