"""Maps between spaces on disk: written once, checked against both spaces, refused if anything was changed."""

import json
from dataclasses import asdict, replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest

from tests.support.embedding_tables import add_spaces
from userrep.errors import ArtifactError, UsageError
from userrep.model.frozen_folder import read_frozen_manifest, write_frozen
from userrep.spaces.agreement import Agreement
from userrep.spaces.mapping import LinearMap, MapManifest, load_map, map_folder, save_map
from userrep.spaces.registry import Space, find_space
from userrep.store.file_tables import FileTables
from userrep.store.tables import Tables

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
    tables = FileTables(None, str(tmp_path))
    for space in (OLD, NEW):
        add_spaces(tables, space.space_id, content_hash=space.content_hash)
    return tables


@pytest.fixture
def new(tables: Tables) -> Space:
    """Save a map; return the space that it is from, which names it."""
    return save_map(tables, NEW, OLD, LinearMap(WEIGHT_ED, BIAS_D), agreement=asdict(AGREEMENT), as_ofs=DAYS)


@pytest.fixture
def folder(tables: Tables, new: Space) -> Path:
    return Path(map_folder(tables, new, OLD, dict(new.maps)["s001-a"]))


def manifest_of(folder: Path) -> MapManifest:
    return read_frozen_manifest(str(folder), MapManifest, cure="")[0]


def test_a_map_is_read_back_with_all_that_was_recorded_of_it(
    tables: Tables, tmp_path: Path, new: Space, folder: Path
) -> None:
    manifest, fitted = manifest_of(folder), load_map(tables, new, OLD)
    assert folder == tmp_path / "artifacts/spaces/s002-b/maps/s001-a" / manifest.content_hash[:16]
    assert find_space(tables, "s002-b").maps == new.maps == (("s001-a", manifest.content_hash),)
    np.testing.assert_array_equal(fitted(np.array([[1, 2, 4]], np.float32)), [[0, 1]])  # 0 - 2 + 1 + 1, 2 + 1 + 0 - 2
    assert (manifest.from_space, manifest.to_space, manifest.as_ofs) == ("s002-b", "s001-a", DAYS)
    assert (manifest.from_hash, manifest.to_hash) == ("hash of b", "hash of a")
    assert manifest.agreement == {
        "num_rows": 20, "mean_cosine": 0.75, "residual": 0.5, "overlap_at_10": 0.25, "num_neighbours": 12,
    }  # fmt: skip


def test_of_two_maps_that_are_saved_at_once_the_first_counts(tables: Tables, new: Space) -> None:
    doubled = LinearMap(2 * WEIGHT_ED, BIAS_D)
    again = save_map(tables, NEW, OLD, doubled, agreement=asdict(replace(AGREEMENT, residual=0.1)), as_ofs=[])
    assert again == new
    np.testing.assert_array_equal(load_map(tables, again, OLD).weight_ED, WEIGHT_ED)


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ({"to_space": "s009-z"}, "were not written together"),
        (None, "weights.safetensors and manifest.json were not written together"),
    ],
)
def test_a_map_that_was_changed_is_refused(
    tables: Tables, new: Space, folder: Path, what: dict[str, str] | None, match: str
) -> None:
    if what is None:
        content = bytearray((folder / "weights.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "weights.safetensors").write_bytes(bytes(content))
    else:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | what))
    with pytest.raises(ArtifactError, match=match):
        load_map(tables, new, OLD)


def test_a_map_that_the_registry_does_not_name_is_refused(tables: Tables, new: Space, folder: Path) -> None:
    manifest = manifest_of(folder)
    (folder / "weights.safetensors").unlink()
    (folder / "manifest.json").unlink()
    folder.rmdir()
    write_frozen(str(folder), manifest, {"weight_ED": 2 * WEIGHT_ED, "bias_D": BIAS_D})
    with pytest.raises(ArtifactError, match="not the expected artifact: expected content hash"):
        load_map(tables, new, OLD)


def test_a_map_of_other_artifacts_is_refused(tables: Tables, new: Space, folder: Path) -> None:
    for one, other in ((replace(new, content_hash="x"), OLD), (new, replace(OLD, content_hash="x"))):
        with pytest.raises(ArtifactError, match="the map from s002-b to s001-a was fitted on other artifacts"):
            load_map(tables, one, other)
    folder.parent.rename(folder.parent.with_name("s003-c"))
    renamed = replace(new, maps=(("s003-c", new.maps[0][1]),))
    with pytest.raises(ArtifactError, match=r"the map from s002-b to s001-a was fitted on other artifacts\. Restore"):
        load_map(tables, renamed, replace(OLD, space_id="s003-c"))


def test_a_missing_map_is_refused_with_the_command_that_fits_it(tables: Tables) -> None:
    with pytest.raises(
        UsageError, match=r"s002-b: no map to .* s001-a\. Fit one with `userrep spaces diff s001-a s002-b`"
    ):
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
    tables: Tables, new: Space, folder: Path, tensors: dict[str, np.ndarray]
) -> None:
    sealed = write_frozen(str(tables.artifacts_root) + "/other", manifest_of(folder), tensors)
    Path(tables.artifacts_root, "other").rename(map_folder(tables, new, OLD, sealed.content_hash))
    renamed = replace(new, maps=(("s001-a", sealed.content_hash),))
    with pytest.raises(ArtifactError, match="the tensors are not a linear map of finite float32 numbers"):
        load_map(tables, renamed, OLD)
