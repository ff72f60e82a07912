"""``userrep export``: the folders that it refuses to write to. None of it needs Spark."""

from pathlib import Path

import pytest

from tests.support.command_line import Answer, Userrep, config_file

pytestmark = pytest.mark.fast


def export_to(userrep: Userrep, config: Path, out: object) -> Answer:
    return userrep("export", "features", "--config", config, "--as-of", "2024-05-02", "--out", str(out))


def test_a_folder_that_holds_something_else_is_not_exported_to(
    userrep: Userrep, no_spark: None, tmp_path: Path
) -> None:
    config = config_file(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "part-0.parquet").write_text("someone's log")
    answer = export_to(userrep, config, out)
    assert answer.code == 2
    assert answer.faults == [
        f"--out {out}: the folder is not empty and is not an earlier export. Choose another folder."
    ]
    (out / "_manifest.json").write_text("{}")
    (out / "notes.txt").write_text("kept")
    answer = export_to(userrep, config, out)
    assert answer.code == 2
    assert "is not an earlier export (notes.txt). Choose another folder." in answer.faults[0]
    assert (out / "notes.txt").read_text() == "kept"


@pytest.mark.parametrize("command", ["export embeddings --as-of 2024-05-02", "evaluate", "explain segments"])
@pytest.mark.parametrize("inside", ["events", "root/tables/user_features"])
def test_nothing_is_written_into_the_log_or_the_tables(
    userrep: Userrep, no_spark: None, tmp_path: Path, command: str, inside: str
) -> None:
    out = tmp_path / inside / "out"
    answer = userrep(*command.split(), "--config", config_file(tmp_path), "--out", str(out))
    assert answer.code == 2
    assert answer.faults[0].startswith(f"--out {out}: inside {tmp_path}/")
    assert answer.faults[0].endswith(", whose files are all read. Choose another folder.")


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("a file", "this is a file; name a folder."),
        ("a file/out", "a file is not a folder that this user may write to; name another one."),
        ("/dev/null/out", "/dev/null is not a folder that this user may write to; name another one."),
        ("nowhere://bucket/out", "cannot be read as a folder (Unrecognized filesystem type in URI"),
    ],
)
def test_an_export_to_where_no_folder_can_be_is_refused(
    userrep: Userrep, no_spark: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a file").write_text("kept")
    answer = export_to(userrep, config_file(tmp_path), out)
    assert (answer.code, len(answer.faults)) == (2, 1)
    assert answer.faults[0].startswith(f"--out {out}: ")
    assert said in answer.faults[0]


def test_a_storage_type_applies_only_to_embeddings(userrep: Userrep, no_spark: None, tmp_path: Path) -> None:
    command = (
        "export",
        "features",
        "--config",
        config_file(tmp_path),
        "--as-of",
        "2024-05-02",
        "--out",
        tmp_path / "o",
    )
    answer = userrep(*command, "--storage", "int8")
    assert (answer.code, answer.faults) == (
        2, ["export features: --storage applies only to embeddings. Leave it out."],
    )  # fmt: skip
    items = ("export", "item-vectors", *command[2:])
    answer = userrep(*items, "--unrecorded")
    assert (answer.code, answer.faults) == (
        2, ["export item-vectors: --unrecorded applies only to exports with users. Leave it out."],
    )  # fmt: skip
    answer = userrep(*command, "--storage", "int4")
    assert (answer.code, "'float32', 'float16', 'int8'" in answer.faults[0]) == (2, True)
    assert not (tmp_path / "o").exists()
