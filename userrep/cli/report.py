"""``userrep report`` and ``check``: the state of a deployment as an HTML page, and as an exit code for monitors."""

from pathlib import Path
from typing import Annotated

import typer

from userrep.cli.options import ConfigFile, Output, command, expanded, path_option, space_option, tables_of
from userrep.config import Config


@command
def report(
    config: Config,
    config_file: ConfigFile,
    out: Annotated[Path, path_option("Output file. Also writes FILE.json.", "FILE.html")],
    space: Annotated[
        str | None,
        space_option("Space for training, drift, evaluation, explanations and the map. Default: the serving space."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="Model to explain, as in `explain model`. Repeatable.")
    ] = None,
) -> Output:
    """Write an HTML report.

    One page with health, runs, data, drift, quality and cost. It needs no network or scripts and contains no user ids.
    An existing report is overwritten; any other file is refused. Reads ledgers, and a sample of 5,000 users of the
    newest snapshot.
    """
    from userrep.report.file import check_report_path, twin_of, write_report
    from userrep.report.gather import gather, reported_space
    from userrep.report.state import read_state
    from userrep.report.summary import summarised

    check_report_path(out)
    tables = tables_of(config)
    state = read_state(tables, config)
    subject = reported_space(state, space, str(config_file))
    facts = gather(state, tables, config, subject, named=str(config_file), models=[*map(expanded, model or [])])
    summary = summarised(facts)
    figures = write_report(out, facts, summary)
    lines = [summary.headline, *(f"{finding.level}: {finding.what} {finding.cure}" for finding in summary.findings)]
    return Output(figures, [*lines, f"report: {out}, figures: {twin_of(out)}"])


@command
def check(config: Config, config_file: ConfigFile) -> Output:
    """Check freshness, runs, gates, drift and erasures.

    Exits with code 3 if there is a problem, and with 0 if there are only warnings. Prints one line per problem or
    warning, and the checks that could not run. Checks the age of the serving snapshot and of the log only if
    freshness.warn_after or freshness.error_after is set. The findings are those of `userrep report`. Reads ledgers
    only, and writes nothing but the metrics file and the messages that `alerts` configures. With a root, it does not
    start Spark.
    """
    from userrep.report.facts import BAD, NOUNS
    from userrep.report.gather import gather
    from userrep.report.state import read_state
    from userrep.report.summary import summarised
    from userrep.workflows.alerts import check_alerts, send

    check_alerts(config)
    tables = tables_of(config)
    state = read_state(tables, config)
    facts = gather(state, tables, config, state.registry.serving, named=str(config_file), sample=False)
    send(config, "check", state, facts)
    summary = summarised(facts)
    shown = [finding for finding in summary.findings if finding.level in NOUNS or finding.not_run]
    lines = [f"{NOUNS.get(finding.level, 'not run')}: {finding.what} {finding.cure}" for finding in shown]
    result = {"level": summary.level, "headline": summary.headline, "findings": summary.findings}
    return Output(result, [*lines, f"{summary.headline}."], exit_code=3 if summary.level == BAD else 0)
