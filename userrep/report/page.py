"""A report as one HTML page: no script, no request, everything escaped. A pure function of what the report knows."""

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from userrep.report import drawings, formats, listings, space_drawings
from userrep.report.facts import Facts
from userrep.report.findings import command
from userrep.report.log_days import gaps
from userrep.report.summary import Summary

MARK = '<meta name="generator" content="userrep report">'  # stands in page.html: what has it may be written over
_UNBROKEN = re.compile(r"(\d{4}-\d\d-\d\d(?: \d\d:\d\d)?(?: UTC)?|\bs\d{3}-[0-9a-f]{6}\b)")
_FOLDER = Path(__file__).parent


def page(facts: Facts, summary: Summary) -> str:
    """Write the page."""
    return _environment().get_template("page.html").render(
        facts=facts,
        summary=summary,
        draw=drawings,
        draw_space=space_drawings,
        listings=listings,
        gaps=gaps(facts.log.days),
        command=lambda words, more="": coded(command(facts, words, more)),
    )  # fmt: skip


def coded(text: str) -> Markup:
    """Escape a text; what stands between backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one that is not closed is a sign like others
        parts[-2:] = [f"{parts[-2]}`{parts[-1]}"]
    return Markup("").join(Markup("<code>{}</code>").format(of) if k % 2 else _prose(of) for k, of in enumerate(parts))


def _prose(text: str) -> Markup:
    """Escape a text; dates, times and ids of spaces are not broken at the line's end."""
    parts = _UNBROKEN.split(text)
    return Markup("").join(Markup('<span class="nb">{}</span>').format(of) if k % 2 else escape(of)
                           for k, of in enumerate(parts))  # fmt: skip


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["coded"] = coded
    for name in ("count", "day", "figure", "seconds", "share", "size", "when", "plural", "core_time"):
        environment.filters[name] = getattr(formats, name)
    return environment
