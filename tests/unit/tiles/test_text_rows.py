"""Lines of JSON and CSV become rows as in Spark's readers, or are left to Spark."""

import json
from typing import Any

import pyarrow as pa
import pytest

from userrep.errors import NeedsSparkError
from userrep.sources.text_blocks import TextBlock
from userrep.tiles.text_rows import CsvLines, JsonLines

pytestmark = pytest.mark.fast

JSON = JsonLines({"user_id": ("user", "id"), "item_id": ("item",), "weight": ("points",)})
NAMES = ("user", "item", "note", "points")
CSV = CsvLines(NAMES, {"user_id": ("user",), "item_id": ("item",), "weight": ("points",)})
GOOD = {"user": {"id": "u1", "age": 3}, "item": "i1", "points": 1.5, "tags": ["a"]}

Row = tuple[str | None, str | None, float | None]


def lines(*texts: str) -> TextBlock:
    return TextBlock.of("".join(f"{text}\n" for text in texts).encode())


def rows(table: pa.Table) -> list[Row]:
    assert table.schema.types == [pa.string(), pa.string(), pa.float64()]
    return list(zip(*(table[name].to_pylist() for name in ("user_id", "item_id", "weight")), strict=True))


def json_rows(*values: Any) -> list[Row]:
    return rows(JSON.table(lines(*(value if isinstance(value, str) else json.dumps(value) for value in values))))


# JSON


def test_fields_are_read_by_their_paths_in_any_order_and_missing_ones_are_null() -> None:
    found = json_rows(GOOD, {"item": "i2", "user": {"id": "u2"}}, {"user": None, "points": None}, {})
    assert found == [("u1", "i1", 1.5), ("u2", "i2", None), (None, None, None), (None, None, None)]


@pytest.mark.parametrize("among", [0, 2000])
@pytest.mark.parametrize(
    ("line", "row"),
    [
        ('{"user": {"id": 7}, "item": 1.50, "points": 2}', ("7", "1.50", 2.0)),
        ('{"user": {"id": true}, "item": 9876543210987654321, "points": "2.5"}', ("true", "9876543210987654321", 2.5)),
        ('{"user": {"id": "u"}, "item": "i", "points": " +.5e1d "}', ("u", "i", 5.0)),
        ('{"user": {"id": "u"}, "item": "", "points": "a lot"}', ("u", "", None)),
        ('{"user": {"id": "u"}, "item": "a", "item": "b", "points": 1}', ("u", "b", 1.0)),
        ('{"user": {"id": "\\u00fc"}, "item": "日", "points": 1}', ("ü", "日", 1.0)),
        ('{"user": {"id": 1}, "item": "\\ud83d\\ude00", "points": 1}', ("1", "😀", 1.0)),
        ('{"user": {"id": "u"}, "item": "i", "points": 1', (None, None, None)),
        ('{"user": {"id": "u"}, "item": "i", "points": 01}', (None, None, None)),
        ('{"user": {"id": "u"}, "item": "don\'t", "tags": ["a"', (None, None, None)),
        ("null", (None, None, None)),
        ("soon", (None, None, None)),
    ],
)  # fmt: skip
def test_an_unusual_line_is_read_like_spark_does_among_usual_ones(line: str, row: Row, among: int) -> None:
    found = json_rows(*[GOOD] * among, line, *[GOOD] * (among // 3))
    assert found == [*[("u1", "i1", 1.5)] * among, row, *[("u1", "i1", 1.5)] * (among // 3)]


@pytest.mark.parametrize(
    "line",
    [
        "{'user': {'id': 'u'}}",
        '[{"user": {"id": "u"}}]',
        '{"user": {"id": "u"}} {"user": {"id": "v"}}',
        '{"user": {"id": "u"}} and more',
        '{"user": "u"}',
        '{"user": {"id": ["u"]}}',
        '{"item": {"id": "i"}}',
        '{"item": "i", "points": +INF}',
        '{"item": "\\ud800"}',
        "[" * 100_000,
    ],
    ids=lambda line: line[:30],
)
def test_a_line_that_only_spark_reads_is_left_to_it(line: str) -> None:
    with pytest.raises(NeedsSparkError):
        json_rows(GOOD, line)


def test_numbers_and_flags_of_all_lines_are_texts_except_weights() -> None:
    numbers = JsonLines({"user_id": ("u",), "item_id": ("i",), "weight": ("w",)})
    text = lines(*(json.dumps({"u": k, "i": k % 2 == 0, "w": k if k % 2 else k / 2}) for k in range(1000)))
    assert rows(numbers.table(text)) == [
        (str(k), str(k % 2 == 0).lower(), float(k if k % 2 else k / 2)) for k in range(1000)
    ]


@pytest.mark.parametrize("among", [0, 2000])
def test_a_flag_is_no_weight(among: int) -> None:
    text = lines(*['{"user": {"id": "u"}, "item": "i", "points": 1}'] * among, '{"item": "i", "points": true}')
    assert rows(JSON.table(text))[-1][-1] is None


def test_a_weight_that_is_also_a_text_keeps_its_digits() -> None:
    both = JsonLines({"user_id": ("u",), "item_id": ("w",), "weight": ("w",)})
    assert rows(both.table(lines('{"u": "u", "w": 1.50}'))) == [("u", "1.50", 1.5)]


def test_lines_of_equal_rows_are_equal_in_any_order_of_fields() -> None:
    one, *others = (
        JSON.comparable(line.encode())
        for line in (
            '{"a": 1.0, "b": {"c": null, "d": true}}',
            '{"b": {"d": "true"}, "e": null, "a": "1.0"}',
            '{"a": 1.00, "b": {"d": true}}',
            '{"a": 1.0, "b": {"d": true, "c": 2}}',
        )
    )
    assert [other == one for other in others] == [True, False, False]
    with pytest.raises(NeedsSparkError):
        JSON.comparable(b"{'a': 1}")


# CSV


@pytest.mark.parametrize("among", [0, 2000])
@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("u,i,n,2.5", ("u", "i", 2.5)),
        ('"u","i, j",n,"2.5"', ("u", "i, j", 2.5)),
        ('u,"",n,', ("u", None, None)),
        ("u, i ,n, 2 ", ("u", " i ", 2.0)),
        ("u,i", ("u", "i", None)),
        ("u,i,n,1,more,2", ("u", "i", 1.0)),
        ("u,i,n,many", ("u", "i", None)),
        ("u,a\\b,n,", ("u", "a\\b", None)),
        (",,,", (None, None, None)),
        ("007,日,n,1e3", ("007", "日", 1000.0)),
        ("u,i," + "x" * 200_000, ("u", "i", None)),
    ],
)
def test_values_of_a_line_belong_to_columns_by_position(line: str, row: Row, among: int) -> None:
    found = rows(CSV.table(lines(*["u1,i1,,1.5"] * among, line, *["u1,i1,,1.5"] * (among // 3))))
    assert found == [*[("u1", "i1", 1.5)] * among, row, *[("u1", "i1", 1.5)] * (among // 3)]


@pytest.mark.parametrize(
    "line", ['u,"a ""b""",n,1', 'u,"a\nb",n,1', 'u,"a\\"b",n,1', 'u,a"b,n,1', 'u,"a"b,n,1', 'u, "a",n,1', 'u,"a,n,1']
)
def test_quotes_inside_of_values_are_left_to_spark(line: str) -> None:
    with pytest.raises(NeedsSparkError):
        CSV.table(lines("u1,i1,n,1.5", line))
