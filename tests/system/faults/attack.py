"""A command under attack: killed at points that an undisturbed run has passed, run again, and compared with that."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.faults.contents import contents, doubled
from tests.system.faults.fault_world import World
from tests.system.faults.reader import Reader
from tests.system.faults.tally import ALL, SEED, Faults
from userrep import failpoints

MOMENTS = 20 if ALL else 1  # at which a command is killed by the clock


@dataclass
class Attack:
    """A command, the worlds before and after an undisturbed one. ``again`` runs it in this process."""

    fault: str
    command: str
    before: World
    after: World
    again: Callable[[World], object]
    points: Sequence[str]
    wanted: dict[str, tuple[int, str]]
    reader: type[Reader] = Reader

    def passages(self) -> list[str]:
        """Name each passage of a point, with its number where it is not the first.

        Of files with an id made by chance in their names the first alone: a lease's is written again by the clock.
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
        """Run the command until it is killed at a point; return what is wrong then."""
        with self.reader(world.root) as looking:
            code, said = world.ends(self.command, **{failpoints.ARM: point})
        alive = [] if code == -signal.SIGKILL else [f"not killed, but ended with {code}: {said[-500:]}"]
        return alive + looking.faults + doubled(world.root)

    def killed_after(self, world: World, seconds: float) -> tuple[bool, list[str]]:
        """Run the command for so many seconds; say whether it was killed then, and what is wrong."""
        with self.reader(world.root) as looking:
            code, said = world.killed_after(self.command, seconds)
        alive = [] if code in (0, -signal.SIGKILL) else [f"ended with {code}: {said[-500:]}"]
        return code != 0, alive + looking.faults + doubled(world.root)

    def run_again(self, world: World) -> list[str]:
        """Bring the command to its end; return what is not as after an undisturbed one."""
        with self.reader(world.root) as looking:
            self.again(world)
        return self.differ(world) + looking.faults + doubled(world.root)

    def differ(self, world: World) -> list[str]:
        """Return what a root holds that is not as after an undisturbed command."""
        found = contents(world.root)
        return [
            f"{name}: {found.get(name)}, undisturbed {self.wanted.get(name)}"
            for name in sorted({*found, *self.wanted})
            if found.get(name) != self.wanted.get(name)
        ]


@contextmanager
def undisturbed(world: World) -> Iterator[list[str]]:
    """Note the points that are passed in this process."""
    notes, points = world.folder / "points.txt", list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failpoints, "_notes", str(notes))
        patch.setattr(failpoints, "_is_set", True)
        yield points
    points += notes.read_text(encoding="utf-8").splitlines()


def attack(fault: str, command: str, before: World, after: World, again: Callable[[World], object]) -> Attack:
    """Run a command undisturbed, on the root of ``after``, and learn what there is to attack. Both are to be kept."""
    with undisturbed(after) as points:
        again(after)
    return Attack(fault, command, before, after, again, points, contents(after.root))


def each_point(of: Attack, faults: Faults, folder: Path) -> None:
    """Kill a command at each point that was chosen, each time that it is passed, on a root of its own; run it again."""
    for point in faults.chosen(of.passages()):
        world = of.before.copy(folder / point.replace(":", "-").replace("*", "_"))
        faults.tell(f"{of.fault} killed at a point", point, of.killed_at(world, point) + of.run_again(world))
    assert not faults.failed


def each_moment(of: Attack, faults: Faults, folder: Path) -> None:
    """Kill a command at moments by chance of the time that it takes as a process, on a root each; run it again.

    One that is over before its moment comes is counted apart.
    """
    world, chance = of.before.copy(folder / "undisturbed"), random.Random(f"{SEED} {of.fault}")
    began = time.monotonic()
    code, said = world.ends(of.command)
    seconds = time.monotonic() - began
    assert (code, of.differ(world)) == (0, []), said
    print(f"seed {SEED}: {MOMENTS} moments of {seconds:.1f} s")
    for k in range(MOMENTS):
        world, moment = of.before.copy(folder / str(k)), chance.uniform(0, seconds)
        was_killed, found = of.killed_after(world, moment)
        how = "killed by the clock" if was_killed else "was over before its kill"
        faults.tell(f"{of.fault} {how}", f"at {moment:.2f} of {seconds:.2f} s", found + of.run_again(world))
