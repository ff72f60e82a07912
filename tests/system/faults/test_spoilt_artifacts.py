"""A night over weights that are spoilt says which, and what serves stays; with the file restored it is made."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.faults.attack import Attack
from tests.system.faults.fault_world import World
from userrep.schemas import USER_EMBEDDINGS
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import Snapshot, list_snapshots
from userrep.tables import Tables

pytestmark = pytest.mark.full

SPOILT: dict[str, Callable[[bytes], bytes | None]] = {
    "torn": lambda whole: whole[: len(whole) // 2],
    "a bit is another": lambda whole: whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
    "gone": lambda _: None,
}


def served(root: Path) -> tuple[str, list[tuple[Snapshot, dict[str, bytes]]]]:
    """Return which space serves, and its published snapshots, each with its files' bytes."""
    tables = Tables(None, root=str(root))
    space_id, folder = find_space(tables, None).space_id, Path(tables.uri(USER_EMBEDDINGS))
    files = {
        (of.space_id, of.as_of, of.revision): tables.files(
            USER_EMBEDDINGS,
            lambda values, of=of: values == {"space_id": of.space_id, "as_of": of.as_of, "revision": of.revision},
        )
        for of in list_snapshots(tables, space_id)
    }
    found = [
        (of, {file.path: (folder / file.path).read_bytes() for file in files[of.space_id, of.as_of, of.revision]})
        for of in list_snapshots(tables, space_id)
    ]
    return space_id, found


@pytest.mark.parametrize("how", SPOILT)
def test_a_night_over_spoilt_weights_names_them_and_what_serves_stays_to_the_byte(
    nightly: Attack, trained: World, tmp_path: Path, how: str
) -> None:
    world = trained.copy(tmp_path / "night")
    before = served(world.root)
    (weights,) = (world.root / "artifacts" / "spaces").glob("[!.]*/weights.safetensors")
    whole = weights.read_bytes()
    spoilt = SPOILT[how](whole)
    weights.unlink() if spoilt is None else weights.write_bytes(spoilt)
    code, said = world.ends(nightly.command)
    (why,) = [line for line in said.splitlines() if line.startswith("userrep: ")]
    assert (code, "Traceback" in said) == (1, False)
    assert str(weights.parent) in why
    assert weights.name in why
    assert "estore" in why
    assert served(world.root) == before
    assert all(files for _, files in before[1])
    weights.write_bytes(whole)
    assert nightly.run_again(world) == []
