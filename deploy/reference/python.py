"""The reference page on Python: the public names of the package, from their signatures and docstrings."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import userrep
from deploy.reference.markdown import MADE, paragraphs
from userrep.client.embeddings import Embeddings

_BEGIN = """
The names on this page are stable: if a release renames or removes one of them, or one of their parameters, the earlier
form keeps working for one more release, and CHANGELOG.md names it. Everything else in the package may change in any
release.
"""
_SECTIONS = re.compile(r"^(Params|Parameters|Returns|Raises)\n-+\n", re.MULTILINE)


def python_page() -> list[str]:
    """Return the lines of the page: a section for each public name, ``open`` and what it returns first."""
    lines = ["# Python", "", MADE, *_BEGIN.rstrip().splitlines()]
    for name in sorted(userrep.__all__, key=lambda name: (name != "open", name.lower())):
        lines += _section(getattr(userrep, name), f"userrep.{name}")
        lines += _section(Embeddings, "Embeddings") if name == "open" else []
    return lines


def _section(of: Any, name: str) -> list[str]:
    """Return the section of a function, or of a class with its public methods."""
    signature = [] if of is Embeddings else ["", *_signature(of, name)]
    lines = ["", f"## {name}", *signature, "", *_text(of)]
    if inspect.isclass(of):
        for method, function in _methods(of):
            lines += ["", f"### {method}", "", *_signature(function, f".{method}"), "", *_text(function)]
    return lines


def _methods(of: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public methods that a class defines itself, in the order of its code."""
    for name, value in vars(of).items():
        function = getattr(of, name) if isinstance(value, classmethod) else value
        if not name.startswith("_") and inspect.isroutine(function):
            yield name, function


def _signature(of: Any, name: str) -> list[str]:
    """Return the call as an indented line: parameters and their defaults, without types."""
    parameters = [p.replace(annotation=p.empty) for p in inspect.signature(of).parameters.values() if p.name != "self"]
    return [f"    {name}{inspect.Signature(parameters)}"]


def _text(of: Any) -> list[str]:
    """Return a docstring as Markdown: its paragraphs, then a list for each of its sections."""
    body, *sections = _SECTIONS.split(inspect.getdoc(of) or "")
    lines = paragraphs(body)
    for heading, text in zip(sections[::2], sections[1::2], strict=True):
        rows = [entry for entry in re.split(r"\n(?=\S)", text.strip()) if entry]
        if heading == "Returns":
            lines += ["", f"**Returns**: {' '.join(paragraphs(text))}"]
        else:
            lines += ["", f"**{heading}**", "", *(_entry(entry, heading == "Raises") for entry in rows)]
    return lines


def _entry(entry: str, raises: bool) -> str:
    """Return an entry of a section, ``name : meaning``, as an item of a list."""
    names, _, meaning = entry.partition("\n" if raises else " : ")
    return f"- `{names}`: {' '.join(paragraphs(inspect.cleandoc(meaning)))}"
