"""A frozen folder of tensors and their manifest: whole or absent, and refused if anything is not as it was written."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from userrep.errors import ArtifactError
from userrep.model.frozen_folder import Manifest, Tensors, read_frozen, write_frozen

pytestmark = pytest.mark.fast

CURE = "Restore the folder."


class Note(Manifest):
    """A manifest of one number."""

    size: int


def write(folder: Path, *, size: int = 3, start: float = 0.0) -> Note:
    return write_frozen(str(folder), Note(size=size), {"a": np.arange(start, start + size, dtype=np.float32)})


def read(folder: Path, expected_hash: str | None = None) -> tuple[Note, Tensors]:
    return read_frozen(str(folder), Note, expected_hash=expected_hash, cure=CURE)


def test_a_folder_comes_back_as_it_was_written_and_nothing_lies_next_to_it(tmp_path: Path) -> None:
    written = write(tmp_path / "f")
    manifest, tensors = read(tmp_path / "f", written.content_hash)
    assert manifest == written
    assert (manifest.size, manifest.format_version) == (3, 8)
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"a": [0, 1, 2]}
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == ["manifest.json", "weights.safetensors"]


def test_the_hash_covers_the_weights_and_the_manifest(tmp_path: Path) -> None:
    first = write(tmp_path / "first").content_hash
    assert write(tmp_path / "same").content_hash == first
    assert re.fullmatch("[0-9a-f]{64}", first)
    others = [write(tmp_path / "weights", start=1.0), write_frozen(
        str(tmp_path / "manifest"), Note(size=4), {"a": np.arange(3, dtype=np.float32)})]  # fmt: skip
    assert len({first, *(note.content_hash for note in others)}) == 3


def test_a_folder_is_never_overwritten(tmp_path: Path) -> None:
    written = write(tmp_path / "f")
    with pytest.raises(FileExistsError, match="f"):
        write(tmp_path / "f", start=5.0)
    assert read(tmp_path / "f")[0] == written


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json"])
def test_a_missing_or_torn_file_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path / "f")
    path = tmp_path / "f" / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match=r"were not written together|is truncated or not a JSON object"):
        read(tmp_path / "f")
    path.unlink()
    with pytest.raises(ArtifactError, match=rf"{name}: No such file or directory\. Restore the folder\.$"):
        read(tmp_path / "f")


def test_swapped_weights_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "f")
    write(tmp_path / "other", start=1.0)
    (tmp_path / "other" / "weights.safetensors").rename(tmp_path / "f" / "weights.safetensors")
    with pytest.raises(
        ArtifactError, match=r"were not written together: the manifest says content hash \w{12}, got \w{12}\. Restore"
    ):
        read(tmp_path / "f")


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "f")
    path = tmp_path / "f" / "manifest.json"
    path.write_text(path.read_text().replace('"size": 3', '"size": 4'))
    with pytest.raises(ArtifactError, match=r"were not written together"):
        read(tmp_path / "f")


def test_another_folder_than_the_expected_one_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "f")
    with pytest.raises(ArtifactError, match=r"not the expected artifact: expected content hash 000000000000, got"):
        read(tmp_path / "f", "0" * 64)


@pytest.mark.parametrize(
    ("version", "cure"),
    [(9, "Upgrade userrep"), (4, "Use the release that wrote it"), (None, "Upgrade"), ("2", "Upgrade")],
)
def test_another_format_is_refused_by_name(tmp_path: Path, version: object, cure: str) -> None:
    write(tmp_path / "f")
    path = tmp_path / "f" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": version, "novelty": 1}))
    with pytest.raises(ArtifactError, match=rf"this release reads format_version 7 and 8, got {version}\. {cure}"):
        read(tmp_path / "f")


@pytest.mark.parametrize(
    ("values", "fault"),
    [({"size": "many"}, "size: Input should be a valid integer"), ({"novelty": 1}, "novelty: Extra inputs are not")],
)
def test_a_manifest_with_a_fault_is_refused_by_its_place(tmp_path: Path, values: dict[str, object], fault: str) -> None:
    write(tmp_path / "f")
    path = tmp_path / "f" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(ArtifactError, match=rf"manifest\.json is invalid: {fault}.*Restore the folder\.$"):
        read(tmp_path / "f")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path / "f")
    (tmp_path / "f" / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json is truncated or not a JSON object\. Restore the folder\."):
        read(tmp_path / "f")


@pytest.mark.parametrize(
    ("limit", "name"), [("_MAX_WEIGHTS", "weights.safetensors"), ("MAX_MANIFEST", "manifest.json")]
)
def test_a_file_beyond_its_limit_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, name: str
) -> None:
    write(tmp_path / "f")
    monkeypatch.setattr(f"userrep.model.frozen_folder.{limit}", 20)
    with pytest.raises(ArtifactError, match=rf"{name}: \d+ bytes, more than the limit of 20 for such a file\. Restore"):
        read(tmp_path / "f")
