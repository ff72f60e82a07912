"""The page on reliability: each promise names tests that exist, and the tier that checks it."""

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and "::test_" in line
]
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


def test_the_page_has_a_row_for_each_fault() -> None:
    assert len(ROWS) > 30
    assert {len(row) for row in ROWS} == {5}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_a_promise_names_the_target_that_checks_it(row: list[str]) -> None:
    """Where tests of both tiers check a promise, the page names the cheaper target."""
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row[2])
    targets = {target_of(*test) for test in named}
    assert row[3] == (TARGETS["default"] if TARGETS["default"] in targets else TARGETS["full"])
