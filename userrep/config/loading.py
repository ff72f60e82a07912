"""Loading of a configuration from a YAML file and overrides, with all faults reported together."""

import difflib
import os
import re
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from userrep.config.config import Config
from userrep.config.items import AlsVectors, GivenVectors, TextVectors
from userrep.config.values import Section, expanded_path
from userrep.config.yaml_text import MOST_TEXT, read_yaml
from userrep.errors import UsageError, in_line

_BRIEFLY = reprlib.Repr()  # nested YAML aliases may expand a few lines to millions of parts
_BRIEFLY.maxlevel, _BRIEFLY.maxlist, _BRIEFLY.maxdict, _BRIEFLY.maxstring, _BRIEFLY.maxother = 3, 10, 10, 200, 200


def load_config(path: str | Path, overrides: Sequence[str] = (), *, folder: str | Path | None = None) -> Config:
    """Load a configuration file, apply ``key.path=value`` overrides and check the result.

    Relative paths are made absolute: those in the file relative to its folder (or to ``folder``), those in overrides
    relative to the working directory.

    Raises
    ------
    UsageError
        If the file is not readable, or with all faults of its content: unknown keys (with the nearest known key), wrong
        types, and settings that do not fit together.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MOST_TEXT + 1)
        values = read_yaml(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}. Name a configuration file with --config.") from None
    except ValueError as error:
        raise UsageError([f"{path}: cannot be read as YAML: {fault}." for fault in str(error).splitlines()]) from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: the top level must be a mapping of keys, got {type(values).__name__}.")
    faults: list[str] = []
    overridden: list[tuple[str, ...]] = []
    for override in overrides:
        try:
            overridden.append(_apply(values, override))
        except UsageError as error:
            faults += error.faults
    if faults:
        raise UsageError(faults)
    parse_config(values, str(path))  # before paths change, so that messages show them as written
    base = os.path.abspath(folder or os.path.dirname(os.path.abspath(path)))
    return parse_config(_with_absolute_paths(values, base, overridden), str(path))


def _with_absolute_paths(
    section: dict[Any, Any], folder: str, overridden: Sequence[tuple[str, ...]], at: tuple[str, ...] = ()
) -> dict[Any, Any]:
    """Make the paths of a section absolute: relative to ``folder``, or to the working directory where overridden."""
    resolved = dict(section)
    for key, value in section.items():
        here = (*at, str(key))
        if isinstance(value, dict) and here != ("spark", "conf"):
            resolved[key] = _with_absolute_paths(value, folder, overridden, here)
        if isinstance(value, list):
            resolved[key] = [
                _with_absolute_paths(part, folder, overridden, here) if isinstance(part, dict) else part
                for part in value
            ]
        is_path = here in _PATHS or (key == "path" and section.get("format") != "table")
        if is_path and isinstance(value, str):
            path = resolved[key] = expanded_path(value)
            if re.match(r"(?![A-Za-z][\w+.-]*:)[^/]", path):
                base = os.getcwd() if any(here[: len(parts)] == parts for parts in overridden) else folder
                resolved[key] = os.path.normpath(os.path.join(base, path))
    return resolved


def parse_config(values: dict[str, Any], origin: str) -> Config:
    """Validate configuration values. Raises UsageError with all faults, each prefixed with ``origin``."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UsageError([f"{origin}: {fault}" for fault in _faults(error)]) from None


def _apply(values: dict[str, Any], override: str) -> tuple[str, ...]:
    """Apply one ``key.path=value`` and return the parts of the key; all after ``spark.conf.`` is a single part."""
    key, equals, text = override.partition("=")
    shown = f"{in_line(key)}{equals and '=...'}"  # the value may be a secret
    parts = key.split(".")
    if not equals or not all(parts):
        raise UsageError(f"--set {shown}: not of the form key.path=value. Example: --set model.latent_dim=64.")
    if parts[:2] == ["spark", "conf"] and len(parts) > 2:
        parts = ["spark", "conf", ".".join(parts[2:])]
    for part in parts[:-1]:
        if values.get(part) is None:
            values[part] = {}
        values = values[part]
        if not isinstance(values, dict):
            raise UsageError(f"--set {shown}: {in_line(part)} is not a section and has no keys.")
    try:
        values[parts[-1]] = read_yaml(text)
    except ValueError:
        raise UsageError(f"--set {shown}: the value cannot be read as YAML.") from None
    return tuple(parts)


_PATHS = {("root",), ("artifacts",), ("alerts", "prometheus_file")}  # in addition to keys named path
_SECRET = {
    ("spark", "conf"), ("tracking", "uri"), ("stream", "redis"), ("stream", "kafka", "options"), ("alerts", "webhook"),
    ("lineage", "transport"),
}  # fmt: skip
_KINDS: dict[int | str, type[Section]] = {"als": AlsVectors, "text": TextVectors, "vector": GivenVectors}


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors():
        location = fault["loc"]
        key = ".".join(_key_parts(location))
        is_secret = location[:2] in _SECRET or location[:3] in _SECRET
        if fault["type"] == "extra_forbidden":
            known = _known_keys(location[:-1])
            near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}."
            yield f"unknown key {key}; {hint}"
        elif fault["type"] == "missing":
            yield f"{key} is missing."
        elif fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
            yield f"{key}.kind: must be one of {', '.join(map(str, _KINDS))}{_got(fault['input'], 'kind')}."
        elif fault["type"] in ("model_type", "dict_type"):
            yield f"{key}: must be a section with keys{'' if is_secret else _got(fault['input'])}."
        else:
            got = "" if is_secret or location[-1:] == ("[key]",) else _got(fault["input"])
            for message in fault["msg"].removeprefix("Value error, ").splitlines():
                yield f"{key}: {message.rstrip('.')}{got}." if key else f"{message}."


def _key_parts(location: tuple[int | str, ...]) -> list[str]:
    """Return a fault's location as in the file, without pydantic's markers for dictionary keys and vector kinds."""
    is_kind = len(location) > 3 and location[0] == "item_vectors"
    parts = [str(part) for k, part in enumerate(location) if part != "[key]" and not (is_kind and k == 2)]
    return [in_line(part) for part in parts]


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
    shown = re.sub(r"://[^/@\s]*@", "://***@", shown)
    return f", got {shown if len(shown) <= 80 else shown[:77] + '...'}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Return the known keys of the section at ``location``."""
    section: Any = Config
    for k, part in enumerate(location):
        if location[0] == "item_vectors" and k == 2:
            section = _KINDS[part]
        elif isinstance(part, int):
            continue  # index into a list, whose sections are all of one kind
        elif isinstance(section, type) and issubclass(section, Section):
            field = section.model_fields.get(str(part))
            if field is None:
                return []
            options = [field.annotation, *get_args(field.annotation)]
            section = next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)
    if section is None:
        return []
    return [field.alias or name for name, field in section.model_fields.items()]
