"""Faults that pydantic finds in a configuration, as messages in words of YAML with the path of their key."""

import copy
import reprlib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from userrep.config.config import Config
from userrep.config.environment import without_logins
from userrep.config.items import AlsVectors, GivenVectors, TextVectors
from userrep.config.values import Section
from userrep.errors import did_you_mean, in_line


class _Brief(reprlib.Repr):
    """Short text of a value: nested YAML aliases may expand a few lines to millions of parts."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxdict, self.maxstring, self.maxother = 3, 10, 10, 200, 200

    def repr_NoneType(self, value: None, level: int) -> str:  # noqa: ARG002
        return "null"

    def repr_bool(self, value: bool, level: int) -> str:  # noqa: ARG002
        return str(value).lower()


_BRIEFLY = _Brief()
# Messages by pydantic's type of fault, or by its first word.
_MESSAGES = {
    "bool": "must be true or false",
    "byte": "must be a size, such as 2GiB",
    "finite": "must be a finite number",
    "float": "must be a number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int": "must be a whole number",
    "invalid_key": "a key must be text",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "list": "must be a list, such as [7, 30]",
    "literal": "must be {expected}",
    "string": "must be text",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}
_SECRET = {
    ("spark", "conf"), ("tracking", "uri"), ("stream", "redis"), ("stream", "kafka", "options"), ("alerts", "webhook"),
    ("lineage", "transport"),
}  # fmt: skip
_KINDS: dict[int | str, type[Section]] = {"als": AlsVectors, "text": TextVectors, "vector": GivenVectors}


def all_faults(values: dict[Any, Any], error: ValidationError) -> list[tuple[tuple[str, ...], str]]:
    """Return the faults of an error as ``faults_by_path``, and those that pydantic only finds without unknown keys.

    Settings are compared with each other once each is valid by itself. An unknown key has no effect, so they are
    compared without it.
    """
    faults = list(faults_by_path(error))
    unknown = [fault["loc"] for fault in error.errors() if fault["type"] == "extra_forbidden"]
    if unknown:
        known = copy.deepcopy(values)
        for location in unknown:
            section: Any = known
            for part in _path(location)[:-1]:
                section = section[int(part) if isinstance(section, list) else part]
            section.pop(location[-1], None)  # sections that share a YAML anchor have lost it already
        try:
            Config.model_validate(known)
        except ValidationError as others:
            faults += [fault for fault in faults_by_path(others) if fault not in faults]
    return faults


def faults_by_path(error: ValidationError) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the path of each fault's key, as in the file, and its message."""
    for fault in error.errors():
        location = fault["loc"]
        at = _path(location)
        key = ".".join(map(in_line, at))
        is_secret = location[:2] in _SECRET or location[:3] in _SECRET
        if fault["type"] == "extra_forbidden":
            known = _known_keys(location[:-1])
            hint = did_you_mean(str(location[-1]), known, f"known keys: {', '.join(known)}.")
            yield at, f"unknown key {key}; {hint}"
        elif fault["type"] == "missing":
            yield at, f"{key} is missing."
        elif fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
            yield at, f"{key}.kind: must be one of {', '.join(map(str, _KINDS))}{_got(fault['input'], 'kind')}."
        elif fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
            yield at, f"{key}: must be a section with keys{'' if is_secret else _got(fault['input'])}."
        else:
            got = "" if is_secret or location[-1:] == ("[key]",) else _got(fault["input"])
            for message in _message(fault).splitlines():
                yield at, f"{key}: {message.rstrip('.')}{got}." if key else f"{message}."


def _message(fault: ErrorDetails) -> str:
    """Return what a fault requires of the value, in words of YAML instead of Python."""
    kind = fault["type"]
    if kind == "string_type" and fault["loc"][-1] == "[key]":
        kind = "invalid_key"
    message = _MESSAGES.get(kind) or _MESSAGES.get(kind.partition("_")[0])
    if message is None:
        return fault["msg"].removeprefix("Value error, ")
    return message.format_map(fault.get("ctx", {})).replace("'", "")


def _path(location: tuple[int | str, ...]) -> tuple[str, ...]:
    """Return a fault's location as in the file, without pydantic's markers for dictionary keys and vector kinds."""
    is_kind = len(location) > 3 and location[0] == "item_vectors"
    return tuple(str(part) for k, part in enumerate(location) if part != "[key]" and not (is_kind and k == 2))


def _got(value: Any, key: str | None = None) -> str:
    """Return the offending value, shortened, for the end of a message; the content of a section is not shown."""
    if isinstance(value, dict):
        value = value.get(key)
        if value is None:
            return ""
    try:
        shown = _BRIEFLY.repr(value)
    except ValueError:  # Python does not print numbers of more than 4,300 digits
        return ", got a number with thousands of digits"
    shown = without_logins(shown)
    return f", got {shown if len(shown) <= 80 else shown[:77] + '...'}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Return the known keys of the section at ``location``."""
    if location[:1] == ("item_vectors",):  # a section below them is at item_vectors, modality, kind
        return list(_KINDS[location[2]].model_fields)
    section: type[Section] = Config
    for name in (part for part in location if isinstance(part, str)):  # the rest are indices into lists
        kind = section.model_fields[name].annotation
        section = next(k for k in (kind, *get_args(kind)) if isinstance(k, type) and issubclass(k, Section))
    return [field.alias or name for name, field in section.model_fields.items()]
