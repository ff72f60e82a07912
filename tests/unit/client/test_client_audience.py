"""``userrep.open(...).audience``: the same audiences as the command's, for lists in memory and in files."""

from pathlib import Path

import pandas as pd
import pytest

import userrep
from tests.support.audience_world import AudienceWorld, audience_world
from tests.support.command_line import config_file
from userrep.errors import UsageError

pytestmark = [pytest.mark.fast, pytest.mark.usefixtures("one_core")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> AudienceWorld:
    return audience_world(tmp_path_factory.mktemp("world"), num_users=1000, dim=6)


def test_ids_a_series_and_a_file_give_the_same_audience(world: AudienceWorld, tmp_path: Path, lines: list[str]) -> None:
    users = {"path": str(world.users), "columns": {"user_id": "id"}, "protected": ["age"]}
    embeddings = userrep.open(config_file(tmp_path, root=world.tables.location, users=users))
    seeds, opted_out = world.alike[::2], world.alike[1:9:2]
    (tmp_path / "seeds.txt").write_text("\n".join(seeds))
    found = [
        embeddings.audience(given, 40, exclude=opted_out) for given in (seeds, pd.Series(seeds), tmp_path / "seeds.txt")
    ]
    assert found[0].users.equals(found[1].users)
    assert found[0].users.equals(found[2].users)
    assert not {*seeds, *opted_out} & set(found[0].users["user_id"].to_pylist())
    assert [probe["attribute"] for probe in found[0].facts["protected"]["probes"]] == ["age"]
    lines.clear()
    embeddings.audience([*seeds[:50], "stranger"], 10)
    assert [line.partition(" s0")[0] for line in lines] == ["seeds: 1 of 51 (2%) are not in snapshot"]


def test_an_audience_needs_the_configuration_that_names_protected_attributes(world: AudienceWorld) -> None:
    with pytest.raises(
        UsageError, match=r"audience: the protected attributes are not known, .* userrep\.open\('userrep\.yaml'\)"
    ):
        userrep.open(world.tables.location).audience(world.alike, 10)
