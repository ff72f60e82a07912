"""Reading of YAML text, with limits on its size and without duplicate keys."""

from collections.abc import Iterator
from typing import Any

import yaml

from userrep.errors import in_line

_MOST_ALIASES = 32  # YAML aliases per text
MOST_TEXT = 1 << 20  # characters per text


def read_yaml(text: str) -> Any:
    """Parse YAML. Raises ValueError for every kind of fault, with one line per fault.

    Length and aliases are limited: a few hundred bytes of nested aliases can expand to gigabytes.
    """
    if len(text) > MOST_TEXT:
        raise ValueError(f"it has more than {MOST_TEXT} characters")
    try:
        if text.count("*") > _MOST_ALIASES:
            aliases = sum(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
            if aliases > _MOST_ALIASES:
                raise ValueError(f"more than {_MOST_ALIASES} aliases (*name), got {aliases}. Write the values out")
        faults = list(_duplicate_keys(yaml.compose(text, Loader=yaml.SafeLoader), set()))
        values = yaml.safe_load(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except yaml.MarkedYAMLError as error:  # its own text quotes the line, which may contain a secret
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{error.problem or error.context}{where}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise ValueError(" ".join(str(error).split())) from None
    except (LookupError, AttributeError, TypeError) as error:  # a tag such as !!int on a value of another type
        raise ValueError(f"a value does not match its tag ({type(error).__name__})") from None
    if faults:
        raise ValueError("\n".join(faults))
    return values


def _duplicate_keys(node: yaml.Node | None, seen: set[int]) -> Iterator[str]:
    """Yield a fault for each key that a mapping has more than once. ``seen``: nodes that were visited by an alias."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for part in node.value:
            yield from _duplicate_keys(part, seen)
    if isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                name, line = (key.tag, key.value), key.start_mark.line + 1
                if name in lines:
                    yield f"duplicate key {in_line(key.value)} in lines {lines[name]} and {line}. Remove one of them"
                lines[name] = line
            yield from _duplicate_keys(value, seen)
