"""A command under attack: killed at points that an undisturbed run has passed, run again, and compared with that."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.contents import contents, doubled
from tests.faults.fault_world import World
from tests.faults.reader import Reader
from tests.faults.tally import Faults
from userrep import failpoints


@dataclass
class Attack:
    """A command, what it begins with, and what an undisturbed one ends with. ``again`` runs it in this process."""

    fault: str
    command: str
    before: World
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

    def run_again(self, world: World) -> list[str]:
        """Bring the command to its end; return what is not as after an undisturbed one."""
        with self.reader(world.root) as looking:
            self.again(world)
        found = contents(world.root)
        differ = [
            f"{name}: {found.get(name)}, undisturbed {self.wanted.get(name)}"
            for name in sorted({*found, *self.wanted})
            if found.get(name) != self.wanted.get(name)
        ]
        return differ + looking.faults + doubled(world.root)


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
    """Run a command undisturbed, on the root of ``after``, and learn what there is to attack."""
    with undisturbed(after) as points:
        again(after)
    return Attack(fault, command, before, again, points, contents(after.root))


def each_point(of: Attack, faults: Faults, folder: Path) -> None:
    """Kill a command at each point that was chosen, each time that it is passed, on a root of its own; run it again."""
    for point in faults.chosen(of.passages()):
        world = of.before.copy(folder / point.replace(":", "-").replace("*", "_"))
        faults.tell(f"{of.fault} killed at a point", point, of.killed_at(world, point) + of.run_again(world))
    assert not faults.failed
