"""Maps between spaces on disk: written once, checked against both spaces, refused if anything was changed."""

import json
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest

from userrep.errors import ArtifactError, UsageError
from userrep.model.frozen_folder import write_frozen
from userrep.spaces.agreement import Agreement
from userrep.spaces.map_artifact import load_map, map_folder, save_map
from userrep.spaces.mapping import LinearMap
from userrep.spaces.registry_value import Space
from userrep.tables import Tables

pytestmark = pytest.mark.fast

AT = datetime(2024, 5, 1)
NEW = Space("s002-b", "ready", "l1", date(2024, 5, 1), "hash of b", AT, AT)
OLD = Space("s001-a", "retired", "l1", date(2024, 4, 1), "hash of a", AT, AT)
DAYS = [date(2024, 5, 1), date(2024, 5, 2)]
WEIGHT_ED = np.array([[0, 2], [-1, 0.5], [0.25, 0]], np.float32)
BIAS_D = np.array([1, -2], np.float32)
AGREEMENT = Agreement(num_rows=20, mean_cosine=0.75, residual=0.5, overlap_at_10=0.25, num_neighbours=12)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(None, root=str(tmp_path))


@pytest.fixture
def folder(tables: Tables) -> Path:
    """Save a map; return its folder."""
    save_map(tables, NEW, OLD, LinearMap(WEIGHT_ED, BIAS_D), told=AGREEMENT, as_ofs=DAYS)
    return Path(map_folder(tables, NEW, OLD))


def test_a_map_is_read_back_with_all_that_was_recorded_of_it(tables: Tables, tmp_path: Path, folder: Path) -> None:
    assert folder == tmp_path / "artifacts" / "spaces" / "s002-b" / "maps" / "s001-a"
    manifest, fitted = load_map(tables, NEW, OLD)
    np.testing.assert_array_equal(fitted(np.array([[1, 2, 4]], np.float32)), [[0, 1]])  # 0 - 2 + 1 + 1, 2 + 1 + 0 - 2
    assert (manifest.from_space, manifest.to_space, manifest.as_ofs) == ("s002-b", "s001-a", DAYS)
    assert (manifest.from_hash, manifest.to_hash) == ("hash of b", "hash of a")
    assert manifest.agreement == {
        "num_rows": 20, "mean_cosine": 0.75, "residual": 0.5, "overlap_at_10": 0.25, "num_neighbours": 12,
    }  # fmt: skip


def test_a_map_is_written_once_and_the_first_counts(tables: Tables, folder: Path) -> None:
    first, _ = load_map(tables, NEW, OLD)
    again = save_map(
        tables, NEW, OLD, LinearMap(2 * WEIGHT_ED, BIAS_D), told=replace(AGREEMENT, residual=0.1), as_ofs=[]
    )
    assert again == load_map(tables, NEW, OLD)[0] == first
    np.testing.assert_array_equal(load_map(tables, NEW, OLD)[1].weight_ED, WEIGHT_ED)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ({"to_space": "s009-z"}, "not the ones written together"),
        (None, "weights.safetensors and manifest.json are not the ones written together"),
    ],
)
def test_a_map_that_was_changed_is_refused(
    tables: Tables, folder: Path, what: dict[str, str] | None, match: str
) -> None:
    if what is None:
        content = bytearray((folder / "weights.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "weights.safetensors").write_bytes(bytes(content))
    else:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | what))
    with pytest.raises(ArtifactError, match=match):
        load_map(tables, NEW, OLD)


def test_a_map_of_other_artifacts_is_refused(tables: Tables, folder: Path) -> None:
    for new, old in ((replace(NEW, content_hash="x"), OLD), (NEW, replace(OLD, content_hash="x"))):
        with pytest.raises(ArtifactError, match="the map is from s002-b to s001-a, of other artifacts"):
            load_map(tables, new, old)
    folder.rename(folder.with_name("s003-c"))
    with pytest.raises(ArtifactError, match=r"the map is from s002-b to s001-a, of other artifacts. Delete the folder"):
        load_map(tables, NEW, replace(OLD, space_id="s003-c"))


def test_a_missing_map_is_refused_with_the_command_that_fits_it(tables: Tables) -> None:
    with pytest.raises(UsageError, match=r"no map from space s002-b to .* s001-a: `userrep spaces diff s001-a s002-b`"):
        load_map(tables, NEW, OLD)


@pytest.mark.parametrize(
    "tensors",
    [
        {"weight_ED": WEIGHT_ED},
        {"weight_ED": WEIGHT_ED, "bias_D": BIAS_D[:1]},
        {"weight_ED": WEIGHT_ED[0], "bias_D": BIAS_D},
        {"weight_ED": np.zeros((2, 3, 2), np.float32), "bias_D": np.zeros((3, 2), np.float32)},
        {"weight_ED": WEIGHT_ED, "bias_D": BIAS_D.astype(np.float64)},
        {"weight_ED": WEIGHT_ED * np.float32("nan"), "bias_D": BIAS_D},
        {"weight_ED": WEIGHT_ED, "bias_D": BIAS_D * np.float32("inf")},
    ],
)
def test_tensors_that_are_no_finite_map_are_refused(
    tables: Tables, folder: Path, tensors: dict[str, np.ndarray]
) -> None:
    manifest, _ = load_map(tables, NEW, OLD)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    write_frozen(str(folder), manifest, tensors)
    with pytest.raises(ArtifactError, match="the tensors are no map of finite float32 numbers"):
        load_map(tables, NEW, OLD)
