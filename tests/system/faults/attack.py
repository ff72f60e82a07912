"""Commands that are killed: at points that an undisturbed run passes, or by the clock, then run again and compared."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.support.points import noted, points_in
from tests.system.faults.contents import contents, doubled
from tests.system.faults.fault_world import World
from tests.system.faults.reader import Reader
from tests.system.faults.tally import ALL, SEED, Faults
from userrep import failpoints

MOMENTS = 20 if ALL else 1  # kills by the clock, per command


@dataclass
class Attack:
    """A command, and the worlds before and after an undisturbed run. ``again`` runs the command in this process."""

    fault: str
    command: str
    before: World
    after: World
    again: Callable[[World], object]
    points: Sequence[str]
    reader: type[Reader] = Reader

    @cached_property
    def wanted(self) -> dict[str, tuple[int, str]]:
        """The contents after the undisturbed run."""
        return contents(self.after.root)

    def passages(self) -> list[str]:
        """Return the points with the number of the passage, from the second passage on.

        Points with a random id in their name are returned once: the lease file is rewritten every 10 s.
        """
        hits: Counter[str] = Counter()
        named = []
        for point in self.points:
            hits[point] += 1
            if hits[point] == 1:
                named.append(point)
            elif "*" not in point:
                named.append(f"{point}:{hits[point]}")
        return named

    def killed_at(self, world: World, point: str) -> list[str]:
        """Run the command until it is killed at a point; return the deviations at that moment."""
        with self.reader(world.root) as reader:
            code, output = world.ends(self.command, **{failpoints.ARM: point})
        alive = [] if code == -signal.SIGKILL else [f"not killed, but ended with {code}: {output[-500:]}"]
        return alive + reader.faults + doubled(world.root)

    def killed_after(self, world: World, seconds: float) -> tuple[bool, list[str]]:
        """Run the command for some seconds; return whether it was killed then, and the deviations."""
        with self.reader(world.root) as reader:
            code, output = world.killed_after(self.command, seconds)
        alive = [] if code in (0, -signal.SIGKILL) else [f"ended with {code}: {output[-500:]}"]
        return code != 0, alive + reader.faults + doubled(world.root)

    def run_again(self, world: World) -> list[str]:
        """Run the command to its end; return the differences to an undisturbed run."""
        with self.reader(world.root) as reader:
            self.again(world)
        return self.differences(world) + reader.faults + doubled(world.root)

    def differences(self, world: World) -> list[str]:
        """Return the tables of a root that differ from those after an undisturbed run."""
        found = contents(world.root)
        return [
            f"{name}: {found.get(name)}, undisturbed {self.wanted.get(name)}"
            for name in sorted({*found, *self.wanted})
            if found.get(name) != self.wanted.get(name)
        ]


def attack(fault: str, command: str, before: World, after: World, again: Callable[[World], object]) -> Attack:
    """Run a command undisturbed on the root of ``after`` and collect its points. Both worlds stay as they are then."""
    notes = after.folder / "points.txt"
    with noted(notes):
        again(after)
    return Attack(fault, command, before, after, again, points_in(notes))


def each_point(target: Attack, faults: Faults, folder: Path) -> None:
    """Kill a command at each drawn passage, on a copy of the root each time, and run it again."""
    for point in faults.chosen(target.passages()):
        world = target.before.copy(folder / point.replace(":", "-").replace("*", "_"))
        wrong = target.killed_at(world, point) + target.run_again(world)
        faults.record(f"{target.fault} killed at a point", point, wrong)
    assert not faults.failed


def each_moment(target: Attack, faults: Faults, folder: Path) -> None:
    """Kill a command at random moments of its duration, on a copy of the root each time, and run it again.

    A command that ends before its moment is recorded under another name.
    """
    world, chance = target.before.copy(folder / "undisturbed"), random.Random(f"{SEED} {target.fault}")
    began = time.monotonic()
    code, output = world.ends(target.command)
    seconds = time.monotonic() - began
    assert (code, target.differences(world)) == (0, []), output
    print(f"seed {SEED}: {MOMENTS} moments of {seconds:.1f} s")
    for k in range(MOMENTS):
        world, moment = target.before.copy(folder / str(k)), chance.uniform(0, seconds)
        was_killed, wrong = target.killed_after(world, moment)
        how = "killed by the clock" if was_killed else "ended before its kill"
        wrong += target.run_again(world)
        faults.record(f"{target.fault} {how}", f"at {moment:.2f} of {seconds:.2f} s", wrong)
