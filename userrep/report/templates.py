"""The templates of the page and its charts, with their filters. All values are escaped."""

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from userrep.errors import plural
from userrep.report import formats

_FORMATS = ["count", "day", "figure", "seconds", "share", "signed", "size", "when", "core_hours", "core_time"]
_UNBROKEN = re.compile(r"(\d{4}-\d\d-\d\d(?: \d\d:\d\d)?(?: UTC)?|\bs\d{3}-[0-9a-f]{6}\b)")


@cache
def templates() -> Environment:
    """Return the environment of the templates in this folder, with filters that format values."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["coded"] = coded
    for name in _FORMATS:
        environment.filters[name] = getattr(formats, name)
    environment.filters["plural"] = plural
    return environment


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
