"""Reading YAML text: duplicate keys are faults wherever they are. test_config_loading.py has the other faults."""

import pytest

from userrep.config.yaml_text import read_yaml

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", ["a in lines 1 and 2"]),
        ("a: 1\n'a': 1\nb: 0\na: 1", ["a in lines 1 and 2", "a in lines 2 and 4"]),
        ("- {a: 1}\n- {a: 1, b: {c: 1,\n  c: 2}}", ["c in lines 2 and 3"]),
        ("x: &x {a: 1, a: 2}\ny: *x", ["a in lines 1 and 1"]),
        ('"a\\nb": 1\n"a\\nb": 2', [r"'a\nb' in lines 1 and 2"]),
    ],
)
def test_each_duplicate_key_is_named_once_with_its_lines(text: str, said: list[str]) -> None:
    with pytest.raises(ValueError, match="duplicate key") as caught:
        read_yaml(text)
    assert str(caught.value).splitlines() == [f"duplicate key {key}. Remove one of them" for key in said]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("1: a\n'1': b", {1: "a", "1": "b"}),
        ("base: &base {a: 1, b: 2}\nmore: {<<: *base, a: 3}", {"base": {"a": 1, "b": 2}, "more": {"a": 3, "b": 2}}),
        ("[{a: 1}, {a: 1}]", [{"a": 1}, {"a": 1}]),
        ("&a [1, *a]", ...),
    ],
)
def test_other_keys_that_look_alike_are_read(text: str, value: object) -> None:
    found = read_yaml(text)[0]
    assert value is ... or found == value
