"""``userrep plan``: what a deployment of another size would cost, and what it saves."""

from typing import Annotated

import typer

from userrep.cli.options import AsJson, ConfigFile, Debug, Overrides, print_result, tables_of
from userrep.config import load_config
from userrep.logs import in_columns


def plan(
    config_file: ConfigFile,
    users: Annotated[int, typer.Option("--users", min=1, metavar="N", help="Users that are embedded every night.")],
    events_per_day: Annotated[int, typer.Option("--events-per-day", min=1, metavar="N", help="Rows of the log a day.")],
    consumers: Annotated[
        int, typer.Option("--consumers", min=1, metavar="K", help="Models that would else have features of their own.")
    ] = 5,
    log_days: Annotated[
        int | None, typer.Option("--log-days", min=1, metavar="DAYS", help="Tiles kept. Default: the longest window.")
    ] = None,
    retrain_days: Annotated[
        int, typer.Option("--retrain-days", min=1, metavar="DAYS", help="Days between trainings.")
    ] = 28,
    core_hour_price: Annotated[
        float, typer.Option("--core-hour-price", min=0, metavar="PRICE", help="Of a core for an hour.")
    ] = 0.05,
    gb_month_price: Annotated[
        float, typer.Option("--gb-month-price", min=0, metavar="PRICE", help="Of a gigabyte for a month.")
    ] = 0.023,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Estimate core hours, shuffles and storage at a size, from what runs here took; and those of K own pipelines.

    Rates are measured, by the runs that job_runs has: run the pipeline and a day of `userrep daily` on a sample first.
    A consumer's own pipeline is taken to build tiles and window features as this one does, every night, for itself.
    """
    config = load_config(config_file, overrides or [])
    from userrep.operations.plan import Size, plan_for

    kept = log_days or config.history_window or config.windows_days[-1]
    size = Size(users, events_per_day, consumers, kept, retrain_days, core_hour_price, gb_month_price)
    made = plan_for(tables_of(config), config, size)
    summary = made.summary()
    work = [[of.stage, of.grows_by, f"{of.core_hours:,.3f}", f"{of.shuffle_gb:,.3f}"] for of in made.work]
    stored = [[of.table, of.grows_by, f"{of.bytes_each:,.1f}", f"{of.gb:,.3f}"] for of in made.storage]
    saved = [
        [
            how,
            f"{summary[f'{name}_core_hours']:,.3f}",
            f"{summary[f'{name}_gb']:,.3f}",
            f"{summary[f'{name}_price']:,.2f}",
        ]
        for how, name in (("one embedding", "shared"), (f"{consumers} pipelines of their own", "own"))
    ]
    lines = [
        *in_columns(["stage, a night", "grows by", "core hours", "shuffled GB"], work), "",
        *in_columns(["table", "grows by", "bytes each", "GB"], stored), "",
        *in_columns(["compared", "core hours a night", "GB", "price a month"], saved),
        f"saved: {summary['saved_core_hours']:.0%} of core hours, {summary['saved_price']:.0%} of the price",
    ]  # fmt: skip
    found = {"work": [vars(of) for of in made.work], "storage": [vars(of) for of in made.storage], "summary": summary}
    print_result(found, lines, as_json=as_json)
