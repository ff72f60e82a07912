"""Checks the prose of the repository for words that readers stumble over. `make lint` runs it.

    python -m tests.prose [PATH ...]

Checks comments, docstrings, other texts and names of tests in Python files, and Markdown. Not prose, and so not
checked: code blocks, text in ``backticks``, link targets, URLs, strings without a space, which are names, and the
strings of notebooks, which their kept outputs repeat.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDERS = ("userrep", "jobs", "benchmarks", "tests", "notebooks", "deploy", "docs", "examples")
SKIPPED = ("docs/decisions", "tests/prose.py", "tests/unit/test_prose.py")

# A pattern, in any case of letters, and what to write instead.
RULES = {
    r"\b(whoever|whomever)\b": "name the role (the user, the caller)",
    r"\bnobody\b": "name the role, or use the passive",
    r"\banew\b": "again",
    r"\b(thereof|therein|hereof|herein|whereof)\b": "name the thing",
    r"\bbeside\b": "next to, in addition to",
    r"\btheirs\b": "name the owner",
    r"\b(?-i:Says?) (whether|which|what|of|how)\b": "Return whether, Return the",
    r"\b(is|are|was|were) (told|said)\b": "is reported, is logged",
    r"\bgoes before\b": "takes precedence over",
    r"\bas good as\b": "state the property",
    r"\blets? go of\b": "releases, drops",
    r"\bin the place of\b": "instead of",
    r"\b(colour|favour|honour|centre|labelled|travelled|cancelled|modelling|grey)\b": "US spelling",
    r"\b\w+isation\b": "US spelling (-ization)",
    r"\b(normal|optim|organ|summar|initial|serial|recogn|minim|maxim)is(e|ed|es|ing)\b": "US spelling (-ize)",
}
DOCSTRING_RULES = {r"^Of ": "a noun phrase, or an imperative verb"}
TEST_NAME_RULES = {r"\b(told|gone|says|said|stands)\b": "reports, removed, is"}
# Code in one or two backticks; the target of a link, in place or by reference; a URL.
NOT_PROSE = re.compile(r"(`+)[^`]+\1|(?<=\])\([^)\s]*\)|^\[[^\]]+\]:\s*\S+|\b\w+://[^\s)>\"']+")


class Finding(NamedTuple):
    """A text that breaks a rule."""

    path: Path
    line: int
    text: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text!r}. Write: {self.instead}."


def findings_in_python(source: str, path: Path) -> Iterator[Finding]:
    """Check the comments and string constants of a module."""
    tree = ast.parse(source)
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
        if is_text and "notebooks" not in path.parts:
            yield from findings_in_text(node.value, path, node.lineno, DOCSTRING_RULES if node in docstrings else None)
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield from findings_in_text(node.name.replace("_", " "), path, node.lineno, TEST_NAME_RULES)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from findings_in_text(token.string, path, token.start[0])


def findings_in_text(text: str, path: Path, line: int, first_line: dict[str, str] | None = None) -> Iterator[Finding]:
    """Check a text that starts in a line of a file. ``first_line``: further rules for the text's first line."""
    for number, row in enumerate(text.splitlines()):
        prose = NOT_PROSE.sub("", row)
        for pattern, instead in (RULES if number else RULES | (first_line or {})).items():
            for match in re.finditer(pattern, prose, re.IGNORECASE):
                yield Finding(path, line + number, match[0], instead)


def findings_in_markdown(text: str, path: Path) -> Iterator[Finding]:
    """Check a page outside of its code blocks."""
    without_code = re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.M | re.S)
    yield from findings_in_text(without_code, path, 1)


def files() -> Iterator[Path]:
    """Yield the files that are checked by default."""
    paths = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
    for path in sorted(paths):
        name = str(path.relative_to(ROOT))
        if path.suffix in (".py", ".md") and not name.startswith(SKIPPED):
            yield path


def main(paths: list[Path]) -> int:
    """Print the findings of some files; return the exit code."""
    findings: list[Finding] = []
    for path in paths:
        check = findings_in_python if path.suffix == ".py" else findings_in_markdown
        findings += check(path.read_text(encoding="utf-8"), path.relative_to(ROOT) if path.is_absolute() else path)
    for finding in findings:
        print(finding)
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]] or list(files())))
