"""``userrep report``: the state of a deployment as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from userrep.cli.options import (
    AsJson,
    ConfigFile,
    Debug,
    Overrides,
    checked_space_id,
    expanded,
    print_result,
    tables_of,
)
from userrep.config import load_config


def report(
    config_file: ConfigFile,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.html", help="Output file. Also writes FILE.json.", callback=expanded)
    ],
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            metavar="ID",
            help="Space for the sections training, drift, evaluation and map. Default: the serving space.",
            callback=checked_space_id,
        ),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write an HTML report.

    One page with health, runs, data, drift, quality and cost. It needs no network or scripts and contains no user ids.
    An existing report is overwritten; any other file is refused. Reads ledgers, and a sample of 2,000 users of the
    newest snapshot.
    """
    config = load_config(config_file, overrides or [])
    from userrep.report.file import check_out, twin_of, write_report
    from userrep.report.gather import check_reportable, gather
    from userrep.report.summary import summarised
    from userrep.workflows.status import status

    check_out(out)
    tables = tables_of(config)
    subject = check_reportable(tables, space, str(config_file))
    facts = gather(tables, config, subject, named=str(config_file), state=status(tables, config))
    summary = summarised(facts)
    figures = write_report(out, facts, summary)
    lines = [summary.headline, *(f"{finding.level}: {finding.what} {finding.cure}" for finding in summary.findings)]
    print_result(figures, [*lines, f"report: {out}, figures: {twin_of(out)}"], as_json=as_json)
