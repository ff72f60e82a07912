"""Commands that change tables, as processes that can be held at their commit, and what readers see after them."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple, TypeVar

import pytest

from tests.support.builders import AS_OF
from tests.support.command_line import Userrep
from tests.system.faults.contents import Summary, visible
from tests.system.faults.fault_world import NIGHT, PATIENCE, World, ended
from userrep import failpoints

Case = TypeVar("Case")


class Command(NamedTuple):
    """A command line, and the point at which it is held: before the commit that makes its work visible."""

    line: str
    point: str


ITEM_INDEX = "commit:item_index:before"
COMMANDS = {
    "pipeline": Command(f"pipeline --as-of {NIGHT}", "commit:tile_days:before"),
    "daily": Command(f"daily --as-if-on-time --as-of {NIGHT}", "commit:tile_days:before"),
    "backfill": Command(f"backfill --from {NIGHT} --to {NIGHT}", "commit:tile_days:before"),
    "tiles": Command(f"run build_activity_tiles --as-of {NIGHT}", "commit:tile_days:before"),
    "vectors": Command(f"run train_item_vectors --as-of {NIGHT}", ITEM_INDEX),
    "training": Command(f"run train_autoencoder --as-of {NIGHT}", "commit:registry:before"),
    "forget": Command("forget --users {folder}/ids.txt", "commit:tombstones:before"),
    "maintenance": Command("run maintain_tables", "vacuum:user_item_days:before"),
    "stream": Command("stream --until-empty {arriving}", "commit:embedding_updates:before"),
}


NUMBERING = ("pipeline", "daily", "backfill", "vectors")  # commands that number new items


def points_of(pair: Sequence[str]) -> dict[str, str | None]:
    """Return where to hold the commands of a pair: where they number new items if both do, else at their own point."""
    return dict.fromkeys(pair, ITEM_INDEX if "vectors" in pair and set(pair) <= set(NUMBERING) else None)


def line_of(world: World, name: str) -> str:
    """Return a command's line on a world. A stream reads the log's last day; one in JSON is in a folder of its own."""
    is_json = world.events.get("format") == "json"
    path = f"{world.log}/arriving" if is_json else f"{world.log}/events/ingest_date={AS_OF}"
    arriving = f"--set stream.events.path={path}" + " --set stream.events.format=json" * is_json
    return COMMANDS[name].line.format(folder=world.folder, arriving=arriving)


class Held:
    """A command in a process of its own that waits at its point until it may go on.

    ``point``: by default, that of ``COMMANDS``.
    """

    def __init__(self, world: World, name: str, point: str | None = None) -> None:
        self.folder = world.folder / f"held {name}"
        self.folder.mkdir()
        hold = f"{point or COMMANDS[name].point}={self.folder}"
        self.process = world.start(line_of(world, name), USERREP_FAILPOINT_HOLD=hold)

    def arrives(self) -> bool:
        """Wait until the command is held; return whether it is."""
        until = time.monotonic() + PATIENCE
        while not (self.folder / "held").exists() and self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        return (self.folder / "held").exists()

    def goes_on(self) -> tuple[int, str]:
        """Let the command run to its end; return its exit code and what it wrote to stderr."""
        (self.folder / "go").touch()
        return ended(self.process)


@contextmanager
def held_here(point: str, folder: Path, until: Callable[[], object]) -> Iterator[None]:
    """Hold this process at a point, the first time that it gets there, until a function has returned."""
    folder.mkdir()
    is_over = threading.Event()

    def let_go() -> None:
        while not (folder / "held").exists():
            if is_over.wait(0.05):
                return
        until()
        (folder / "go").touch()

    waiting = threading.Thread(target=let_go, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"_pause_at": point, "_folder": str(folder), "_hits": Counter(), "_is_set": True}.items():
            patch.setattr(failpoints, name, value)
        waiting.start()
        try:
            yield
        finally:
            is_over.set()
            waiting.join()


def ends_in_turn(held: Mapping[str, Held], order: Sequence[str], root: Path | str) -> dict[str, tuple[int, str]]:
    """Let held commands run to their ends one after the other; return their exit codes and what they wrote to stderr.

    One that loses against those before it must change nothing that readers see.
    """
    ends: dict[str, tuple[int, str]] = {}
    for name in order:
        before = visible(root) if ends else None
        ends[name] = held[name].goes_on()
        if before is not None and ends[name][0]:
            assert visible(root) == before, f"{name} has changed tables, but ended with {ends[name]}"
    return ends


Worlds = dict[tuple[str, ...], World]  # by the commands that have run in them, the world before them under ()


class InTurn:
    """Commands one after the other in this process, whose session is warm, on copies of a world.

    ``worlds`` keeps the worlds after each order, so that no order runs twice and those that begin alike share their
    beginning.
    """

    def __init__(self, worlds: Worlds, userrep: Userrep) -> None:
        self.worlds, self.userrep = worlds, userrep

    def run(self, world: World, name: str) -> None:
        """Run a command to its end; one that is refused fails the test."""
        answer = self.userrep(*line_of(world, name).split(), "--config", world.file)
        assert answer.code == 0, answer.err[-2000:]

    def agrees(self, found: dict[str, Summary], orders: Iterable[Sequence[str]]) -> bool:
        """Return whether readers see the same after the commands in one of these orders.

        Orders after the first that agrees are not run.
        """
        return any(found == visible(self._world_after(tuple(order)).root) for order in orders)

    def _world_after(self, order: tuple[str, ...]) -> World:
        if order not in self.worlds:
            folder = mkdtemp(prefix="-then-".join(order), dir=self.worlds[()].folder.parent)
            world = with_ids(self._world_after(order[:-1]).copy(Path(folder)))
            self.run(world, order[-1])
            self.worlds[order] = world
        return self.worlds[order]


def with_ids(world: World) -> World:
    """Write the file of users that ``forget`` erases."""
    (world.folder / "ids.txt").write_text("u0000001\nu0000002", encoding="utf-8")
    return world


def shard(cases: Sequence[Case]) -> Sequence[Case]:
    """Return the cases that the variable SHARD, as in ``2/8``, names: the second, the tenth, …; one case without it.

    Of more shards than cases, each has a case: pytest skips a test without any.
    """
    first, _, step = os.environ.get("SHARD", f"1/{len(cases)}").partition("/")
    return cases[(int(first) - 1) % len(cases) :: int(step)]


def check_end(code: int, output: str) -> bool:
    """Assert that a command ended well or lost with one line; return whether it must run again."""
    assert code in (0, 1), output[-2000:]
    if code:
        assert len([line for line in output.splitlines() if line.startswith("userrep: ")]) == 1, output[-2000:]
    return bool(code)
