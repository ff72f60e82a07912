"""``userrep report``: one page about it all."""

from pathlib import Path
from typing import Annotated

import typer

from userrep.cli.options import (
    AsJson,
    ConfigFile,
    Debug,
    Overrides,
    checked_space_id,
    print_result,
    tables_of,
)
from userrep.config import load_config


def report(
    config_file: ConfigFile,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.html", help="The page; FILE.json lies beside it.")],
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            metavar="ID",
            help="What training, drift, evaluation and map are about. Default: the space that serves.",
            callback=checked_space_id,
        ),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write one HTML page: is all well, what ran, on which data, how it moved, what it is worth, what it costs.

    It needs neither network nor scripts, and holds no user ids. An earlier report is written over, nothing else is.
    Reads ledgers, and of the newest snapshot a sample of 2,000 users.
    """
    config = load_config(config_file, overrides or [])
    from userrep.report.file import check_out, twin_of, write_report
    from userrep.report.gather import check_reportable, gather
    from userrep.report.summary import summarised
    from userrep.workflows import status as state

    check_out(out)
    tables = tables_of(config)
    found = check_reportable(tables, space, str(config_file))
    facts = gather(tables, config, found, named=str(config_file), state=state.status(tables, config))
    summary = summarised(facts)
    figures = write_report(out, facts, summary)
    lines = [summary.headline, *(f"{of.level}: {of.what} {of.cure}" for of in summary.findings)]
    print_result(figures, [*lines, f"report: {out}, figures: {twin_of(out)}"], as_json=as_json)
