"""Renders a report as one HTML page without scripts or requests."""

from userrep.report import drawings, space_drawings, trends
from userrep.report.facts import Facts
from userrep.report.findings import command
from userrep.report.summary import Summary
from userrep.report.templates import coded, templates

MARK = '<meta name="generator" content="userrep report">'  # in page.html; a file with it may be overwritten


def page(facts: Facts, summary: Summary) -> str:
    """Render the page. The result depends only on the arguments."""
    return templates().get_template("page.html").render(
        facts=facts,
        summary=summary,
        draw=drawings,
        draw_space=space_drawings,
        trends=trends,
        command=lambda words, more="": coded(command(facts, words, more)),
    )  # fmt: skip
