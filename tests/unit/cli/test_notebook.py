"""Settings of a notebook, and tables that it shows."""

import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from userrep.cli.notebook import settings, show_table

pytestmark = pytest.mark.fast


def in_ipython(monkeypatch: pytest.MonkeyPatch, *, with_kernel: bool) -> list[object]:
    """Let the process look like one of IPython; return what it is asked to display."""
    shown: list[object] = []
    shell = SimpleNamespace(kernel=1) if with_kernel else SimpleNamespace()
    for name, module in {
        "IPython": SimpleNamespace(get_ipython=lambda: shell),
        "IPython.display": SimpleNamespace(display=shown.append),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    return shown


def test_in_jupyter_a_table_is_displayed_and_settings_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = in_ipython(monkeypatch, with_kernel=True)
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    monkeypatch.setenv("USERREP_ROOT_FOLDER", "there")
    table = pd.DataFrame({"a": [1]})
    show_table(table)
    assert (shown, capsys.readouterr().out) == ([table], "")
    assert settings({"root_folder": "here", "users": "300"}) == {"root_folder": "there", "users": "300"}


def test_a_script_that_imports_ipython_reads_its_command_line_and_prints_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = in_ipython(monkeypatch, with_kernel=False)
    monkeypatch.setattr(sys, "argv", ["script.py", "--users", "5"])
    show_table(pd.DataFrame({"a": [1]}))
    assert (shown, capsys.readouterr().out.split()) == ([], ["a", "0", "1"])
    assert settings({"users": "300"}) == {"users": "5"}


def test_on_databricks_only_widgets_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "--users", "5"])
    monkeypatch.setenv("USERREP_USERS", "7")
    widgets = SimpleNamespace(text=lambda name, default: None, get=lambda name: f"widget {name}")
    assert settings({"users": "300"}, SimpleNamespace(widgets=widgets)) == {"users": "widget users"}


def test_help_names_each_variable_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        settings({"users": "300", "config": "c.yaml"})
    said = " ".join(capsys.readouterr().out.split())
    assert "--users USERS or USERREP_USERS (default: 300)" in said
    assert "--config CONFIG or USERREP_CONFIG (default: c.yaml)" in said
