"""Reading a configuration: a YAML file and overrides, all faults at once."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from userrep.config.items import AlsVectors, GivenVectors, TextVectors
from userrep.config.values import Section
from userrep.config.whole import Config
from userrep.errors import UsageError


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file, apply ``key.path=value`` overrides, check it whole.

    Raises
    ------
    UsageError
        With every fault: unreadable file, unknown keys (and the nearest known one), wrong types, parts that don't fit.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}. Name a configuration file with --config.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that does not exist
        raise UsageError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: a mapping of keys was expected at the top, got {type(values).__name__}.")
    faults: list[str] = []
    for override in overrides:
        try:
            _apply(values, override)
        except UsageError as error:
            faults += error.faults
    if faults:
        raise UsageError(faults)
    return parse_config(values, str(path))


def parse_config(values: dict[str, Any], origin: str) -> Config:
    """Check configuration values; ``origin`` stands before each fault."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UsageError([f"{origin}: {fault}" for fault in _faults(error)]) from None


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one ``key.path=value``; whatever follows ``spark.conf.`` is one key, dots and all."""
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise UsageError(f"--set {override}: write key.path=value, for example --set model.latent_dim=64.")
    if parts[:2] == ["spark", "conf"] and len(parts) > 2:
        parts = ["spark", "conf", ".".join(parts[2:])]
    for part in parts[:-1]:
        if values.get(part) is None:
            values[part] = {}
        values = values[part]
        if not isinstance(values, dict):
            raise UsageError(f"--set {override}: {part} is no section, it has no keys below it.")
    try:
        values[parts[-1]] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise UsageError(f"--set {override}: the value is not readable as YAML.") from None


_KINDS: dict[int | str, type[Section]] = {"als": AlsVectors, "text": TextVectors, "vector": GivenVectors}


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors():
        location = fault["loc"]
        place = ".".join(_spelt(location))
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
            yield f"{place}: keys were expected below it{_got(fault['input'])}."
        else:
            got = "" if location[:2] == ("spark", "conf") or location[-1:] == ("[key]",) else _got(fault["input"])
            for message in fault["msg"].removeprefix("Value error, ").splitlines():
                yield f"{place}: {message.rstrip('.')}{got}." if place else f"{message}."


def _spelt(location: tuple[int | str, ...]) -> list[str]:
    """Write a fault's location as the file has it: without pydantic's marks for a key and for a kind of vectors."""
    is_kind = len(location) > 3 and location[0] == "item_vectors"
    return [str(part) for k, part in enumerate(location) if part != "[key]" and not (is_kind and k == 2)]


def _got(value: Any, key: str | None = None) -> str:
    """Show what was got, in brief; a section's contents are not shown."""
    if isinstance(value, dict):
        value = value.get(key)
        if value is None:
            return ""
    shown = repr(value)
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
