"""The page on reliability: each promise names tests that exist, and the tier that checks it."""

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "reliability-tests.md").read_text(encoding="utf-8")


def rows_of(part: str, num_cells: int) -> list[list[str]]:
    """Return the rows of numbered faults in a part of the page."""
    lines = re.findall(r"^\| \d+ \| .* \|$", part, flags=re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert {len(row) for row in rows} == {num_cells}
    return rows


FAULTS = rows_of(PAGE.split("## Faults\n")[1].split("\n## ")[0], 4)
TESTS = rows_of(PAGE.split("## Tests of each fault\n")[1], 3)
TARGETS = {"default": "`make test`", "full": "`make test-all`"}


def target_of(file: str, test: str) -> str:
    """Return the make target that runs a test: by its own mark, if it has one, or its file's."""
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert test in functions, f"{file} has no {test}"
    marks = [ast.unparse(decorator) for decorator in functions[test].decorator_list]
    marks += [
        ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node)
    ]
    own = next(
        mark for mark in marks if re.search(r"pytest\.mark\.(fast|default|full)\b", mark.split("parametrize")[0])
    )
    return TARGETS["full" if "mark.full" in own else "default"]


def test_each_fault_has_a_promise_an_outcome_and_tests() -> None:
    assert len(FAULTS) > 30
    assert all(all(row) for row in FAULTS)
    assert [row[0] for row in FAULTS] == [row[0] for row in TESTS] == [str(k + 1) for k in range(len(FAULTS))]


@pytest.mark.parametrize("row", TESTS, ids=[row[1][:60] for row in FAULTS])
def test_a_promise_names_the_target_that_checks_it(row: list[str]) -> None:
    """If tests of both tiers check a promise, the page names the cheaper target."""
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row[2])
    assert named
    targets = {target_of(*test) for test in named}
    assert row[1] == (TARGETS["default"] if TARGETS["default"] in targets else TARGETS["full"])
