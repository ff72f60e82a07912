"""What a consumer may read and write at a root, as a user who owns everything and as one who does not."""

from datetime import date
from pathlib import Path

import pytest

from tests.support.embedding_tables import add_spaces, publish, snapshot
from userrep.cli.consumer_checks import consumer_checks
from userrep.spaces.registry import find_space, mark_ready, promote
from userrep.store.file_tables import FileTables

pytestmark = pytest.mark.fast

SPACE = "s001-a"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root whose serving space has one snapshot, but no artifact and no streamed vectors."""
    tables = FileTables(None, str(tmp_path / "root"))
    add_spaces(tables, SPACE)
    publish(tables, {snapshot(date(2024, 5, 1)): {"u1": [1.0], "u2": [2.0]}})
    mark_ready(tables, find_space(tables, SPACE))
    promote(tables, find_space(tables, SPACE))
    return tmp_path / "root"


def found(root: Path) -> dict[str, tuple[bool, str]]:
    return {result.check: (result.ok, result.found) for result in consumer_checks(str(root))}


def test_a_consumer_learns_what_can_be_read_and_who_needs_the_rest(root: Path) -> None:
    checks = found(root)
    assert checks["registry"] == (True, "s001-a serves")
    assert checks["snapshots"] == (True, "1 published, the newest of 2024-05-01 with 2 users")
    assert checks["user_embeddings"] == (True, "readable")
    assert checks["embedding_updates"] == (True, "no streamed vectors")
    ok, text = checks["artifacts"]
    assert ok
    assert text.startswith('only needed for missing="new_user", maps between spaces and EmbeddingModel: ')
    assert checks["writing"] == (True, "permitted")


def test_a_root_where_nothing_serves_ends_the_checks(tmp_path: Path) -> None:
    add_spaces(FileTables(None, str(tmp_path)), SPACE)
    checks = found(tmp_path)
    assert list(checks)[-1] == "registry"
    ok, text = checks["registry"]
    assert not ok
    assert text.startswith("no space serves yet.")


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    ok, text = found(tmp_path)["registry"]
    assert not ok
    assert text.startswith("no userrep tables at")


def test_vectors_that_cannot_be_read_are_found(root: Path) -> None:
    for file in (root / "tables" / "user_embeddings").rglob("*.parquet"):
        file.unlink()
    ok, text = found(root)["user_embeddings"]
    assert not ok
    assert "No such file" in text
