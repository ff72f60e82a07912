"""``userrep explain``: its options, what it prints, and what it refuses. None of it needs Spark."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.command_line import Userrep, config_file, file_of, with_tables
from tests.support.explained_world import NUM_USERS, World, explained_world

pytestmark = [pytest.mark.fast, pytest.mark.usefixtures("one_core")]


class Site(NamedTuple):
    """A world, its configuration file, and a model of the number of events."""

    world: World
    config: Path
    model: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    world = explained_world(folder)
    model = folder / "model.json"
    weights = [1.0, *[0.0] * (world.z_ND.shape[1] - 1)]
    model.write_text(json.dumps({"weights": weights, "space_id": "s001-a"}))
    return Site(world, file_of(world.config, folder), model)


def test_a_table_of_blocks_is_printed_for_a_space(userrep: Userrep, no_spark: None, site: Site) -> None:
    answer = userrep("explain", "space", "--config", site.config)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].startswith(f"snapshot s001-a-20240501-r1: {NUM_USERS} users sampled, of which ")
    assert lines[1].split() == ["block", "numbers", "users", "R2"]
    assert [line.split()[0] for line in lines[2:]] == [block.name for block in site.world.layout.blocks]
    assert lines[-1].split() == ["flags", "3", "600", "-"]
    answer = userrep("explain", "space", "--config", site.config, "--as-of", "2024-05-01", "--json")
    assert [block["block"] for block in json.loads(answer.out)["blocks"]] == [line.split()[0] for line in lines[2:]]


def test_shares_and_labels_are_printed_for_a_model(userrep: Userrep, no_spark: None, site: Site) -> None:
    answer = userrep("explain", "model", "--config", site.config, "--model", site.model)
    assert answer.code == 0
    assert "unexplained" in answer.out
    found = json.loads(userrep("explain", "model", "--config", site.config, "--model", site.model, "--json").out)
    assert sum(found["shares"].values()) + found["unexplained"] == pytest.approx(1)
    assert found["space_id"] == "s001-a"


def test_segments_are_written_and_printed(userrep: Userrep, no_spark: None, site: Site, tmp_path: Path) -> None:
    out = tmp_path / "segments"
    command = ("explain", "segments", "--config", site.config, "--segments", "4", "--out")
    answer = userrep(*command, out)
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == f"segments of 2024-05-01: 600 users in {out}"
    found = json.loads(userrep(*command, tmp_path / "next", "--previous", out, "--json").out)
    assert [each["segment"] for each in found["segments"]] == ["s01", "s02", "s03", "s04"]
    assert found["ended"] == []
    assert "sha256" not in found
    answer = userrep(*command, f"{out}/", "--previous", out)
    assert (answer.code, answer.faults) == (
        2,
        [f"--out {out}/: is also --previous, which is needed to count moves. Choose another folder."],
    )
    link = tmp_path / "link"
    link.symlink_to(out, target_is_directory=True)
    answer = userrep(*command, link, "--previous", out)
    assert (answer.code, f"--out {link}: is also --previous" in answer.faults[0]) == (2, True)


def test_models_without_or_of_another_space_are_refused(
    userrep: Userrep, no_spark: None, site: Site, tmp_path: Path
) -> None:
    unnamed = tmp_path / "unnamed.json"
    unnamed.write_text(json.dumps({"weights": [1.0] * 20}))
    answer = userrep("explain", "model", "--config", site.config, "--model", unnamed)
    assert (answer.code, answer.faults) == (
        2,
        [f"--model {unnamed}: does not name the space it was trained on. Name it with --space."],
    )
    assert userrep("explain", "model", "--config", site.config, "--model", unnamed, "--space", "s001-a").code == 0
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"weights": [1.0] * 20, "space_id": "s009-x"}))
    answer = userrep("explain", "model", "--config", site.config, "--model", other, "--space", "s001-a")
    assert answer.code == 2
    assert "trained on space s009-x, not on s001-a" in answer.faults[0]
    assert userrep("explain", "model", "--config", site.config, "--model", other).code == 2  # no such space


def test_faults_are_found_before_anything_is_read(userrep: Userrep, no_spark: None, site: Site, tmp_path: Path) -> None:
    answer = userrep("explain", "space", "--config", site.config, "--as-of", "2024-05-02")
    assert answer.code == 2
    assert "has no snapshot of 2024-05-02" in answer.faults[0]
    (tmp_path / "mine.csv").write_text("kept")
    answer = userrep("explain", "segments", "--config", site.config, "--out", tmp_path)
    assert (answer.code, "is not an earlier export (mine.csv)" in answer.faults[0]) == (2, True)
    answer = userrep("explain", "segments", "--config", site.config, "--out", tmp_path / "o", "--previous", tmp_path)
    assert answer.code == 2
    assert answer.faults[0].startswith(f"--previous {tmp_path}: no segments")
    assert userrep("explain", "segments", "--config", site.config, "--out", tmp_path / "o", "--segments", "1").code == 2
    empty = tmp_path / "empty"
    empty.mkdir()
    answer = userrep("explain", "space", "--config", with_tables(config_file(empty)))
    assert answer.code == 2


def test_without_a_question_help_is_shown(userrep: Userrep, no_spark: None) -> None:
    answer = userrep("explain")
    assert answer.code == 2
    assert all(name in answer.out + answer.err for name in ("space", "model", "segments"))
