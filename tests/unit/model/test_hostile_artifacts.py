"""Artifacts, maps and checkpoints that are not what was written: refused before use, even if the hash matches."""

import json
import pickle
import shutil
import struct
import time
import tracemalloc
from collections.abc import Callable
from datetime import date
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hostile import fuzzed, is_one_line, refusal, spoil_tree, spoilt_bytes
from tests.unit.inference.test_model import rehash, saved
from userrep.errors import ArtifactError
from userrep.inference.model import EmbeddingModel
from userrep.model.frozen_folder import MANIFEST, WEIGHTS, sealed, tensor_bytes, write_frozen
from userrep.spaces.mapping import MapManifest, load_map, map_folder
from userrep.training.checkpoint import TrainingState, checkpoint_names, load_checkpoint, save_checkpoint

pytestmark = pytest.mark.fast

SEEDS = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spaces") / "s1"
    saved(folder)
    return folder


def copied(space: Path, folder: Path) -> Path:
    shutil.rmtree(folder / "copy", ignore_errors=True)
    return Path(shutil.copytree(space, folder / "copy"))


def refused(read: Callable[[], Any]) -> bool:
    """Return whether a read was refused, in one line, in seconds, and in no more memory than a small artifact needs."""
    tracemalloc.start()
    begun = time.monotonic()
    error = refusal(read)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - begun < 5
    assert peak < 64 << 20
    assert error is None or (isinstance(error, ArtifactError) and is_one_line(error))
    return error is not None


@fuzzed(120)
@given(seed=SEEDS, name=st.sampled_from([WEIGHTS, MANIFEST]))
def test_an_artifact_with_a_spoilt_file_is_refused(space: Path, tmp_path: Path, seed: int, name: str) -> None:
    folder = copied(space, tmp_path)
    content = (folder / name).read_bytes()
    spoilt = spoilt_bytes(content, Random(seed))
    (folder / name).write_bytes(spoilt)
    is_same = spoilt == content or (name == MANIFEST and _json_or_none(spoilt) == json.loads(content))
    assert refused(lambda: EmbeddingModel.load(str(folder))) != is_same


def _json_or_none(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


@fuzzed(150)
@given(seed=SEEDS, times=st.integers(1, 2))
def test_a_manifest_that_somebody_rewrote_with_its_hash_is_refused_or_can_be_used(
    space: Path, tmp_path: Path, seed: int, times: int
) -> None:
    folder, random = copied(space, tmp_path), Random(seed)
    values = json.loads((folder / MANIFEST).read_text())
    for _ in range(times):
        spoil_tree(values, random)
    (folder / MANIFEST).write_text(json.dumps(values))
    rehash(folder)
    if not refused(lambda: EmbeddingModel.load(str(folder))):
        assert np.isfinite(EmbeddingModel.load(str(folder)).predict({})).all()


@fuzzed(80)
@given(seed=SEEDS)
def test_weights_that_somebody_rewrote_with_their_hash_are_refused_or_can_be_used(
    space: Path, tmp_path: Path, seed: int
) -> None:
    folder = copied(space, tmp_path)
    (folder / WEIGHTS).write_bytes(spoilt_bytes((folder / WEIGHTS).read_bytes(), Random(seed)))
    rehash(folder)
    if not refused(lambda: EmbeddingModel.load(str(folder))):
        assert EmbeddingModel.load(str(folder)).predict({}).shape == (16,)


def bloated(header: int, body: bytes = b"") -> bytes:
    return struct.pack("<Q", header) + body


def header_of(**tensors: Any) -> bytes:
    """Return a file whose header describes tensors that it does not have."""
    text = json.dumps(tensors).encode()
    return bloated(len(text), text + b"\0" * 64)


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "weights",
    [
        b"", b"\0" * 8, bloated(2**64 - 1), bloated(2**40, b"{}"), bloated(1 << 20, b" " * (1 << 20)), bloated(100,
        b"[" * 100),
        bloated(900_000, b"[" * 900_000), pickle.dumps({"a": 1}), b"PK\x03\x04" + bytes(100), b"\x80\x04" + bytes(100),
        header_of(a=TENSOR | {"shape": [2**62]}), header_of(a=TENSOR | {"shape": [2**40, 2**40]}),
        header_of(a=TENSOR | {"data_offsets": [0, 2**60]}),
        header_of(a=TENSOR | {"data_offsets": [8, 0]}), header_of(a=TENSOR | {"data_offsets": [-8, 0]}),
        header_of(a=TENSOR | {"dtype": "OBJECT"}),
        header_of(a=TENSOR | {"dtype": "BF16", "data_offsets": [0, 4]}), header_of(a=TENSOR, b=TENSOR),
        header_of(a=TENSOR, **{"../a": TENSOR}),
        header_of(__metadata__={"a": "b" * 1000}), tensor_bytes({"a": np.full(3, np.nan, np.float32)}),
    ],
    ids=range(21),
)  # fmt: skip
def test_files_without_weights_are_refused_even_with_a_matching_hash(
    space: Path, tmp_path: Path, weights: bytes
) -> None:
    folder = copied(space, tmp_path)
    (folder / WEIGHTS).write_bytes(weights)
    rehash(folder)
    assert refused(lambda: EmbeddingModel.load(str(folder)))


@pytest.mark.parametrize(
    "manifest",
    [b"[" * 1_000_000, b'{"a":' * 500_000, b"\xff\xfe", b"null", b"{}", b'{"format_version": 7}', b"1" * 10_000,
    bytes(65 << 20)],
    ids=range(8),
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(space: Path, tmp_path: Path, manifest: bytes) -> None:
    folder = copied(space, tmp_path)
    (folder / MANIFEST).write_bytes(manifest)
    with pytest.raises(
        ArtifactError, match=r"is truncated or not a JSON object|format_version 7 and 8, got None|is invalid|more than"
    ):
        EmbeddingModel.load(str(folder))


def test_a_layout_that_no_row_fits_is_refused_by_name(space: Path, tmp_path: Path) -> None:
    folder = copied(space, tmp_path)
    values = json.loads((folder / MANIFEST).read_text())
    values["layout"]["blocks"][0]["flag"] = -(2**63)
    (folder / MANIFEST).write_text(json.dumps(values))
    rehash(folder)
    with pytest.raises(
        ArtifactError, match="is invalid: layout: the blocks do not match the columns and the vocabulary"
    ):
        EmbeddingModel.load(str(folder))


@fuzzed(60)
@given(seed=SEEDS, name=st.sampled_from([WEIGHTS, MANIFEST]), is_hashed=st.booleans())
def test_a_spoilt_map_is_refused_or_whole(tmp_path: Path, seed: int, name: str, is_hashed: bool) -> None:
    names = {"s2": "2" * 64, "s1": "1" * 64}
    manifest = MapManifest(
        from_space="s2", from_hash=names["s2"], to_space="s1", to_hash=names["s1"],
        created_at="2024-05-01T00:00:00Z", as_ofs=[date(2024, 5, 1)], agreement={"cosine": 0.5},
    )  # fmt: skip
    tensors = {"weight_ED": np.eye(3, dtype=np.float32), "bias_D": np.ones(3, np.float32)}
    manifest = sealed(manifest, tensors)
    new, old = (SimpleNamespace(space_id=of, content_hash=names[of]) for of in names)
    new.maps = (("s1", manifest.content_hash),)
    tables: Any = SimpleNamespace(artifacts_root=str(tmp_path / f"{seed}{name}{is_hashed}"))
    folder = Path(map_folder(tables, new, old, manifest.content_hash))  # type: ignore[arg-type]
    if not folder.exists():
        write_frozen(str(folder), manifest, tensors)
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(spoilt_bytes(before, Random(seed)))
    if is_hashed and isinstance(_json_or_none((folder / MANIFEST).read_bytes()), dict):
        rehash(folder)
    found: list[Any] = []
    if not refused(lambda: found.append(load_map(tables, new, old))):  # type: ignore[arg-type]
        np.testing.assert_array_equal(found[0].weight_ED, tensors["weight_ED"])
    (folder / name).write_bytes(before)


@fuzzed(80)
@given(seed=SEEDS, name=st.sampled_from([WEIGHTS, MANIFEST]))
def test_a_spoilt_checkpoint_is_refused_or_as_it_was_written(tmp_path: Path, seed: int, name: str) -> None:
    folder = tmp_path / "checkpoints"
    if not folder.exists():
        state = TrainingState(identity="task", seed=1, taken=1)
        save_checkpoint(str(folder), state, {"model.weight": np.ones(3, np.float32)})
    (step,) = checkpoint_names(str(folder))
    file = folder / step / name
    before = file.read_bytes()
    file.write_bytes(spoilt_bytes(before, Random(seed)))
    refused(lambda: load_checkpoint(str(folder), step, "task"))
    file.write_bytes(before)
