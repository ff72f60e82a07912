"""The archive of Spark's classes: used by the environment and class path that it was built for, and by no other."""

import sys
from pathlib import Path

import pytest

from userrep.spark.class_archive import archive_of, archive_options

pytestmark = pytest.mark.fast


def test_a_local_session_uses_the_archive_of_its_classes_if_it_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert archive_options("a.jar") == ""
    archive_of("a.jar").parent.mkdir(parents=True)
    archive_of("a.jar").touch()
    assert f'"-XX:SharedArchiveFile={archive_of("a.jar")}"' in archive_options("a.jar")
    assert archive_options("b.jar") == ""
