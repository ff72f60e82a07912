"""Counts the package's lines of code by folder, without blank lines, comments and docstrings. `make sizes` runs it."""

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "userrep"
FUNCTION_LINES, FILE_LINES = 40, 250  # limits, of all lines
_NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def lines_of_code(source: str) -> int:
    """Count the lines that have code."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    code = {line for token in tokens if token.type not in _NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(code)


def long_functions(source: str) -> Iterator[str]:
    """Yield the names of functions above the limit."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES:
            yield node.name


def sizes(package: Path) -> dict[str, Counter[str]]:
    """Return by folder, and in total: files, lines of code, functions and files above the limits."""
    by_folder: dict[str, Counter[str]] = {}
    for path in sorted(package.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        num_long, is_long = len(list(long_functions(source))), len(source.splitlines()) > FILE_LINES
        row = Counter(files=1, code=lines_of_code(source), long_functions=num_long, long_files=int(is_long))
        for key in (str(path.parent.relative_to(package.parent)), "total"):
            by_folder.setdefault(key, Counter()).update(row)
    return by_folder


if __name__ == "__main__":
    table = sizes(PACKAGE)
    print(f"{'':30}{'files':>8}{'code':>8}  functions > {FUNCTION_LINES}  files > {FILE_LINES}")
    for name, row in sorted(table.items(), key=lambda item: item[0] == "total"):
        print(f"{name:30}{row['files']:8}{row['code']:8,}{row['long_functions']:16}{row['long_files']:13}")
