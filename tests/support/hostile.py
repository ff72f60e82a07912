"""Fuzzing: the number of examples, hostile texts, and corruption of trees and files."""

import os
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from userrep.errors import UserrepError

# The same examples in every run; with USERREP_FUZZ=20 twenty times as many, others each time. A failure prints how to
# have it again.
TIMES = int(os.environ.get("USERREP_FUZZ", "1"))


def fuzzed(max_examples: int) -> settings:
    """Return hypothesis settings; ``max_examples`` is the number of examples in the ordinary suite."""
    return settings(
        max_examples=max_examples * TIMES,
        derandomize=TIMES == 1,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


EVIL = [
    "", " ", ".", "..", "../x", "../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "%2e%2e%2f", "%00", "\0", "a\0b",
    "a\nb",
    "\r\n", "\u2028", "\u202e", "\ufeff", "\ud800", "é", "e\u0301", "\uff531", "İ", "ß", "\U0001d564\U0001d7d9",
    "👩‍👩‍👧", "'", '"', "`",
    "'; DROP TABLE x; --", "\\",
    "<script>alert(1)</script>", "{{7*7}}", "${HOME}", "$(id)", "-", "--help", "-rf", "_", "S1", "s1 ", " s1", "s1\n",
    "s" * 65,
    "x" * (1 << 20), "CON", "nul", "null", "None", "true", "0", "-0", "1e999", "NaN", "s1/../s2", "s3://b/k",
    "file:///etc",
]  # fmt: skip
TEXTS = st.one_of(st.sampled_from(EVIL), st.text(max_size=80))
LEAVES: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 10**30, 1 << 40, -(2**63), 1.5, -0.0, float("nan"), float("inf"), 1e308, "x",
    [], {},
    [[]], [None], {"a": 1}, ["a"] * 3, "2024-01-01", "2024-13-45", *EVIL[:-3],
]  # fmt: skip


def refusal(act: Callable[[], Any]) -> UserrepError | None:
    """Return the UserrepError that a call raises, None if it succeeds. Any other exception fails the test."""
    try:
        act()
    except UserrepError as error:
        return error
    return None


def is_one_line(error: UserrepError) -> bool:
    """Return whether a message is one readable line."""
    return str(error).splitlines() == [str(error)] and len(str(error)) < 2000


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all nodes in a tree of dicts and lists, starting with the tree itself."""
    yield path
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield from places(tree[key], (*path, key))


def spoil_tree(tree: Any, random: Random) -> None:
    """Remove, replace, duplicate or rename one node of a tree."""
    *way, last = random.choice([path for path in places(tree) if path])
    parent = tree
    for key in way:
        parent = parent[key]
    match random.randrange(5):
        case 0:
            del parent[last]
        case 1 if isinstance(parent, list):
            parent.append(parent[last])
        case 2 if isinstance(parent, dict):
            parent[random.choice(EVIL[:-7])] = parent.pop(last)
        case _:
            parent[last] = random.choice(LEAVES)


def spoilt_bytes(content: bytes, random: Random) -> bytes:
    """Truncate bytes, flip a bit, or replace some bytes."""
    at = random.randrange(len(content) + 1)
    match random.randrange(5):
        case 0:
            return content[:at]
        case 1:
            return content[at:]
        case 2:
            return content[:at] + random.randbytes(random.randrange(1, 64)) + content[at:]
        case 3:
            return content[:at] + bytes(random.randrange(64)) + content[at + random.randrange(64) :]
    at = min(at, len(content) - 1)
    return content[:at] + bytes([content[at] ^ (1 << random.randrange(8))]) + content[at + 1 :]
