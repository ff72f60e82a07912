"""The wheel of this repository: what it contains, and what works in an environment with only it and some extras."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from deploy.compat import UNUSED
from tests.support.embedding_tables import add_spaces, publish, snapshot
from userrep.spaces.registry import find_space, mark_ready, promote
from userrep.store.file_tables import FileTables

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
PINNED = ("--constraint", "deploy/constraints/spark-4.2.txt", *UNUSED)
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this repository."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(folder)], check=True, cwd=folder)
    (wheel,) = folder.glob("userrep-*.whl")
    return wheel


def installed(wheel: Path, folder: Path, extras: str = "", *options: str) -> Path:
    """Install the wheel with some extras in an empty environment. Return the folder of its programs."""
    uv, programs = Path(sys.executable).with_name("uv"), folder / "bin"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    package = f"userrep{extras} @ {wheel.as_uri()}"
    command = [uv, "pip", "install", "--quiet", "--python", programs / "python", *options, package]
    subprocess.run(command, check=True, cwd=ROOT)
    return programs


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command in the folder of the test, without the environment of the tests."""
    own = {"PYTHONPATH", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON", "USERREP_CONFIG", "MLFLOW_TRACKING_URI"}
    environment = {name: value for name, value in os.environ.items() if name not in own}

    def run_it(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run_it


def test_the_wheel_has_the_package_its_data_and_the_example_consumer(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    folders = {
        "userrep": ROOT / "userrep",
        "return_propensity": ROOT / "examples" / "return_propensity",
        "userrep-0.2.0.data/data/share/userrep/jobs": ROOT / "jobs",
        "userrep-0.2.0.data/data/share/userrep/conf": ROOT / "conf",
    }
    for package, folder in folders.items():
        endings = ("py", "html", "css", "yaml", "properties", "conf")
        data = [file for ending in endings for file in folder.rglob(f"*.{ending}")]
        assert data
        assert {f"{package}/{file.relative_to(folder)}" for file in data} - names == set()
    assert "userrep-0.2.0.dist-info/licenses/LICENSE" in names


CONSUMER = """
import datetime, sys
import pandas as pd
import userrep

embeddings = userrep.open(sys.argv[1])
labels = pd.DataFrame({"user_id": ["u1", "u2", "new"], "label_at": [pd.Timestamp("2024-05-03 12:00")] * 3})
joined = embeddings.join(labels)
print([None if v is None else v.tolist() for v in joined.embedding], joined.embedding_status.tolist())
print(embeddings.lookup(["u2"]).embedding[0].tolist(), embeddings.latest().num_rows, embeddings.spaces()[0].state)
embeddings.register_consumer("churn", owner="ml")
present = [name for name in ("pyspark", "torch", "mlflow", "matplotlib", "sklearn", "scipy") if name in sys.modules]
print(present)
try:
    userrep.EmbeddingJoin
except ImportError as error:
    print(error)
"""


def test_the_core_alone_joins_pandas_labels_and_shows_the_state_without_spark_and_names_missing_extras(
    wheel: Path, tmp_path: Path, run: Run
) -> None:
    tables = FileTables(None, str(tmp_path / "root"))
    add_spaces(tables, "s001-a")
    publish(tables, {snapshot(date(2024, 5, 2)): {"u1": [1.0, 0.5], "u2": [0.0, 2.0]}})
    mark_ready(tables, find_space(tables, "s001-a"))
    promote(tables, find_space(tables, "s001-a"))
    programs = installed(wheel, tmp_path / "core")
    (tmp_path / "consumer.py").write_text(CONSUMER)
    ran = run(programs / "python", "consumer.py", tmp_path / "root")
    assert ran.stdout.splitlines() == [
        "[[1.0, 0.5], [0.0, 2.0], None] ['found', 'found', 'not_in_snapshot']",
        "[0.0, 2.0] 2 serving",
        "[]",
        "userrep.EmbeddingJoin: the package pyspark is not installed. Install it with `pip install 'userrep[spark]'`.",
    ], ran.stderr
    columns = dict.fromkeys(("user_id", "item_id", "event_at"), "x")
    (tmp_path / "c.yaml").write_text(f"root: {tmp_path}/root\nevents: {{path: log, columns: {columns}}}")
    for command, shown in ((("consumers", "list"), "churn"), (("status",), "snapshot s001-a-20240502-r1: 2 users")):
        ran = run(programs / "userrep", *command, "-c", "c.yaml")
        assert (ran.returncode, shown in ran.stdout) == (0, True), ran.stderr
    (tmp_path / "log").mkdir()
    refused = run(programs / "userrep", "run", "maintain_tables", "-c", "c.yaml")
    wanted = "userrep: the package pyspark is not installed. Install it with `pip install 'userrep[spark]'`."
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (2, wanted)


# The demo's sizes are those of its log, which options do not change. Its models are smaller here.
SMALL = {
    "item_vectors.behaviour.dim": 8, "item_vectors.content.dim": 8, "model.latent_dim": 16, "training.max_epochs": 1,
    "training.as_ofs.every_days": 14,
}  # fmt: skip

SPARK_CONSUMER = """
import sys
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from userrep import EmbeddingJoin
from userrep.spark.session import get_session

users = get_session("local[2]").read.parquet("build/demo/log/users")
labels = users.selectExpr("user_id", "TIMESTAMP'2024-05-26 12:00:00' label_at", "DOUBLE(hash(user_id) % 2 = 0) label")
stages = [EmbeddingJoin(root="build/demo"), LogisticRegression(featuresCol="embedding", maxIter=5)]
scored = Pipeline(stages=stages).fit(labels).transform(labels)
print(scored.count(), len(scored.first().embedding), "torch" in sys.modules)
"""


def test_the_extras_all_run_the_demo_and_the_extra_spark_alone_trains_a_model_on_its_vectors(
    wheel: Path, tmp_path: Path, run: Run
) -> None:
    programs = installed(wheel, tmp_path / "all", "[all]", *PINNED)
    ran = run(programs / "userrep", "demo", *(f"--set={key}={value}" for key, value in SMALL.items()))
    assert (ran.returncode, "return propensity, test AUC:" in ran.stdout) == (0, True), ran.stdout + ran.stderr
    programs = installed(wheel, tmp_path / "spark", "[spark]", *PINNED)
    assert "torch" in run(programs / "python", "-c", "import torch").stderr
    (tmp_path / "consumer.py").write_text(SPARK_CONSUMER)
    ran = run(programs / "python", "consumer.py")
    num_users, dim, *has_torch = ran.stdout.split()
    assert (int(num_users) > 2000, dim, has_torch) == (True, "16", ["False"]), ran.stderr
