"""Configurations that are none: refused in one line a fault, in no time, and nothing in them runs."""

import copy
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hostile import TEXTS, fuzzed, spoil_tree, spoilt_bytes
from userrep.config import Config, load_config
from userrep.errors import UsageError

pytestmark = pytest.mark.default

SMALL = "root: b\nevents: {path: l, columns: {user_id: u, item_id: i, event_at: a}}\n"
VALID = yaml.safe_load((Path(__file__).parents[3] / "conf" / "production.yaml").read_text())
LAUGHS = "x0: &a0 [lol, lol]\n" + "".join(f"x{k}: &a{k} [*a{k - 1}, *a{k - 1}, *a{k - 1}]\n" for k in range(1, 11))
MERGES = "x0: &a0 {a: b}\n" + "".join(f"x{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 9)}]}}\n" for k in range(1, 9))


def read(path: Path, content: bytes, *overrides: str) -> Config | list[str]:
    """Read a file; return the configuration, or its faults, each of which is one line that a person reads."""
    path.write_bytes(content)
    begun = time.monotonic()
    try:
        found: Config | list[str] = load_config(path, overrides)
    except UsageError as error:
        found = error.faults
        assert found
        for fault in found:
            assert fault.splitlines() == [fault], fault[:200]
            assert len(fault) < 2000, fault[:200]
    assert time.monotonic() - begun < 5
    return found


@fuzzed(150)
@given(seed=st.integers(0, 2**32), times=st.integers(1, 4))
def test_a_spoilt_tree_is_taken_or_refused(tmp_path: Path, seed: int, times: int) -> None:
    tree, random = copy.deepcopy(VALID), Random(seed)
    for _ in range(times):
        spoil_tree(tree, random)
    text = yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
    read(tmp_path / "c.yaml", text)


@fuzzed(100)
@given(seed=st.integers(0, 2**32))
def test_a_spoilt_file_is_taken_or_refused(tmp_path: Path, seed: int) -> None:
    content, random = SMALL.encode() + b"model: {latent_dim: 64}\nwindows_days: [7, 30]\n", Random(seed)
    for _ in range(random.randrange(1, 4)):
        content = spoilt_bytes(content, random) or b"-"
    read(tmp_path / "c.yaml", content)


TREES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(sorted(Config.model_fields)) | TEXTS,
    inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@fuzzed(80)
@given(tree=TREES)
def test_a_random_tree_is_refused(tmp_path: Path, tree: Any) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
    assert isinstance(read(tmp_path / "c.yaml", text), list)


@fuzzed(80)
@given(
    key=st.sampled_from(["root", "model.latent_dim", "a.b", "spark.conf.x", "windows_days.0", "events"]) | TEXTS,
    value=TEXTS,
)
def test_an_override_is_taken_or_refused(tmp_path: Path, key: str, value: str) -> None:
    read(tmp_path / "c.yaml", SMALL.encode(), f"{key}={value}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 20_000, "cannot be read as YAML: it is nested too deeply"),
        ("{a: " * 5_000, "cannot be read as YAML: it is nested too deeply"),
        (f"{SMALL}x: !!int ''", r"a value does not match its tag \(IndexError\)"),
        (f"{SMALL}x: !!timestamp x", r"a value does not match its tag \(AttributeError\)"),
        (f"{SMALL}x: !!bool x", r"a value does not match its tag \(KeyError\)"),
        (f"{SMALL}x: !!python/object/apply:os.system [touch here]", "could not determine a constructor for the tag"),
        (f"{SMALL}x: !!python/name:os.system", "could not determine a constructor for the tag"),
        (f"{LAUGHS}{SMALL}", "unknown key x0"),
        (f"{LAUGHS}root: *a10\nevents: *a10", r"events: must be a section with keys, got \[\[\[\["),
        (
            f"{LAUGHS}root: b\nevents: *a10\nwindows_days: *a10",
            r"windows_days\.0: must be a whole number, got \[\[",
        ),
        (f"{MERGES}{SMALL}", r"more than 32 aliases \(\*name\), got 72. Write the values out"),
        ("&a [*a]", "must consist of keys with values, such as `root: PATH`, got a list"),
        (f"{SMALL}windows_days: &a [*a]", r"windows_days\.0: must be a whole number"),
        (f"{SMALL}spark: &a {{conf: *a}}", r"spark\.conf\.conf: must be text"),
        (
            f"{SMALL}model: {{latent_dim: 0x{'f' * 5000}}}",
            "model.latent_dim: .+, got a number with thousands of digits",
        ),
        (f"{SMALL}1: 2\n~: 3\n2024-01-01: 4", "1: a key must be text"),
        (f"{SMALL}? {'k' * 100_000}\n: 1", r"unknown key k{80};"),
        (f'{SMALL}"a\\nb": 1', r"unknown key 'a\\nb'; known keys"),
        (SMALL.replace("root: b", 'root: "b\\0"'), r"root: must consist of printable characters, got 'b\\x00'"),
        ("x" * (1 << 21), "cannot be read as YAML: it has more than 1048576 characters"),
        ("\ufeff", "is empty; `userrep init --events PATH` writes one"),
    ],
)
def test_what_would_take_a_parser_apart_is_refused(tmp_path: Path, text: str, said: str) -> None:
    faults = read(tmp_path / "c.yaml", text.encode())
    with pytest.raises(UsageError, match=said):
        raise UsageError(faults)
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
