"""A daily run over damaged weights names the file, leaves what serves as it is, and succeeds with the file restored."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command_line import Userrep
from tests.system.faults.attack import Attack
from tests.system.faults.fault_world import NIGHT, World
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import Snapshot, list_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.schemas import USER_EMBEDDINGS

pytestmark = pytest.mark.full

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "truncated": lambda whole: whole[: len(whole) // 2],
    "a flipped bit": lambda whole: whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
    "missing": lambda _: None,
}


def served(root: Path) -> tuple[str, list[tuple[Snapshot, dict[str, bytes]]]]:
    """Return the space that serves, and its published snapshots with the bytes of their files."""
    tables = FileTables(None, str(root))
    space_id, folder = find_space(tables, None).space_id, Path(tables.uri(USER_EMBEDDINGS))
    found = []
    for snapshot in list_snapshots(tables, space_id):
        key = {"space_id": snapshot.space_id, "as_of": snapshot.as_of, "revision": snapshot.revision}
        files = tables.files(USER_EMBEDDINGS, lambda values, key=key: values == key)
        assert files
        found.append((snapshot, {file.path: (folder / file.path).read_bytes() for file in files}))
    return space_id, found


def test_a_daily_run_over_damaged_weights_names_them_and_leaves_what_serves_to_the_byte(
    nightly: Attack, trained: World, tmp_path: Path, userrep: Userrep
) -> None:
    world = trained.copy(tmp_path / "damaged")
    before = served(world.root)
    (weights,) = (world.root / "artifacts" / "spaces").glob("[!.]*/*/weights.safetensors")
    whole = weights.read_bytes()
    for name, damage in DAMAGES.items():
        damaged = damage(whole)
        weights.unlink() if damaged is None else weights.write_bytes(damaged)
        answer = userrep("daily", "--as-if-on-time", "--as-of", str(NIGHT), "--config", world.file)
        (why,) = answer.faults
        assert answer.code == 1, name
        assert f"{weights.parent}" in why, name
        assert weights.name in why, name
        assert "estore" in why, name
        assert served(world.root) == before, name
    weights.write_bytes(whole)
    assert nightly.run_again(world) == []
