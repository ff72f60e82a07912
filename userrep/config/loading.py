"""Reading a configuration: a YAML file and overrides, all faults at once."""

import difflib
import os
import re
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from userrep.config.items import AlsVectors, GivenVectors, TextVectors
from userrep.config.values import Section
from userrep.config.whole import Config
from userrep.errors import UsageError, in_line

_MOST_TEXT, _MOST_ALIASES = 1 << 20, 32  # of a file
_BRIEFLY = reprlib.Repr()  # a value of a few lines may be one of millions of parts
_BRIEFLY.maxlevel, _BRIEFLY.maxlist, _BRIEFLY.maxdict, _BRIEFLY.maxstring, _BRIEFLY.maxother = 3, 10, 10, 200, 200


def load_config(path: str | Path, overrides: Sequence[str] = (), *, folder: str | Path | None = None) -> Config:
    """Read a configuration file, apply ``key.path=value`` overrides, check it whole.

    Relative paths become absolute: those of the file are relative to its folder (or to ``folder``), those of
    overrides to the working directory.

    Raises
    ------
    UsageError
        With every fault: unreadable file, unknown keys (and the nearest known one), wrong types, parts that don't fit.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_MOST_TEXT + 1)
        values = _from_yaml(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}. Name a configuration file with --config.") from None
    except ValueError as error:
        raise UsageError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: a mapping of keys was expected at the top, got {type(values).__name__}.")
    faults: list[str] = []
    overridden: list[tuple[str, ...]] = []
    for override in overrides:
        try:
            overridden.append(_apply(values, override))
        except UsageError as error:
            faults += error.faults
    if faults:
        raise UsageError(faults)
    parse_config(values, str(path))  # faults show paths as they are written
    base = os.path.abspath(folder or os.path.dirname(os.path.abspath(path)))
    return parse_config(_with_absolute_paths(values, base, overridden), str(path))


def _with_absolute_paths(
    section: dict[Any, Any], folder: str, overridden: Sequence[tuple[str, ...]], at: tuple[str, ...] = ()
) -> dict[Any, Any]:
    """Anchor the paths of a section and those below it at ``folder``, or where overridden at the working directory."""
    found = dict(section)
    for key, value in section.items():
        here = (*at, str(key))
        if isinstance(value, dict) and here != ("spark", "conf"):
            found[key] = _with_absolute_paths(value, folder, overridden, here)
        if isinstance(value, list):
            found[key] = [
                _with_absolute_paths(part, folder, overridden, here) if isinstance(part, dict) else part
                for part in value
            ]
        is_path = here in (("root",), ("artifacts",)) or (key == "path" and section.get("format") != "table")
        if is_path and isinstance(value, str) and re.match(r"(?!~|[A-Za-z][\w+.-]*:)[^/]", value):
            base = os.getcwd() if any(here[: len(parts)] == parts for parts in overridden) else folder
            found[key] = os.path.normpath(os.path.join(base, value))
    return found


def _from_yaml(text: str) -> Any:
    """Read YAML; raises ValueError, in one line, whatever is wrong with it.

    Texts are small, and say little twice: a few hundred bytes of aliases of aliases may stand for gigabytes.
    """
    if len(text) > _MOST_TEXT:
        raise ValueError(f"more than {_MOST_TEXT} characters, which no configuration has")
    try:
        if text.count("*") > _MOST_ALIASES:
            aliases = sum(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
            if aliases > _MOST_ALIASES:
                raise ValueError(f"{aliases} aliases (*name), more than {_MOST_ALIASES}: write the values out")
        return yaml.safe_load(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except yaml.MarkedYAMLError as error:  # its text shows the line, and the line may hold a secret
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{error.problem or error.context}{where}") from None
    except (yaml.YAMLError, ValueError) as error:  # the latter: a date that does not exist
        raise ValueError(" ".join(str(error).split())) from None
    except (LookupError, AttributeError, TypeError) as error:  # a tag (!!int) on a value that is no such thing
        raise ValueError(f"a value that its tag does not fit ({type(error).__name__})") from None


def parse_config(values: dict[str, Any], origin: str) -> Config:
    """Check configuration values; ``origin`` stands before each fault."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UsageError([f"{origin}: {fault}" for fault in _faults(error)]) from None


def _apply(values: dict[str, Any], override: str) -> tuple[str, ...]:
    """Set one ``key.path=value``, and return the key's parts; what follows ``spark.conf.`` is one, dots and all."""
    key, equals, text = override.partition("=")
    shown = f"{in_line(key)}{equals and '=...'}"  # the value may be a secret
    parts = key.split(".")
    if not equals or not all(parts):
        raise UsageError(f"--set {shown}: write key.path=value, for example --set model.latent_dim=64.")
    if parts[:2] == ["spark", "conf"] and len(parts) > 2:
        parts = ["spark", "conf", ".".join(parts[2:])]
    for part in parts[:-1]:
        if values.get(part) is None:
            values[part] = {}
        values = values[part]
        if not isinstance(values, dict):
            raise UsageError(f"--set {shown}: {in_line(part)} is no section, it has no keys below it.")
    try:
        values[parts[-1]] = _from_yaml(text)
    except ValueError:
        raise UsageError(f"--set {shown}: the value is not readable as YAML.") from None
    return tuple(parts)


_SECRET = {("spark", "conf"), ("tracking", "uri"), ("stream", "redis"), ("stream", "kafka", "options")}  # may hold one
_KINDS: dict[int | str, type[Section]] = {"als": AlsVectors, "text": TextVectors, "vector": GivenVectors}


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors():
        location = fault["loc"]
        place = ".".join(_spelt(location))
        is_secret = location[:2] in _SECRET or location[:3] in _SECRET
        if fault["type"] == "extra_forbidden":
            known = _known_keys(location[:-1])
            near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
            cure = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}."
            yield f"unknown key {place}; {cure}"
        elif fault["type"] == "missing":
            yield f"{place} is missing."
        elif fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
            yield f"{place}.kind: one of {', '.join(map(str, _KINDS))} was expected{_got(fault['input'], 'kind')}."
        elif fault["type"] in ("model_type", "dict_type"):
            yield f"{place}: keys were expected below it{'' if is_secret else _got(fault['input'])}."
        else:
            got = "" if is_secret or location[-1:] == ("[key]",) else _got(fault["input"])
            for message in fault["msg"].removeprefix("Value error, ").splitlines():
                yield f"{place}: {message.rstrip('.')}{got}." if place else f"{message}."


def _spelt(location: tuple[int | str, ...]) -> list[str]:
    """Write a fault's location as the file has it: without pydantic's marks for a key and for a kind of vectors."""
    is_kind = len(location) > 3 and location[0] == "item_vectors"
    parts = [str(part) for k, part in enumerate(location) if part != "[key]" and not (is_kind and k == 2)]
    return [in_line(part) for part in parts]


def _got(value: Any, key: str | None = None) -> str:
    """Show what was got, in brief; a section's contents are not shown."""
    if isinstance(value, dict):
        value = value.get(key)
        if value is None:
            return ""
    try:
        shown = _BRIEFLY.repr(value)
    except ValueError:  # Python writes no numbers of more than 4,300 digits
        return ", got a number of thousands of digits"
    shown = re.sub(r"://[^/@\s]*@", "://***@", shown)
    return f", got {shown if len(shown) <= 80 else shown[:77] + '...'}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """List the keys of the section at ``location`` of the configuration."""
    section: Any = Config
    for k, part in enumerate(location):
        if location[0] == "item_vectors" and k == 2:
            section = _KINDS[part]
        elif isinstance(part, int):
            continue  # of a list, whose sections are all of one kind
        elif isinstance(section, type) and issubclass(section, Section):
            field = section.model_fields.get(str(part))
            if field is None:
                return []
            options = [field.annotation, *get_args(field.annotation)]
            section = next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)
    if section is None:
        return []
    return [field.alias or name for name, field in section.model_fields.items()]
