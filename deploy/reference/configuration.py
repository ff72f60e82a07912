"""The reference page on the configuration: a table of keys for each section in userrep/config/."""

import ast
import inspect
import types
from collections.abc import Iterator
from datetime import date, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ByteSize
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from deploy.reference.markdown import MADE, anchor, paragraphs, table
from userrep.config import Config, Section

_WORDS = {
    str: "text", int: "whole number", float: "number", bool: "true or false", date: "date", timedelta: "duration",
    ByteSize: "size", Any: "any value",
}  # fmt: skip
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_DERIVED = "item_vectors"  # its default depends on the items
_BEGIN = """
One YAML file; unknown keys are refused. Write durations as `6h`, `90m` or `14d`, sizes as `2GiB`, dates as
`YYYY-MM-DD`. A name has up to 64 characters of a-z, 0-9, _ and -. On the command line, `--set training.seed=18` takes
precedence over the file. [Your own data](../how-to/own-data.md) shows how to describe your log.
"""


class Place(NamedTuple):
    """A section at one place in the file. ``name``: its dotted key. ``defaults``: its values if the key is left out."""

    name: str
    section: type[Section]
    defaults: BaseModel | None

    @property
    def key(self) -> tuple[type[Section], str]:
        """Identifies the table: places with equal keys have the same one."""
        return self.section, repr(self.defaults)


def configuration_page() -> list[str]:
    """Return the lines of the page: a table for each section, at the first of its places."""
    first: dict[tuple[type[Section], str], Place] = {}
    for place in _walk(Place("", Config, None)):
        first.setdefault(place.key, place)
    lines = ["# Configuration", "", MADE, *_BEGIN.rstrip().splitlines()]
    for place in first.values():
        lines += ["", f"## {place.name or 'The whole file'}", "", *paragraphs(place.section.__doc__), ""]
        rows = []
        for name, field in place.section.model_fields.items():
            links = [first[inner.key].name for inner in _inner(place, name, field)]
            kind = ", ".join(f"[`{at}`](#{anchor(at)})" for at in links) or _kind(field.annotation, field.metadata)
            written = _default(place, name, field)
            rows.append([f"`{field.alias or name}`", kind, written, meaning(place.section, name)])
        lines += table(["key", "value", "default", "meaning"], rows)
    return lines


def meaning(section: type[Section], name: str) -> str:
    """Return the docstring below a field in its class, or in a base class."""
    if name == "kind":
        return "Chooses this kind."
    docstrings = [docs[name] for kind in section.__mro__ if name in (docs := _field_docs(kind))]
    if not docstrings:
        raise ValueError(f"{section.__name__}.{name}: say below it what it means, in a docstring.")
    return paragraphs(docstrings[0])[0]


@cache
def _field_docs(section: type) -> dict[str, str]:
    """Return the docstrings below the fields of a configuration class."""
    if not (isinstance(section, type) and issubclass(section, Section)):
        return {}
    tree = ast.parse(Path(inspect.getfile(section)).read_text(encoding="utf-8"))
    classes = {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}
    body = classes.get(section.__name__, [])
    return {
        field.target.id: text.value.value
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def _walk(place: Place) -> Iterator[Place]:
    yield place
    for name, field in place.section.model_fields.items():
        for inner in _inner(place, name, field):
            yield from _walk(inner)


def _inner(place: Place, name: str, field: FieldInfo) -> Iterator[Place]:
    """Yield the sections that a key may contain."""
    at = f"{place.name}.{field.alias or name}".lstrip(".")
    value = getattr(place.defaults, name) if place.defaults is not None else field.default
    for section, suffix in _sections(field.annotation, ""):
        yield Place(at + suffix, section, value if isinstance(value, section) else None)


def _sections(kind: Any, suffix: str) -> Iterator[tuple[type[Section], str]]:
    """Yield the sections within a type, with the suffix to append to the key."""
    if isinstance(kind, type) and issubclass(kind, Section):
        discriminator = kind.model_fields.get("kind")
        yield kind, suffix + (f", kind: {get_args(discriminator.annotation)[0]}" if discriminator else "")
        return
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is list:
        yield from _sections(arguments[0], f"{suffix}[]")
    elif origin is dict:
        yield from _sections(arguments[1], f"{suffix}.NAME")
    elif origin is Annotated:
        yield from _sections(arguments[0], suffix)
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            yield from _sections(argument, suffix)


def _kind(kind: Any, constraints: Any = ()) -> str:
    """Describe a type in words, with its bounds."""
    origin, arguments = get_origin(kind), get_args(kind)
    bounds = _bounds(constraints)
    if origin is Annotated:
        return _kind(arguments[0], [*arguments[1:], *constraints])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return ", ".join(_kind(argument, constraints) for argument in arguments if argument is not type(None))
    if origin is list:
        least = ", at least one" if "_at_least" in bounds else ""
        return f"list: {_kind(arguments[0])}{least}"
    if origin is dict:
        return f"mapping: {_kind(arguments[0])} to {_kind(arguments[1])}"
    checks = {getattr(getattr(constraint, "func", None), "__name__", "") for constraint in constraints}
    words = "name" if "_name" in checks else "time zone" if "_time_zone" in checks else _WORDS[kind]
    limits = " and ".join(bound for bound in bounds if bound != "_at_least")
    return f"{words} {limits}".rstrip()


def _bounds(constraints: Any) -> list[str]:
    bounds = []
    for constraint in constraints:
        if isinstance(constraint, FieldInfo):
            bounds += _bounds(constraint.metadata)
        limits = {sign: getattr(constraint, key, None) for key, sign in _SIGNS.items()}
        bounds += [f"{sign} {limit}" for sign, limit in limits.items() if limit is not None]
        bounds += ["_at_least"] if getattr(constraint, "min_length", None) else []
    return bounds


def _default(place: Place, name: str, field: FieldInfo) -> str:
    value = getattr(place.defaults, name) if place.defaults is not None else field.default
    if name == _DERIVED:
        return "see meaning"
    if value is PydanticUndefined:
        return "**required**"
    if isinstance(value, BaseModel):
        return "its defaults"
    return "none" if value is None else f"`{written(value)}`"


def written(value: object) -> str:
    """Format a value as in a configuration file."""
    if isinstance(value, timedelta):
        seconds = round(value.total_seconds())
        size, unit = next(u for u in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")) if not seconds % u[0])
        return f"{seconds // size}{unit}"
    if isinstance(value, ByteSize):
        return value.human_readable().replace(".0", "")
    return str(value).lower() if isinstance(value, bool) else str(value)
