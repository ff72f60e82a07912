"""The notebooks, run one after the other on one root; and those that are kept in docs."""

import base64
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat import NotebookNode

from deploy.build_notebooks import KEPT, REPOSITORY, SOURCES, as_notebook, run, without_noise
from notebooks import helpers
from tests.support.builders import SPARK
from userrep.cli.notebook import settings, show_table

pytestmark = pytest.mark.default

PICTURES = {
    "01_from_log_to_embedding": 3,
    "02_your_own_model": 2,
    "03_look_into_a_space": 4,
    "04_retrain_and_promote": 2,
}
MOST_BYTES = 500_000  # of all kept notebooks


def pictures_of(notebook: NotebookNode) -> list[bytes]:
    """Return the PNGs among the outputs."""
    found = [of.data["image/png"] for cell in notebook.cells for of in cell.get("outputs", []) if "data" in of
             and "image/png" in of.data]  # fmt: skip
    return [base64.b64decode(picture) for picture in found]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NotebookNode]:
    """Run the first notebook as a script, which makes a small log and all tables, the others in a kernel."""
    root = tmp_path_factory.mktemp("notebooks")
    java, quick = SPARK["spark.driver.extraJavaOptions"], {k: v for k, v in SPARK.items() if "driver" not in k}
    (root / "spark-defaults.conf").write_text("".join(f"{key} {value}\n" for key, value in quick.items()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_CONF_DIR", str(root))
        patch.setenv("JDK_JAVA_OPTIONS", java)
        patch.setenv("MPLBACKEND", "agg")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
        script = [sys.executable, str(SOURCES[0]), "--root", str(root), "--users", "300"]
        done = subprocess.run(script, capture_output=True, check=False, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "is the first serving space" in done.stdout
        patch.delenv("MPLBACKEND")
        config = {"config": str(root / "config.yaml")}
        return {source.stem: without_noise(run(source, cwd=root, settings=config)) for source in SOURCES[1:]}


@pytest.mark.full
@pytest.mark.parametrize("name", list(PICTURES)[1:])
def test_a_notebook_runs_after_those_before_it_and_draws_its_pictures(name: str, ran: dict[str, NotebookNode]) -> None:
    pictures = pictures_of(ran[name])
    assert len(pictures) == PICTURES[name]
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 2000 for picture in pictures)


@pytest.mark.full
def test_the_notebooks_begin_with_their_purpose(ran: dict[str, NotebookNode]) -> None:
    printed = {
        name: "".join(of.text for cell in notebook.cells for of in cell.get("outputs", []) if "text" in of)
        for name, notebook in ran.items()
    }
    assert re.search("100 of 100 users .* have the published vector, to the bit", printed["02_your_own_model"])
    assert "have the same leading kind" in printed["03_look_into_a_space"]
    last = printed["04_retrain_and_promote"]
    assert "is not promoted: a consumer that follows is not ready for it" in last
    assert "the old model reads: s001-" in last
    assert "is not retired: consumer mail (owner team mail) is pinned to it" in last


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_kept_notebook_is_its_source_and_what_came_out(source: Path) -> None:
    kept = nbformat.read(KEPT / f"{source.stem}.ipynb", as_version=4)
    made = as_notebook(source.read_text(encoding="utf-8"))
    assert [(cell.cell_type, cell.source) for cell in kept.cells] == [
        (cell.cell_type, cell.source) for cell in made.cells
    ]
    assert len(pictures_of(kept)) == PICTURES[source.stem]
    assert not [of for cell in kept.cells for of in cell.get("outputs", []) if of.get("name") == "stderr"]


def test_kept_notebooks_are_small() -> None:
    assert {path.stem for path in KEPT.iterdir()} == {source.stem for source in SOURCES} == PICTURES.keys()
    assert sum(path.stat().st_size for path in KEPT.iterdir()) < MOST_BYTES


def test_a_source_becomes_a_cell_for_each_of_its_own() -> None:
    source = "# Databricks notebook source\n# MAGIC %md\n# MAGIC # Title\n# MAGIC\n# MAGIC Words.\n\n"
    source += "# COMMAND ----------\n\nx = 1\n\n\ny = 2\n\n# COMMAND ----------\n\n# MAGIC %pip install userrep\n"
    cells = as_notebook(source).cells
    assert [(cell.cell_type, cell.source) for cell in cells] == [
        ("markdown", "# Title\n\nWords."), ("code", "x = 1\n\n\ny = 2"), ("code", "%pip install userrep"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="not a notebook: its first line is not '# Databricks notebook source'"):
        as_notebook("x = 1\n")


def test_a_user_is_no_neighbor_of_oneself_and_neighbors_can_be_looked_up_among_other_vectors() -> None:
    unit_ND = helpers.unit_vectors(np.random.default_rng(1).normal(size=(30, 4)))
    order, cosines = helpers.nearest(unit_ND)
    assert order.shape == (30, 10)
    assert not (order == np.arange(30)[:, None]).any()
    assert (np.diff(np.take_along_axis(cosines, order, axis=1)) <= 0).all()
    turned_DD = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    assert np.array_equal(helpers.nearest(unit_ND @ turned_DD)[0], order)  # within a turned space
    assert not np.array_equal(helpers.nearest(unit_ND @ turned_DD, unit_ND)[0], order)  # across both


def test_each_drift_metric_has_a_panel_of_its_own_with_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    plt.switch_backend("agg")
    days = pd.date_range("2024-04-01", periods=3)
    helpers.draw_drift(
        pd.DataFrame({"psi": [0.1, 0.2, 0.3], "new_share": [0.0, 0.0, 0.1]}, days), {"psi": 0.25, "new_share": 0.2}
    )
    drawn = [panel for panel in plt.gcf().axes if panel.axison]
    assert [panel.get_title() for panel in drawn] == [
        "psi: 0.3 of 0.25",
        "new_share: 0.1 of 0.2",
    ]
    assert [panel.lines[1].get_ydata()[0] for panel in drawn] == [0.25, 0.2]
    plt.close("all")


def test_settings_are_widgets_where_there_are_some() -> None:
    made: dict[str, str] = {}
    widgets = SimpleNamespace(text=made.__setitem__, get=lambda name: {"config": "mine.yaml"}.get(name, made[name]))
    found = settings({"config": "", "root": "build"}, SimpleNamespace(widgets=widgets))
    assert made == {"config": "", "root": "build"}
    assert found == {"config": "mine.yaml", "root": "build"}


def test_settings_are_options_of_a_script_before_variables_before_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["notebook.py", "--users", "5"])
    monkeypatch.setenv("USERREP_ROOT", "there")
    monkeypatch.setenv("USERREP_USERS", "7")
    assert settings({"config": "c", "root": "r", "users": "u"}) == {"config": "c", "root": "there", "users": "5"}
    monkeypatch.setattr(sys, "argv", ["notebook.py", "--user", "5"])
    with pytest.raises(SystemExit, match="2"):
        settings({"config": "c"})


def test_in_jupyter_the_kernel_s_command_line_is_not_the_notebook_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1)))  # type: ignore[arg-type]
    assert settings({"config": "c"}) == {"config": "c"}


def test_a_table_of_a_script_is_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(pd.DataFrame({f"column_{k}": ["x" * 30] for k in range(20)}))
    assert "..." not in capsys.readouterr().out
