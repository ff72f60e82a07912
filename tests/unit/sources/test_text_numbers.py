"""Numbers in texts, by the rules of the batch."""

import math

import pyarrow as pa
import pytest

from userrep.sources.text_numbers import numbers_of

pytestmark = pytest.mark.fast

NUMBERS = {"1": 1.0, "-0.5": -0.5, "+2": 2.0, ".5": 0.5, "5.": 5.0, "1e3": 1000.0, " 1.5\t": 1.5, "1.5d": 1.5,
           "2F": 2.0, "0x1p3": 8.0, "0X.8P1f": 1.0, "5e-324": 5e-324,
           "9007199254740993": 9007199254740992.0}  # fmt: skip
OTHERS = [
    "",
    " ",
    "x",
    "1,5",
    "1_000",
    "0x10",
    "1e",
    "١٢",
    "nan",
    "NaN",
    "Infinity",
    "-inf",
    "1e999",
    "0x1p9999",
    "1.5dd",
]


def read(texts: list[str | None]) -> list[float | None]:
    return numbers_of(pa.chunked_array([pa.array(texts, pa.string())])).to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("also", [[], ["+1"]], ids=["by Arrow where it can", "one by one"])
def test_texts_are_read_by_the_grammar_of_spark(also: list[str]) -> None:
    for text, number in NUMBERS.items():
        assert read([text, None, text, *also])[:3] == [number, None, number]
    for text in OTHERS:
        number = read([text, *also])[0]
        assert number is None or not math.isfinite(number)


def test_a_column_without_texts_is_one_without_numbers() -> None:
    assert read([]) == []
    assert read([None, None]) == [None, None]
