"""Targets of ``userrep.open``: a configuration, a root or a schema of a catalog."""

from pathlib import Path

import pytest

from tests.support.builders import config_of
from tests.support.command_line import config_file, with_tables
from userrep.client.open_target import load_target, tables_at
from userrep.config import Config
from userrep.store.file_tables import FileTables
from userrep.store.spark_tables import SparkTables

pytestmark = pytest.mark.fast


def test_a_file_is_read_and_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config_file(tmp_path)
    found = load_target("~/userrep.yaml")
    assert isinstance(found, Config)
    assert found.root == str(tmp_path / "root")
    assert load_target(Path("~/root")) == str(tmp_path / "root")
    config = config_of(tmp_path)
    assert load_target(config) is config


def test_a_relative_root_stays_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    target = load_target("root")
    monkeypatch.chdir("/")
    assert tables_at(target, None).location == f"{tmp_path}/root"


def test_two_names_are_a_schema_unless_there_is_such_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(tables_at("main.userrep", None), SparkTables)
    (tmp_path / "main.userrep").mkdir()
    assert isinstance(tables_at("main.userrep", None), FileTables)
    with_tables(config_file(tmp_path))
    assert isinstance(tables_at(load_target(tmp_path / "userrep.yaml"), None), FileTables)
