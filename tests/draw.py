"""Draw test files of the full tier for a CI run.

    python -m tests.draw SEED [SECONDS]

prints files in an order that the seed determines, until their recorded durations fill the seconds (default: 300). A
file that no longer fits is skipped, so every file is drawn sooner or later. A file without a record counts as half of
the default.
"""

import ast
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.plugins.durations import recorded_durations

BUDGET_SECONDS = 300.0
UNRECORDED_SECONDS = BUDGET_SECONDS / 2
ROOT = Path(__file__).parents[1]


def full_files() -> list[str]:
    """Return the test files with a test that is marked full."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if _marks_full(file.read_text(encoding="utf-8"))]


def _marks_full(text: str) -> bool:
    return any(
        isinstance(node, ast.Attribute) and ast.unparse(node) == "pytest.mark.full"
        for node in ast.walk(ast.parse(text))
    )


def drawn(full_seconds: Mapping[str, float], seed: str, budget_seconds: float = BUDGET_SECONDS) -> list[str]:
    """Return files whose durations add up to at most the budget."""
    files: list[str] = []
    left = budget_seconds
    for file in sorted(full_seconds, key=lambda file: hashlib.sha256(f"{seed} {file}".encode()).digest()):
        if full_seconds[file] <= left:
            files.append(file)
            left -= full_seconds[file]
    return files


def main(arguments: list[str]) -> None:
    """Print the drawn files, and their duration on stderr."""
    recorded = recorded_durations()
    full_seconds = {file: recorded.get(file, {}).get("full", UNRECORDED_SECONDS) for file in full_files()}
    files = drawn(full_seconds, arguments[0], *map(float, arguments[1:]))
    total = sum(full_seconds[file] for file in files)
    print(
        f"drawn by {arguments[0]}: {len(files)} of {len(full_seconds)} files, {total:.0f} s",
        *files,
        sep="\n  ",
        file=sys.stderr,
    )
    print(*files)


if __name__ == "__main__":
    main(sys.argv[1:])
