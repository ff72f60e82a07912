"""Reading of YAML text, with limits on its size and without duplicate keys."""

from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from userrep.errors import in_line

_MOST_ALIASES = 32  # YAML aliases per text
MOST_TEXT = 1 << 20  # characters per text

_Key = tuple[yaml.Node, tuple[str, ...], yaml.Node]  # of a mapping or list: the parent, the path, and the key or entry


class _Loader(yaml.SafeLoader):
    """Reads dates as text, so that the setting checks them and a fault names its key."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(text: str) -> tuple[Any, dict[tuple[str, ...], int]]:
    """Parse YAML; also return the lines of all keys and list entries, by their path.

    Length and aliases are limited: a few hundred bytes of nested aliases can expand to gigabytes. Raises ValueError for
    every kind of fault, with one line per fault.
    """
    if len(text) > MOST_TEXT:
        raise ValueError(f"it has more than {MOST_TEXT} characters")
    try:
        if text.count("*") > _MOST_ALIASES:
            aliases = sum(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
            if aliases > _MOST_ALIASES:
                raise ValueError(f"more than {_MOST_ALIASES} aliases (*name), got {aliases}. Write the values out")
        loader = _Loader(text)
        node = loader.get_single_node()
        keys = list(_keys(node, set()))
        values = None if node is None else loader.construct_document(node)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except yaml.MarkedYAMLError as error:  # its own text quotes the line, which may contain a secret
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        cure = ". Indent with spaces" if r"'\t'" in str(error.problem) else ""
        raise ValueError(f"{error.problem or error.context}{where}{cure}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a tag such as !!timestamp on a date that does not exist
        raise ValueError(" ".join(str(error).split())) from None
    except (LookupError, AttributeError, TypeError) as error:  # a tag such as !!int on a value of another type
        raise ValueError(f"a value does not match its tag ({type(error).__name__})") from None
    if faults := list(_duplicate_keys(keys)):
        raise ValueError("\n".join(faults))
    return values, {path: key.start_mark.line + 1 for _, path, key in keys}


def _duplicate_keys(keys: Iterable[_Key]) -> Iterator[str]:
    """Yield a fault for each key that a mapping has more than once."""
    lines: dict[tuple[int, str, str], int] = {}
    for parent, _, key in keys:
        if isinstance(parent, yaml.MappingNode):
            name, line = (id(parent), key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                yield f"duplicate key {in_line(key.value)} in lines {lines[name]} and {line}. Remove one of them"
            lines[name] = line


def _keys(node: yaml.Node | None, seen: set[int], at: tuple[str, ...] = ()) -> Iterator[_Key]:
    """Yield all keys and list entries. ``seen``: nodes that were visited by an alias."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for k, part in enumerate(node.value):
            yield node, (*at, str(k)), part
            yield from _keys(part, seen, (*at, str(k)))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):  # any other key cannot be read
                yield node, (*at, key.value), key
                yield from _keys(value, seen, (*at, key.value))
