"""``userrep consumers``: what it prints of the registry after each change. None of it needs Spark."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Userrep, config_file
from userrep.spaces.consumers import record_training_set
from userrep.spaces.registry import add_candidate, find_space, mark_ready, promote, read_registry
from userrep.store.file_tables import FileTables
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return config_file(tmp_path)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Tables with two spaces that are ready."""
    tables = FileTables(None, str(tmp_path / "root"))
    for space_id in ("s1", "s2"):
        add_candidate(tables, space_id=space_id, lineage_id="l1", trained_until=date(2024, 4, 1), content_hash="x")
        mark_ready(tables, find_space(tables, space_id))
    return tables


def test_each_change_is_confirmed_in_a_line_or_as_json(
    userrep: Userrep, no_spark: None, config: Path, tables: Tables
) -> None:
    confirmed = {
        "register ads --owner ada": "ads follows the serving space",
        "register mail --owner ada --pin s1": "mail is pinned to s1",
        "ready ads s2": "ads is ready for s2",
        "pin ads s2": "ads is pinned to s2",
        "pin mail serving": "mail follows the serving space",
        "remove mail": "mail is removed",
    }
    for command, line in confirmed.items():
        answer = userrep("consumers", *command.split(), "--config", config)
        assert answer == (0, f"{line}\n", ""), command
    as_json: dict[str, dict[str, Any]] = {
        "register web --owner ada": {"consumer": "web", "owner": "ada", "pin": None},
        "ready web s1": {"consumer": "web", "ready_for": "s1"},
        "pin web s1": {"consumer": "web", "pin": "s1"},
        "remove web": {"removed": "web"},
    }
    for command, found in as_json.items():
        assert json.loads(userrep("consumers", *command.split(), "--config", config, "--json").out) == found
    ads = read_registry(tables).consumer("ads")
    assert (ads.owner, ads.pinned_space_id, ads.ready_for) == ("ada", "s2", "s2")


def test_consumers_are_listed_with_the_space_that_each_uses(
    userrep: Userrep, no_spark: None, config: Path, tables: Tables
) -> None:
    def listed() -> list[list[str]]:
        lines = userrep("consumers", "list", "--config", config).out.splitlines()
        return [[cell for cell in line.split("  ") if cell.strip()] for line in lines[1:]]

    assert userrep("consumers", "list", "--config", config).out == "no consumers yet\n"
    assert json.loads(userrep("consumers", "list", "--config", config, "--json").out) == {"consumers": []}
    userrep("consumers", "register", "ads", "--owner", "ada", "--config", config)
    userrep("consumers", "register", "mail", "--owner", "team mail", "--pin", "s2", "--config", config)
    record_training_set(tables, "mail", training_set_id="t1", snapshot_ids=["s2-20240401-r1"])
    seen = {name: f"{read_registry(tables).consumer(name).last_seen_at:%Y-%m-%d %H:%M}" for name in ("ads", "mail")}
    assert [[cell.strip() for cell in row] for row in listed()] == [
        ["ads", "ada", "serving (none yet)", "-", "-", seen["ads"]],
        ["mail", "team mail", "s2 (pinned)", "-", "t1", seen["mail"]],
    ]
    promote(tables, find_space(tables, "s1"))
    assert listed()[0][2].strip() == "serving (s1)"
    found = json.loads(userrep("consumers", "list", "--config", config, "--json").out)["consumers"]
    assert [(of["name"], of["follows"], of["space_id"]) for of in found] == [("ads", True, "s1"), ("mail", False, "s2")]
    assert found[1]["snapshot_ids"] == ["s2-20240401-r1"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("register ads --owner ada --pin s9", "space s9: not in the registry. Known spaces: s1, s2."),
        ("ready ads s1", "consumer ads: not registered. Known consumers: none."),
        ("pin ads s1", "consumer ads: not registered. Known consumers: none."),
    ],
)
def test_a_change_that_is_refused_leaves_no_trace(
    userrep: Userrep, no_spark: None, config: Path, tables: Tables, command: str, said: str
) -> None:
    answer = userrep("consumers", *command.split(), "--config", config, "--json")
    assert (answer.code, len(answer.faults)) == (2, 1)
    assert json.loads(answer.out) == {"exit_code": 2, "faults": answer.faults}
    assert answer.faults[0].startswith(said)
    assert json.loads(userrep("consumers", "list", "--config", config, "--json").out) == {"consumers": []}
