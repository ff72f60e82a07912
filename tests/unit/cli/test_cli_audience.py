"""``userrep audience``: from the seed list to the folder, without Spark, and what it refuses."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.audience_world import AudienceWorld, audience_world
from tests.support.command_line import Answer, Userrep, config_file
from userrep.store.schemas import EXPORTS

pytestmark = [pytest.mark.fast, pytest.mark.usefixtures("one_core")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> AudienceWorld:
    return audience_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def audience(userrep: Userrep, no_spark: None, world: AudienceWorld, tmp_path: Path) -> "Audience":
    return Audience(userrep, world, tmp_path)


class Audience:
    """Runs the command on a world, with a seed list of text."""

    def __init__(self, userrep: Userrep, world: AudienceWorld, folder: Path) -> None:
        users = {"path": str(world.users), "columns": {"user_id": "id"}, "protected": ["age"]}
        self.config = config_file(folder, root=world.tables.location, users=users)
        self.seeds, self.out = folder / "seeds.txt", folder / "out"
        self.seeds.write_text("\n".join([*world.alike[::2], "stranger"]))
        self._userrep = userrep

    def __call__(self, *more: str | Path, size: int = 100) -> Answer:
        given = ("--seeds", self.seeds, "--size", str(size), "--out", self.out, "-c", self.config, *more)
        return self._userrep("audience", *given)


def test_an_audience_is_written_and_its_table_printed(audience: Audience, world: AudienceWorld) -> None:
    answer = audience()
    assert (answer.code, answer.faults) == (0, [])
    num = len(world.alike[::2])
    assert f"seeds: 1 of {num + 1} (1%) are not in snapshot s001-a-20240501-r1, such as stranger" in answer.err
    lines = answer.out.splitlines()
    assert lines[0].startswith(f"{num} seeds, held-out AUC 0.")
    assert lines[1].split() == ["size", "seeds_found", "precision", "lift"]
    assert [line.split()[0] for line in lines[2:7]] == ["25", "50", "100", "200", "400"]
    assert lines[7].startswith("removed age: AUC of a linear model 0.")
    assert lines[8] == f"audience of 2024-05-01: 100 users in {audience.out}"
    assert pq.read_table(audience.out).num_rows == 100
    again = audience()
    assert (again.code, again.faults) == (
        2, [f"--out {audience.out}: the folder has a complete export. Choose another folder."],
    )  # fmt: skip


def test_json_is_the_manifest_and_an_unrecorded_folder_has_no_record(audience: Audience, world: AudienceWorld) -> None:
    recorded = len(world.tables.ledger(EXPORTS))
    printed = json.loads(audience("--json", "--unrecorded", "--as-of", "2024-05-01", "--space", "s001-a").out)
    stored = json.loads((audience.out / "_manifest.json").read_text())
    assert {name: stored[name] for name in printed if name != "exported_at"} == {
        name: value for name, value in printed.items() if name != "exported_at"
    }
    assert (printed["num_rows"], printed["protected"]["probes"][0]["attribute"]) == (100, "age")
    assert len(world.tables.ledger(EXPORTS)) == recorded


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--as-of", "2024-05-02"), "has no snapshot of 2024-05-02"),
        (("--space", "s002-b"), "space s002-b has no published snapshot"),
        (("--exclude", "none.txt"), "--exclude none.txt: No such file or directory"),
        (("--size", "0"), "Invalid value for '--size'"),
    ],
)
def test_each_refusal_is_one_line_and_writes_nothing(audience: Audience, more: tuple[str, ...], said: str) -> None:
    answer = audience(*more)
    assert (answer.code, answer.out, len(answer.faults)) == (2, "", 1)
    assert said in answer.faults[0]
    assert not audience.out.exists()
