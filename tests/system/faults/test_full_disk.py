"""A night on a disk that fills: it says so, leaves what is published alone, and ends well once there is room.

The disk is a real one, small, in a mount namespace of the command's own.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.faults.attack import Attack
from tests.system.faults.contents import doubled
from tests.system.faults.fault_world import World
from tests.system.faults.reader import Reader
from tests.system.faults.tally import ALL, Faults
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import Snapshot, list_snapshots
from userrep.tables import Tables

pytestmark = pytest.mark.full

NAMESPACE = ("unshare", "--map-root-user", "--mount")
SHARES = 12 if ALL else 1  # of what a night writes, to which the disk has room for it
_PAGE = 4096  # bytes that such a disk gives out at a time
_VARIES = 5 * _PAGE  # what one night writes more or less than another: with all but so much, it may just have room


@pytest.fixture(scope="module", autouse=True)
def can_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where a file system may not be mounted, not even in a namespace of one's own."""
    folder = str(tmp_path_factory.mktemp("mount"))
    tried = subprocess.run(
        [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"file systems may not be mounted here: {tried.stderr.strip()}")


def test_a_night_on_a_disk_that_fills_says_so_and_ends_as_an_undisturbed_one_once_there_is_room(
    nightly: Attack, faults: Faults, tmp_path: Path
) -> None:
    written = used(nightly.after.root) - used(nightly.before.root) - _VARIES
    for k in range(SHARES):
        world, free = nightly.before.copy(tmp_path / str(k)), int(written * (k + faults.chance.random()) / SHARES)
        within = [
            *NAMESPACE,
            sys.executable,
            str(Path(__file__).with_name("small_disk.py")),
            str(world.root),
            str(free),
        ]
        before = published(world)
        code, said = world.ends(nightly.command, within=within)
        found = wrong_words(code, said) + Reader(world.root).look() + doubled(world.root)
        found += [f"{gone.snapshot_id} is not as it was" for gone in before if gone not in published(world)]
        what = f"{free // 1024:,} KB of {written // 1024:,} KB free"
        faults.tell("disk full under a night", what, found + nightly.run_again(world))
    assert not faults.failed


def wrong_words(code: int, said: str) -> list[str]:
    """Return what is wrong with how the command ended: one line is wanted, with the cause and the cure."""
    lines = said.splitlines() or [""]
    is_told = re.match(
        r"userrep: a disk is full \(No space left on device\): .* run the same command again\.$", lines[-1]
    )
    traces = [line for line in lines if line.startswith(("\tat ", "Caused by: ", "Traceback "))]
    return [] if code == 1 and is_told and not traces else [f"ended with {code}: {said[-1500:]}"]


def published(world: World) -> list[Snapshot]:
    tables = Tables(None, root=str(world.root))
    return list_snapshots(tables, find_space(tables, None).space_id)


def used(folder: Path) -> int:
    """Return the bytes that files take on a disk."""
    return sum(-(-path.stat().st_size // _PAGE) * _PAGE for path in folder.rglob("*") if path.is_file())
