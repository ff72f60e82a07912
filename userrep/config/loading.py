"""Loading of a configuration from a YAML file and overrides, with all faults reported together."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from userrep.config.config import Config
from userrep.config.faults import all_faults
from userrep.config.values import expanded_path
from userrep.config.yaml_text import MOST_TEXT, read_yaml
from userrep.errors import UsageError, in_line, results_of


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
    values, lines = _read(path)
    overridden: list[tuple[str, ...]] = []
    origin = partial(_origin, str(path), lines, overridden)
    steps: list[Callable[[], object]] = [partial(_override, values, override, overridden) for override in overrides]
    steps.append(partial(_parse, values, origin))  # before paths change, so that messages show them as written
    results_of(steps)
    base = os.path.abspath(folder or os.path.dirname(os.path.abspath(path)))
    return _parse(_with_absolute_paths(values, base, overridden), origin)


def _read(path: str | Path) -> tuple[dict[Any, Any], dict[tuple[str, ...], int]]:
    """Return the values of a file, and the lines of its keys."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MOST_TEXT + 1)
        values, lines = read_yaml(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}. Name a configuration file with --config.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text. Save it as UTF-8.") from None
    except ValueError as error:
        raise UsageError([f"{path}: cannot be read as YAML: {fault}." for fault in str(error).splitlines()]) from None
    if values is None:
        raise UsageError(f"{path}: is empty; `userrep init --events PATH` writes one.")
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else "text" if isinstance(values, str) else "a single value"
        raise UsageError(f"{path}: must consist of keys with values, such as `root: PATH`, got {kind}.")
    return values, lines


def _origin(
    path: str, lines: Mapping[tuple[str, ...], int], overridden: Sequence[tuple[str, ...]], at: tuple[str, ...]
) -> str:
    """Return where a setting comes from: ``--set KEY``, or the file with the line of the innermost key it has."""
    for key in overridden:
        if at[: len(key)] == key or (at and at not in lines and key[: len(at)] == at):
            return f"--set {in_line('.'.join(key))}"
    line = next((lines[at[:depth]] for depth in range(len(at), 0, -1) if at[:depth] in lines), None)
    return path if line is None else f"{path}:{line}"


def _with_absolute_paths(
    value: Any, folder: str, overridden: Sequence[tuple[str, ...]], at: tuple[str, ...] = ()
) -> Any:
    """Make the paths of a section absolute: relative to ``folder``, or to the working directory where overridden."""
    if isinstance(value, list):
        return [_with_absolute_paths(part, folder, overridden, at) for part in value]
    if not isinstance(value, dict) or at == ("spark", "conf"):
        return value
    is_transport = at[:2] == ("lineage", "transport")  # of OpenLineage, whose key path is no file
    resolved = {key: _with_absolute_paths(part, folder, overridden, (*at, str(key))) for key, part in value.items()}
    for key, part in value.items():
        here = (*at, str(key))
        if not isinstance(part, str):
            continue
        base = os.getcwd() if any(here[: len(parts)] == parts for parts in overridden) else folder
        if here == ("tracking", "uri"):  # its variables may be secrets, and are not expanded here
            resolved[key] = _absolute(_RELATIVE_SQLITE, part, base)
        elif here in _PATHS or (key == "path" and value.get("format") != "table" and not is_transport):
            try:
                path = expanded_path(part)
            except ValueError as error:
                raise UsageError(f"{'.'.join(here)}: {error}.") from None
            resolved[key] = _absolute(_RELATIVE, path, base)
    return resolved


def _absolute(pattern: str, path: str, base: str) -> str:
    """Make a path absolute that matches a pattern of two groups: what stays in front, and the relative path."""
    found = re.fullmatch(pattern, path, re.DOTALL)
    return found[1] + os.path.normpath(os.path.join(base, found[2])) if found else path


def parse_config(values: dict[str, Any], origin: str) -> Config:
    """Validate configuration values. Raises UsageError with all faults, each prefixed with ``origin``."""
    return _parse(values, lambda _: origin)


def _parse(values: dict[Any, Any], origin: Callable[[tuple[str, ...]], str]) -> Config:
    """Validate values. ``origin`` returns the prefix of a fault for the path of its key."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        faults = [(origin(at), fault) for at, fault in all_faults(values, error)]
    raise UsageError([f"{where}: {fault.removeprefix(where.removeprefix('--set ') + ': ')}" for where, fault in faults])


def _override(values: dict[str, Any], override: str, overridden: list[tuple[str, ...]]) -> None:
    """Apply one ``key.path=value`` and add the parts of its key; all after ``spark.conf.`` is a single part."""
    key, equals, text = override.partition("=")
    shown = f"{in_line(key)}{equals and '=...'}"  # the value may be a secret
    parts = key.split(".")
    if not equals or not all(parts):
        raise UsageError(f"--set {shown}: not of the form key.path=value. Example: --set model.latent_dim=64.")
    if parts[:2] == ["spark", "conf"] and len(parts) > 2:
        parts = ["spark", "conf", ".".join(parts[2:])]
    try:
        value = read_yaml(text)[0]
    except ValueError:
        raise UsageError(f"--set {shown}: the value cannot be read as YAML.") from None
    sections = [values]
    for part in parts[:-1]:
        section = {} if sections[-1].get(part) is None else sections[-1][part]
        if not isinstance(section, dict):
            raise UsageError(f"--set {shown}: {in_line(part)} is not a section and has no keys.")
        sections.append(dict(section))  # a copy: an alias in YAML shares the section with another key
    sections[-1][parts[-1]] = value
    for part, outer, inner in zip(parts, sections, sections[1:], strict=False):
        outer[part] = inner
    overridden.append(tuple(parts))


_PATHS = {  # in addition to keys named path
    ("root",), ("artifacts",), ("alerts", "prometheus_file"), ("lineage", "transport", "log_file_path"),
}  # fmt: skip
_RELATIVE = r"()((?![A-Za-z][\w+.-]*:)[^/].*)"
_RELATIVE_SQLITE = r"(sqlite:///)([^/$].*)"
