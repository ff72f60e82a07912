"""A daily run on a disk that fills reports it, leaves what is published, and succeeds once there is space.

The disk is a real file system, a small one, in a mount namespace of the command.
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
from userrep.store.file_tables import FileTables

pytestmark = pytest.mark.full

NAMESPACE = ("unshare", "--map-root-user", "--mount")
SHARES = 12 if ALL else 1  # sizes of the disk, from no free space to nearly what a daily run writes
_PAGE = 4096  # bytes; the unit in which such a disk allocates
_VARIES = 5 * _PAGE  # by which equal daily runs differ: with less than that missing, the space may be enough


@pytest.fixture(scope="module", autouse=True)
def can_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where mounts are not allowed, not even in a namespace of the test."""
    folder = str(tmp_path_factory.mktemp("mount"))
    tried = subprocess.run(
        [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"this machine does not allow mounts: {tried.stderr.strip()}")


def test_a_daily_run_on_a_full_disk_reports_it_and_run_again_with_space_ends_as_an_undisturbed_one(
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
        code, output = world.ends(nightly.command, within=within)
        found = wrong_report(code, output) + Reader(world.root).look() + doubled(world.root)
        found += [f"{snapshot.snapshot_id} has changed" for snapshot in before if snapshot not in published(world)]
        free_space = f"{free // 1024:,} KB of {written // 1024:,} KB free"
        faults.record("disk full during a daily run", free_space, found + nightly.run_again(world))
    assert not faults.failed


def wrong_report(code: int, output: str) -> list[str]:
    """Return what is wrong with the end of the command: its last line must name the cause and the remedy."""
    lines = output.splitlines() or [""]
    is_reported = re.match(
        r"userrep: a disk is full \(No space left on device\): .* run the same command again\.$", lines[-1]
    )
    traces = [line for line in lines if line.startswith(("\tat ", "Caused by: ", "Traceback "))]
    return [] if code == 1 and is_reported and not traces else [f"ended with {code}: {output[-1500:]}"]


def published(world: World) -> list[Snapshot]:
    tables = FileTables(None, str(world.root))
    return list_snapshots(tables, find_space(tables, None).space_id)


def used(folder: Path) -> int:
    """Return the bytes that files occupy on a disk."""
    return sum(-(-path.stat().st_size // _PAGE) * _PAGE for path in folder.rglob("*") if path.is_file())
