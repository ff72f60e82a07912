"""``userrep check``: problems as lines and an exit code, for monitors."""

from dataclasses import asdict

import typer

from userrep.cli.options import AsJson, ConfigFile, Debug, Overrides, print_result, tables_of
from userrep.config import load_config


def check(config_file: ConfigFile, overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Check freshness, runs, gates, drift and erasures.

    Exits with code 3 if there is a problem, and with 0 if there are only warnings. Prints one line per problem or
    warning, and the checks that could not run. Checks the age of the serving snapshot and of the log only if
    freshness.warn_after or freshness.error_after is set. The findings are those of `userrep report`. Reads ledgers
    only and writes nothing. With a root, it does not start Spark.
    """
    config = load_config(config_file, overrides or [])
    from userrep.report.facts import BAD, WARN
    from userrep.report.findings import findings, headline
    from userrep.report.gather import gather
    from userrep.spaces.registry import read_registry
    from userrep.workflows.status import status

    tables = tables_of(config)
    state, serving = status(tables, config), read_registry(tables).serving
    found = findings(gather(tables, config, serving, named=str(config_file), state=state, sample=False))
    level, line = headline(found)
    names = {BAD: "problem", WARN: "warning"}
    shown = [
        (names.get(finding.level, "not run"), finding) for finding in found if finding.level in names or finding.not_run
    ]
    lines = [f"{name}: {finding.what} {finding.cure}" for name, finding in shown]
    result = {"level": level, "headline": line, "findings": [asdict(finding) for finding in found]}
    print_result(result, [*lines, f"{line}."], as_json=as_json)
    if level == BAD:
        raise typer.Exit(3)
