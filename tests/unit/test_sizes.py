"""The sizes that `make sizes` prints: what is code, and which functions and files are long."""

from pathlib import Path

import pytest

from tests.sizes import lines_of_code, long_functions, sizes

pytestmark = pytest.mark.fast

SOURCE = '''"""A module
of two lines."""

# a comment
KEYS = (
    # the first
    1,
)
TEXT = """two

lines"""


def f(x):  # code
    """Return x."""
    return x
'''


def test_blank_lines_comments_and_docstrings_are_not_code() -> None:
    assert lines_of_code(SOURCE) == len(["KEYS", "1,", ")", '"""two', "", 'lines"""', "def", "return"])


def test_a_function_is_long_above_40_lines() -> None:
    assert list(long_functions("def f():\n" + "    x = 1\n" * 39)) == []
    assert list(long_functions("class A:\n    def f(self):\n" + "        x = 1\n" * 40)) == ["f"]


def test_sizes_are_counted_by_folder_and_in_total(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "sub").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "sub" / "a.py").write_text(SOURCE)
    (package / "sub" / "b.py").write_text("x = 1\n" * 251)
    found = sizes(package)
    assert found["package"] == {"files": 1, "code": 0, "long_functions": 0, "long_files": 0}
    assert found["package/sub"] == {"files": 2, "code": 8 + 251, "long_functions": 0, "long_files": 1}
    assert found["total"]["files"] == 3
