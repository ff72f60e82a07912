"""Files of user ids: text, CSV, Parquet and folders of exports, and what is refused."""

from pathlib import Path

import pytest

from userrep.errors import UsageError
from userrep.sources.id_files import read_ids

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory. Name a text file with one user id per line"),
        (b"\n \n", r"no user ids in the file\. Write one per line"),
        (b"\xff\xfe", r"not UTF-8 text\. Write one user id per line"),
        (b"ann\n" + b"x" * 1025, "line 2 is longer than 1024 bytes"),
    ],
)
def test_a_file_that_names_nobody_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "ids.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_ids(path)


def test_ids_are_read_once_each_and_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("ann\r\n\nbob b\nann\n", encoding="utf-8")
    assert read_ids(tmp_path / "ids.txt") == ["ann", "bob b"]
