"""What is attacked, by chance, and what came of it."""

import os
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

ALL = os.environ.get("USERREP_FAULTS") == "all"
SEED = int(os.environ.get("USERREP_FAULTS_SEED", f"{datetime.now(UTC):%Y%m%d}"))  # another share every day
FEW = 4

TRIES: Counter[str] = Counter()
SURVIVED: Counter[str] = Counter()


class Faults:
    """Draws what a test attacks, and keeps what came of it."""

    def __init__(self) -> None:
        self.chance = random.Random(SEED)
        self.failed: list[str] = []

    def chosen(self, points: Sequence[str]) -> list[str]:
        """Draw a point; all of them, in the order of a run, if all are to be attacked or they are but a few."""
        each = list(dict.fromkeys(points))
        drawn = each if ALL or len(each) <= FEW else [self.chance.choice(each)]
        print(f"seed {SEED}: {len(drawn)} of {len(each)} points")
        return drawn

    def tell(self, fault: str, what: str, wrong: Sequence[str]) -> None:
        """Record one try, and what is wrong after it."""
        TRIES[fault] += 1
        SURVIVED[fault] += not wrong
        self.failed += [f"{fault}, {what}: {said}" for said in wrong]
        print(f"{fault}, {what}: {'; '.join(wrong) or 'survived'}", flush=True)
