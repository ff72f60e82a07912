"""The report of a whole pipeline: a page without user ids, and what the command refuses."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import SparkSession

from tests.support.command_line import Userrep, config_file, with_tables
from tests.unit.report.test_report_gather import a_run
from userrep.config import Config
from userrep.report.user_map import map_users
from userrep.sources.tombstones import add_tombstones
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import list_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.schemas import JOB_RUNS
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.default


def test_the_page_of_a_whole_pipeline_has_every_part_and_no_user_id(
    userrep: Userrep,
    spark: SparkSession,
    log: Path,
    done: tuple[RunContext, Config],
    tmp_path: Path,
) -> None:
    work, made = done
    root = tmp_path / "root"
    shutil.copytree(str(made.root), root)
    values = made.model_dump(mode="json", by_alias=True, exclude_unset=True) | {"root": str(root)}
    path, out = tmp_path / "mine.yaml", tmp_path / "out.html"
    path.write_text(yaml.safe_dump(values))
    before = {of: FileTables(None, str(root)).version(of) for of in (JOB_RUNS,)}
    answer = userrep("report", "--config", path, "--out", out, "--json")
    assert answer.code == 0
    figures = json.loads(answer.out)
    assert figures == json.loads(out.with_suffix(".json").read_text())
    assert {of: FileTables(None, str(root)).version(of) for of in (JOB_RUNS,)} == before  # a report is no run
    space = find_space(work.tables, None)
    assert figures["space_id"] == space.space_id
    assert figures["log"]["rejected"]
    assert len(figures["log"]["days"]) == 74
    curve, metrics = figures["training"]["curve"], figures["training"]["metrics"]
    assert [row["epoch"] for row in curve] == list(range(1, int(metrics["epochs"]) + 1))
    assert curve[int(metrics["best_epoch"]) - 1]["valid_loss"] == metrics["valid_loss"]
    groups = figures["user_map"]["groups"]
    assert sum(len(of["points"]) for of in groups) == figures["user_map"]["num_users"] <= 600
    assert figures["user_map"]["coloured_by"] == "events in 28 days"
    users = set(pq.read_table(log / "users", columns=["user_id"])["user_id"].to_pylist())
    texts = out.read_text() + answer.out
    assert len(users) == 600
    assert [user for user in users if user in texts] == []
    again = userrep("report", "--config", path, "--out", out, "--space", space.space_id)
    assert again.code == 0
    assert again.out.splitlines()[-1] == f"report: {out}, figures: {out.with_suffix('.json')}"
    unknown = userrep("report", "--config", path, "--out", out, "--space", "s9")
    assert (unknown.code, unknown.out) == (2, "")
    assert unknown.faults[0].startswith(f"space s9: not in the registry. Known spaces: {space.space_id}.")


def test_without_features_of_the_date_users_have_one_color(done: tuple[RunContext, Config]) -> None:
    work, made = done
    space = find_space(work.tables, None)
    newest = list_snapshots(work.tables, space.space_id)[-1]
    bare = made.model_copy(update={"users": None, "onboarding": None})  # of another lineage: no features of its own
    found = map_users(work.tables, bare, space, newest)
    assert found is not None
    assert (found.coloured_by, [of.label for of in found.groups]) == (
        "nothing (the features of this date do not exist)", ["not known"],
    )  # fmt: skip


def test_erased_users_are_not_on_the_map(done: tuple[RunContext, Config], log: Path, tmp_path: Path) -> None:
    _, made = done
    shutil.copytree(str(made.root), tmp_path / "root")
    tables = FileTables(None, str(tmp_path / "root"))
    space = find_space(tables, None)
    newest = list_snapshots(tables, space.space_id)[-1]
    users = pq.read_table(log / "users", columns=["user_id"])["user_id"].to_pylist()

    def num_points() -> int:
        user_map = map_users(tables, made, space, newest)
        assert user_map is not None
        return sum(len(group.points) for group in user_map.groups)

    before = num_points()
    add_tombstones(tables, users[: len(users) // 2])
    assert 0 < num_points() < before


def test_a_report_is_refused_before_spark_starts(
    userrep: Userrep,
    no_spark: None,
    tmp_path: Path,
) -> None:
    path, out = with_tables(config_file(tmp_path)), tmp_path / "out.html"

    def refused(*more: object) -> str:
        answer = userrep("report", "--config", path, *map(str, more))
        assert (answer.code, answer.out, len(answer.faults)) == (2, "", 1)
        return answer.faults[0]

    assert refused("--out", out) == (
        f"report: nothing has run yet. Run `userrep pipeline --config {path} --as-of D` to create the tables, a space "
        "and its first snapshots."
    )
    assert "the name does not end in .html" in refused("--out", tmp_path / "out.pdf")
    assert "space '../x' is not a valid name" in refused("--out", out, "--space", "../x")
    FileTables(None, str(tmp_path / "root")).add(JOB_RUNS, [a_run("build_activity_tiles", "r1", outcome="failed")])
    assert refused("--out", out, "--space", "s9").startswith("space s9: not in the registry. Known spaces: none.")
    assert not out.exists()
