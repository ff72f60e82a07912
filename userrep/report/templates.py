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
    environment.filters |= {name: getattr(formats, name) for name in _FORMATS} | {
        "mark_code": mark_code,
        "plural": plural,
    }
    return environment


def mark_code(text: str) -> Markup:
    """Escape a text and mark up what is between two backticks as code."""
    parts = enumerate(re.split("`([^`]*)`", text))
    return Markup("").join(Markup("<code>{}</code>").format(part) if k % 2 else _prose(part) for k, part in parts)


def _prose(text: str) -> Markup:
    """Escape a text and prevent line breaks within dates, times and space ids."""
    parts = enumerate(_UNBROKEN.split(text))
    return Markup("").join(Markup('<span class="nb">{}</span>').format(p) if k % 2 else escape(p) for k, p in parts)
