"""Which faults a run injects, and their outcomes.

The same commit is tested in the same way every day: ``make test`` kills each command at one fixed point
(test_kill_points.py), and the full tier draws more points from a fixed seed. ``USERREP_FAULTS_SEED`` draws others;
``USERREP_FAULTS=all`` takes every point, and more moments.
"""

import os
import random
from collections import Counter
from collections.abc import Sequence

ALL = os.environ.get("USERREP_FAULTS") == "all"
SEED = int(os.environ.get("USERREP_FAULTS_SEED", "1"))
FEW = 4  # points that are all taken, without a draw

TRIES: Counter[str] = Counter()
SURVIVED: Counter[str] = Counter()


class Faults:
    """Draws the points of one test and records the outcomes."""

    def __init__(self) -> None:
        self.chance = random.Random(SEED)
        self.failed: list[str] = []

    def chosen(self, points: Sequence[str]) -> list[str]:
        """Draw one point; return all of them, in the order of a run, with ``USERREP_FAULTS=all`` or if they are few."""
        each = list(dict.fromkeys(points))
        drawn = each if ALL or len(each) <= FEW else [self.chance.choice(each)]
        print(f"seed {SEED}: {len(drawn)} of {len(each)} points: {', '.join(drawn[:3])}")
        return drawn

    def record(self, fault: str, where: str, wrong: Sequence[str]) -> None:
        """Record one try and the deviations after it."""
        TRIES[fault] += 1
        SURVIVED[fault] += not wrong
        self.failed += [f"{fault}, {where}: {deviation}" for deviation in wrong]
        print(f"{fault}, {where}: {'; '.join(wrong) or 'survived'}", flush=True)
