"""Renders a report as one HTML page without scripts or requests. All values are escaped."""

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

MARK = '<meta name="generator" content="userrep report">'  # in page.html; a file with it may be overwritten
_UNBROKEN = re.compile(r"(\d{4}-\d\d-\d\d(?: \d\d:\d\d)?(?: UTC)?|\bs\d{3}-[0-9a-f]{6}\b)")
_FOLDER = Path(__file__).parent


def page(facts: Facts, summary: Summary) -> str:
    """Render the page. The result depends only on the arguments."""
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
    """Escape a text and mark up what is between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # the last backtick is unpaired, so it is an ordinary character
        parts[-2:] = [f"{parts[-2]}`{parts[-1]}"]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if k % 2 else _prose(part) for k, part in enumerate(parts)
    )


def _prose(text: str) -> Markup:
    """Escape a text and prevent line breaks within dates, times and space ids."""
    parts = _UNBROKEN.split(text)
    return Markup("").join(
        Markup('<span class="nb">{}</span>').format(part) if k % 2 else escape(part) for k, part in enumerate(parts)
    )


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
