"""Commands that only read work on a root that this user may not write to, and leave it as it is.

File modes do not restrict the user root, who may run the tests: setpriv takes this privilege from the commands.
"""

import json
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from pyspark.sql import SparkSession

from tests.support.builders import AS_OF
from tests.support.command_line import config_file
from tests.support.embedding_tables import Update, add_updates
from tests.support.planted_spaces import NEW, OLD, Tastes, labels_of, planted_tables, rotated, written
from userrep.config import Config
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import list_snapshots
from userrep.store.file_tables import FileTables
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.full

PRIVILEGES = "-dac_override,-dac_read_search"
# Runs commands one after the other in one process, and prints their exit codes and what they said.
RUN_ALL = """
import contextlib, io, json, sys
from userrep.cli import main as cli
answers = []
for command in json.loads(sys.argv[1]):
    sys.argv = ["userrep", *command]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
    answers.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
"""
LOOK_UP = """
import sys
import pandas as pd
import userrep
from userrep.joins.embedding_join import EmbeddingJoin
from userrep.spark.session import get_session
embeddings = userrep.open(sys.argv[1])
labels = pd.DataFrame({"user_id": sys.argv[2:], "label_at": pd.Timestamp("2030-01-01")})
print(len(embeddings.lookup(sys.argv[2:])), len(embeddings.join(labels)), embeddings.latest().num_rows, end=" ")
stage = EmbeddingJoin(root=embeddings.tables.location, handleInvalid="keep")
print(stage.transform(get_session("local[2]").createDataFrame(labels)).count())
"""


def without_privileges(*words: str) -> str:
    """Run a Python script in a process that may only write where file modes let it; return what it printed last."""
    without = ["setpriv", f"--bounding-set={PRIVILEGES}", f"--inh-caps={PRIVILEGES}"]
    call = [*without, sys.executable, "-c", *words]
    return subprocess.run(call, capture_output=True, text=True, check=True, timeout=500).stdout.splitlines()[-1]


def run_all(*commands: list[str]) -> list[tuple[int, str, str]]:
    """Run commands in such a process; return their exit codes and what they said."""
    return [tuple(answer) for answer in json.loads(without_privileges(RUN_ALL, json.dumps(commands)))]


def state_of(folder: Path) -> dict[str, tuple[int, float]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime) for path in sorted(folder.rglob("*"))}


@pytest.fixture
def read_only(done: tuple[RunContext, Config], tmp_path: Path) -> Path:
    """A configuration of a built root without any permission to write, next to a model of its space, ``model.json``."""
    values = done[1].model_dump(mode="json", by_alias=True, exclude_unset=True)
    root = Path(shutil.copytree(values["root"], tmp_path / "root"))
    space_id = find_space(done[0].tables, None).space_id
    add_updates(FileTables(None, str(root)), [Update(AS_OF, "u0000001", datetime(2024, 3, 14), [0.0], space=space_id)])
    weights = [1.0] * done[1].model.latent_dim
    (tmp_path / "model.json").write_text(json.dumps({"weights": weights, "space_id": space_id}), encoding="utf-8")
    config = tmp_path / "userrep.yaml"
    config.write_text(yaml.safe_dump(values | {"root": str(root)}))
    subprocess.run(["chmod", "-R", "a-w", root], check=True)
    return config


def test_commands_that_read_work_on_a_read_only_root_and_leave_it_as_it_is(
    spark: SparkSession, done: tuple[RunContext, Config], read_only: Path, tmp_path: Path
) -> None:
    space_id, root = find_space(done[0].tables, None).space_id, tmp_path / "root"
    before, at = state_of(root), ["--config", str(read_only)]
    out = [str(tmp_path / name) for name in ("embeddings", "features", "items", "segments")]
    as_of, unrecorded = ["--as-of", str(AS_OF), "--out"], "--unrecorded"
    users = [f"u{k:07d}" for k in range(200)]
    (tmp_path / "seeds.txt").write_text("\n".join(users), encoding="utf-8")
    audience = ["--seeds", str(tmp_path / "seeds.txt"), "--size", "9", "--out", str(tmp_path / "audience")]
    reading = [
        ["status"], ["spaces", "list"], ["spaces", "show", space_id], ["consumers", "list"],
        ["spaces", "promote", space_id, "--dry-run"], ["report", "--out", str(tmp_path / "report.html")],
        ["export", "embeddings", *as_of, out[0], unrecorded], ["export", "features", *as_of, out[1], unrecorded],
        ["export", "item-vectors", *as_of, out[2]], ["estimate", "--users", "9", "--events-per-day", "9"],
        ["explain", "space"], ["audience", *audience, unrecorded], ["daily", "--as-of", str(AS_OF), "--dry-run"],
        ["pipeline", "--as-of", str(AS_OF), "--dry-run"], ["explain", "segments", "--out", out[3], unrecorded],
        ["backfill", "--from", str(AS_OF), "--to", str(AS_OF), "--dry-run"], ["check"],
        ["explain", "model", "--model", str(tmp_path / "model.json")], ["stream", "verify", "--as-of", str(AS_OF)],
        ["forget", "--users", str(tmp_path / "seeds.txt"), "--dry-run"],
    ]  # fmt: skip
    writing = [
        ["export", "embeddings", *as_of, str(tmp_path / "recorded")], ["spaces", "rollback"],
        ["consumers", "register", "ads", "--owner", "ads"], ["pipeline", "--as-of", str(AS_OF)],
    ]  # fmt: skip
    answers = run_all(*([*command, *at] for command in reading + writing))
    for command, (code, _, err) in zip(reading, answers, strict=False):
        # no refresh to estimate from is recorded, and the streamed vector differs from the snapshot
        expected = {"check": (0, 3), "estimate": (2,), "stream": (3,)}.get(command[0], (0,))
        assert code in expected, f"{command}: {err}"
    assert space_id in answers[0][1]
    assert "is not recorded; `userrep forget` will not erase users there" in answers[6][2]
    (newest,) = (s for s in list_snapshots(done[0].tables, space_id) if s.as_of == AS_OF)
    assert spark.read.parquet(out[0]).count() == newest.num_users
    for command, (code, said, err) in zip(writing, answers[len(reading) :], strict=True):
        assert (code, said) == (2, ""), command
        assert err.startswith(f"userrep: root {root}: not writable ("), command
    assert "Use --unrecorded to export without a record" in answers[len(reading)][2]
    assert not (tmp_path / "recorded").exists()
    assert state_of(root) == before


def test_vectors_are_looked_up_and_joined_on_a_read_only_root(
    done: tuple[RunContext, Config], read_only: Path, tmp_path: Path
) -> None:
    before, tables = state_of(tmp_path / "root"), done[0].tables
    counts = without_privileges(LOOK_UP, str(read_only), *(f"u{k:07d}" for k in range(3))).split()
    newest = list_snapshots(tables, find_space(tables, None).space_id)[-1]
    assert counts == ["3", "3", str(newest.num_users), "3"]
    assert state_of(tmp_path / "root") == before


def test_spaces_on_a_read_only_root_are_compared(tmp_path: Path) -> None:
    tastes, root = Tastes.drawn(200), tmp_path / "root"
    planted_tables(root, rotated, tastes)
    labels, config = written(labels_of(tastes), tmp_path), config_file(tmp_path)
    subprocess.run(["chmod", "-R", "a-w", root], check=True)
    before, at = state_of(root), ["--labels", labels, "--config", str(config)]
    alone, recorded = run_all(
        ["spaces", "compare", OLD, NEW, *at], ["spaces", "compare", OLD, NEW, *at, "--consumer", "ads"]
    )
    assert alone[0] == 0, alone[2]
    assert "verdict: " in alone[1]
    assert recorded[0] == 2
    assert recorded[2].startswith(f"userrep: root {root}: not writable (")
    assert state_of(root) == before
