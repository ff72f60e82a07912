"""Draw test files of the full tier for a run of CI.

    python -m tests.draw SEED [SECONDS]

prints files, in an order that follows from the seed, until their recorded durations fill the seconds (default: 300). A
file that does not fit any more is passed over, so every file is drawn sooner or later.
"""

import hashlib
import sys
from collections.abc import Mapping

from tests.plugins.durations import recorded_durations

BUDGET_SECONDS = 300.0


def drawn(full_seconds: Mapping[str, float], seed: str, budget_seconds: float = BUDGET_SECONDS) -> list[str]:
    """Return files whose durations sum up to at most the budget."""
    files: list[str] = []
    left = budget_seconds
    for file in sorted(full_seconds, key=lambda file: hashlib.sha256(f"{seed} {file}".encode()).digest()):
        if full_seconds[file] <= left:
            files.append(file)
            left -= full_seconds[file]
    return files


def main(arguments: list[str]) -> None:
    """Print the drawn files, and on stderr how long they take."""
    full_seconds = {file: by_tier["full"] for file, by_tier in recorded_durations().items() if "full" in by_tier}
    files = drawn(full_seconds, arguments[0], *map(float, arguments[1:]))
    if not files:
        sys.exit("no file of the full tier is recorded; run `make durations`")
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
