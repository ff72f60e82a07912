"""Folders of output and roots are checked before any work, and nothing is made by looking."""

from pathlib import Path

import pytest

from userrep.errors import UsageError
from userrep.store.write_access import check_new_folder, check_writable, names_in_out

pytestmark = pytest.mark.fast


def test_a_new_folder_is_missing_or_empty(tmp_path: Path) -> None:
    check_new_folder(str(tmp_path / "none" / "deep"))
    check_new_folder(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    for name in "dbca":
        (tmp_path / name).touch()
    assert sorted(names_in_out(str(tmp_path))) == ["a", "b", "c", "d"]
    with pytest.raises(UsageError, match=r"--out .*: the folder is not empty \(a, b, c\); name another one\."):
        check_new_folder(str(tmp_path))


def test_a_file_is_no_folder_to_write_to(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(UsageError, match=r"--out .*/x: this is a file; name a folder"):
        check_new_folder(str(tmp_path / "x"))
    with pytest.raises(UsageError, match=r"x/y: .*/x is not a folder that this user may write to"):
        check_new_folder(str(tmp_path / "x" / "y"))
    with pytest.raises(UsageError, match="--out zzz://a: cannot be read as a folder"):
        check_new_folder("zzz://a")


def test_a_root_that_can_be_made_is_not_made_by_looking(tmp_path: Path) -> None:
    check_writable(str(tmp_path / "new" / "root"))
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_written_to_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(UsageError, match=r"root .*/x/y: not writable \(.*\)\. Name another one"):
        check_writable(str(tmp_path / "x" / "y"))
    with pytest.raises(UsageError, match=r"root zzz://a: not writable \(.*zzz"):
        check_writable("zzz://a")
