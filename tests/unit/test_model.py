"""The model: losses, corruption, artifacts, and the encoder's forward pass."""

import json
import pickle
import struct
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy
import torch

from userrep import config
from userrep.errors import ArtifactError
from userrep.features.layout import InputLayout, Scaler
from userrep.features.spec import FeatureSpec
from userrep.features.targets import TargetLayout
from userrep.inference.encoder import ROWS, Encoder
from userrep.model.artifact import SpaceManifest, load_artifact, save_artifact, tensors_of
from userrep.model.autoencoder import Autoencoder
from userrep.model.carried import carried_inputs, carried_tastes
from userrep.model.corruption import Corruption, empty_input
from userrep.model.frozen_folder import _content_hash
from userrep.model.losses import ReconstructionLoss
from userrep.model.tensor_file import tensor_bytes

pytestmark = pytest.mark.fast

MODEL = config.Model(latent_dim=16, hidden_dim=8, decoder_dim=6)


def layout_of(dim: int = 3) -> InputLayout:
    spec = FeatureSpec(
        windows_days=[7], modalities={"behaviour": dim}, onboarding=True, registered_at=False,
        attributes=["country"], context=["device"],
    )  # fmt: skip
    return InputLayout.of(
        spec, {"attribute_country": ["dk", "(other)"], "num_by_context_7d": ["device=phone", "(other)"]}
    )


def scaler_of(layout: InputLayout) -> Scaler:
    random = np.random.default_rng(0)
    center_F, scale_F = random.normal(size=layout.width), random.uniform(0.5, 2, layout.width)
    center_F[layout.blocks[-1].start :], scale_F[layout.blocks[-1].start :] = 0, 1
    return Scaler(center_F=center_F.astype(np.float32), scale_F=scale_F.astype(np.float32))


def inputs(layout: InputLayout, num_rows: int, *, present: bool = True) -> np.ndarray:
    x_BF = np.random.default_rng(1).normal(size=(num_rows, layout.width)).astype(np.float32)
    x_BF[:, layout.blocks[-1].start :] = present
    return x_BF


def part(layout: InputLayout, name: str) -> slice:
    return next(slice(b.start, b.stop) for b in layout.blocks if b.name == name)


def features(num_rows: int) -> pa.RecordBatch:
    random = np.random.default_rng(2)

    def vectors(width: int) -> pa.Array:
        return pa.array(list(random.normal(size=(num_rows, width)).astype(np.float32)), pa.list_(pa.float32()))

    some = [None if k % 3 == 0 else k for k in range(num_rows)]
    return pa.RecordBatch.from_pydict(
        {
            "behaviour_7d": vectors(3), "has_behaviour_7d": [True] * num_rows,
            "behaviour_onboarding": vectors(3), "has_behaviour_onboarding": [True] * num_rows,
            "num_events_7d": list(range(num_rows)), "weight_7d": [1.5] * num_rows, "num_active_days_7d": [1] * num_rows,
            "days_since_last_event": pa.array(some, pa.float64()),
            "days_since_first_event": pa.array(some, pa.float64()),
            "part_of_day_7d": vectors(4), "weekday_7d": vectors(7),
            "num_by_context_7d": pa.array([[("device=phone", 2)]] * num_rows, pa.map_(pa.string(), pa.int64())),
            "attribute_country": ["dk" if k % 2 else None for k in range(num_rows)],
        }
    )  # fmt: skip


# Autoencoder and loss


def test_weights_follow_from_the_seed_and_leave_torch_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = Autoencoder(layout_of(), MODEL, seed=1), Autoencoder(layout_of(), MODEL, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.encoder_hidden.weight, second.encoder_hidden.weight)
    assert not torch.equal(first.encoder_hidden.weight, Autoencoder(layout_of(), MODEL, seed=2).encoder_hidden.weight)


def test_a_wide_block_and_a_single_number_weigh_the_same() -> None:
    layout = layout_of(dim=80)
    target_BF = torch.from_numpy(inputs(layout, 16))
    loss = ReconstructionLoss(layout)
    losses = {}
    for name in ("behaviour_7d", "num_events_7d", "flags"):
        reconstruction_BF = target_BF.clone()
        reconstruction_BF[:, part(layout, name)] += 0.5
        losses[name] = loss(reconstruction_BF, target_BF).mean().item()
    np.testing.assert_allclose(list(losses.values()), 0.25 / len(layout.blocks), rtol=1e-5)


def test_a_block_is_judged_where_it_is_present_and_divided_by_all_rows() -> None:
    layout = layout_of()
    target_BF = torch.from_numpy(inputs(layout, 4))
    k = [b.name for b in layout.blocks].index("behaviour_7d")
    target_BF[1:, layout.blocks[k].flag] = 0
    reconstruction_BF = target_BF.clone()
    reconstruction_BF[:, part(layout, "behaviour_7d")] += 1
    per_block_K = ReconstructionLoss(layout)(reconstruction_BF, target_BF)
    assert per_block_K.tolist() == pytest.approx([1 / 4 if j == k else 0 for j in range(len(layout.blocks))])


def test_the_loss_equals_a_plain_loop_over_rows_and_blocks() -> None:
    layout, random = layout_of(), np.random.default_rng(3)
    target_BF = inputs(layout, 8)
    target_BF[:, layout.blocks[-1].start :] = random.random((8, target_BF.shape[1] - layout.blocks[-1].start)) < 0.5
    reconstruction_BF = random.normal(size=target_BF.shape).astype(np.float32)
    expected = [
        sum(
            np.mean((reconstruction_BF[r, b.start : b.stop] - target_BF[r, b.start : b.stop]) ** 2)
            for r in range(8)
            if b.flag is None or target_BF[r, b.flag] == 1
        )
        / 8
        for b in layout.blocks
    ]
    per_block_K = ReconstructionLoss(layout)(torch.from_numpy(reconstruction_BF), torch.from_numpy(target_BF))
    np.testing.assert_allclose(per_block_K, expected, rtol=1e-5)


# Corruption


def noise_of(layout: InputLayout, seed: int = 1, **shares: float) -> Corruption:
    none = {"noise": 0.0, "feature_dropout": 0.0, "block_dropout": 0.0, "newcomer_share": 0.0, "dropout": 0.0}
    model = config.Model(hidden_dim=8, **(none | shares))  # type: ignore[arg-type]
    return Corruption(layout, model, empty_input(layout, scaler_of(layout)), seed=seed)


def test_corruption_depends_on_seed_epoch_and_row_alone() -> None:
    layout = layout_of()
    x_BF, keys_B = inputs(layout, 300), np.random.default_rng(0).integers(-(1 << 63), (1 << 63) - 1, 300)
    shares = {"noise": 0.1, "feature_dropout": 0.2, "block_dropout": 0.2, "newcomer_share": 0.1, "dropout": 0.3}
    corrupt = noise_of(layout, **shares)
    whole = corrupt(x_BF, keys_B, epoch=3)
    shuffled = np.random.default_rng(9).permutation(300)[:77]
    again = noise_of(layout, **shares)(x_BF[shuffled], keys_B[shuffled], epoch=3)
    assert np.array_equal(again.x_BF, whole.x_BF[shuffled])
    assert np.array_equal(again.keep_BH, whole.keep_BH[shuffled])
    assert not np.array_equal(corrupt(x_BF, keys_B, epoch=4).x_BF, whole.x_BF)
    assert not np.array_equal(noise_of(layout, seed=2, **shares)(x_BF, keys_B, epoch=3).x_BF, whole.x_BF)
    assert not np.array_equal(corrupt(x_BF, keys_B + 1, epoch=3).x_BF, whole.x_BF)


def test_noise_has_the_deviation_asked_for_and_spares_flags() -> None:
    layout = layout_of()
    x_BF, flags = inputs(layout, 5000), layout.blocks[-1].start
    error_BF = noise_of(layout, noise=0.1)(x_BF, np.arange(5000), epoch=1).x_BF - x_BF
    assert np.abs(error_BF[:, flags:]).max() == 0
    np.testing.assert_allclose(error_BF[:, :flags].std(axis=0), 0.1, rtol=0.05)
    np.testing.assert_allclose(error_BF[:, :flags].mean(axis=0), 0, atol=0.007)
    correlation = np.corrcoef(error_BF[:, :flags].T) - np.eye(flags)
    assert np.abs(correlation).max() < 0.08


def test_dropped_features_are_zero_and_as_many_as_asked_for() -> None:
    layout = layout_of()
    x_BF, flags = inputs(layout, 5000), layout.blocks[-1].start
    out_BF = noise_of(layout, feature_dropout=0.2)(x_BF, np.arange(5000), epoch=1).x_BF
    np.testing.assert_allclose((out_BF[:, :flags] == 0).mean(axis=0), 0.2, atol=0.03)
    kept = out_BF != 0
    assert np.array_equal(out_BF[kept], x_BF[kept])


def test_hidden_dropout_keeps_the_mean() -> None:
    layout = layout_of()
    keep_BH = noise_of(layout, dropout=0.3)(inputs(layout, 5000), np.arange(5000), epoch=1).keep_BH
    assert keep_BH is not None
    np.testing.assert_allclose(np.unique(keep_BH), [0, 1 / 0.7], rtol=1e-6)
    np.testing.assert_allclose(keep_BH.mean(axis=0), 1, atol=0.05)


def test_a_dropped_block_takes_the_values_of_an_unknown_user_and_loses_its_flag() -> None:
    layout = layout_of()
    x_BF, empty_F = inputs(layout, 4000), empty_input(layout, scaler_of(layout))
    out_BF = noise_of(layout, block_dropout=0.25)(x_BF, np.arange(4000), epoch=1).x_BF
    for block in layout.blocks[:-1]:
        columns = slice(block.start, block.stop)
        dropped_B = (out_BF[:, columns] == empty_F[columns]).all(axis=1)
        assert dropped_B.mean() == pytest.approx(0.25, abs=0.03)
        assert np.array_equal(out_BF[~dropped_B, columns], x_BF[~dropped_B, columns])
        if block.flag is not None:
            assert np.array_equal(out_BF[:, block.flag] == 0, dropped_B)


def test_an_absent_block_gets_no_noise() -> None:
    layout = layout_of()
    x_BF = inputs(layout, 10, present=False)
    out_BF = noise_of(layout, noise=0.5)(x_BF, np.arange(10), epoch=1).x_BF
    assert np.abs(out_BF[:, part(layout, "behaviour_7d")]).max() == 0


def test_a_newcomer_keeps_only_picks_and_attributes() -> None:
    layout = layout_of()
    x_BF, empty_F = inputs(layout, 4000), empty_input(layout, scaler_of(layout))
    out_BF = noise_of(layout, newcomer_share=0.1)(x_BF, np.arange(4000), epoch=1).x_BF
    of_events = np.concatenate([np.arange(b.start, b.stop) for b in layout.blocks[:-1] if not b.newcomer])
    newcomer_B = (out_BF[:, of_events] == empty_F[of_events]).all(axis=1)
    assert newcomer_B.mean() == pytest.approx(0.1, abs=0.02)
    for name in ("behaviour_onboarding", "attribute_country"):
        assert np.array_equal(out_BF[:, part(layout, name)], x_BF[:, part(layout, name)])
    flags = {b.name: b.flag for b in layout.blocks}
    assert (out_BF[newcomer_B, flags["behaviour_7d"]] == 0).all()
    assert (out_BF[:, flags["behaviour_onboarding"]] == 1).all()
    assert np.array_equal(out_BF[~newcomer_B], x_BF[~newcomer_B])


def test_the_empty_input_is_what_an_unknown_user_is_encoded_from() -> None:
    layout = layout_of()
    scaler = scaler_of(layout)
    absent = pa.RecordBatch.from_pydict(
        {
            "behaviour_7d": pa.array([[0.0] * 3], pa.list_(pa.float32())), "has_behaviour_7d": [False],
            "behaviour_onboarding": pa.array([[0.0] * 3], pa.list_(pa.float32())), "has_behaviour_onboarding": [False],
            "num_events_7d": [0], "weight_7d": [0.0], "num_active_days_7d": [0],
            "days_since_last_event": pa.array([None], pa.float64()),
            "days_since_first_event": pa.array([None], pa.float64()),
            "part_of_day_7d": pa.array([[0.0] * 4], pa.list_(pa.float32())),
            "weekday_7d": pa.array([[0.0] * 7], pa.list_(pa.float32())),
            "num_by_context_7d": pa.array([[]], pa.map_(pa.string(), pa.int64())), "attribute_country": [None],
        }
    )  # fmt: skip
    assert np.array_equal(scaler.apply(layout, layout.raw(absent))[0], empty_input(layout, scaler))


# Artifact


def saved(
    folder: Path,
    *,
    space_id: str = "s1",
    layout: InputLayout | None = None,
    model: config.Model = MODEL,
    **tensors: np.ndarray,
) -> SpaceManifest:
    layout = layout or layout_of()
    scaler = scaler_of(layout)
    state = {name: t.numpy() for name, t in Autoencoder(layout, model, seed=3).state_dict().items()}
    manifest = SpaceManifest(
        space_id=space_id, created_at=datetime(2024, 1, 2, tzinfo=UTC), lineage_id="l1", trained_until=date(2024, 1, 1),
        layout=layout, targets=TargetLayout(blocks=[]), model=model, training=config.Training(),
        metrics={"valid_loss": 0.1 + 0.2}, config_hash="c", code_hash="d",
    )  # fmt: skip
    state["whitening_EE"] = np.random.default_rng(4).normal(size=state["whitening_EE"].shape).astype(np.float32)
    written = tensors_of(state, scaler, empty_input(layout, scaler)) | tensors
    return save_artifact(str(folder), manifest, written)


def rehash(folder: Path) -> None:
    """Make the hash fit again, as someone who swaps files on purpose would."""
    values = json.loads((folder / "manifest.json").read_text())
    values["content_hash"] = _content_hash((folder / "weights.safetensors").read_bytes(), values)
    (folder / "manifest.json").write_text(json.dumps(values))


def test_an_artifact_comes_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = saved(tmp_path / "s1")
    artifact = load_artifact(str(tmp_path / "s1"), manifest.content_hash)
    assert artifact.manifest == manifest
    assert artifact.layout == layout_of()
    assert np.array_equal(artifact.scaler.scale_F, scaler_of(layout_of()).scale_F)
    x_BF = torch.from_numpy(inputs(artifact.layout, 5))
    drawn = Autoencoder(artifact.layout, MODEL, seed=3)
    drawn.whitening_EE = torch.from_numpy(artifact.tensors["whitening_EE"])
    assert torch.equal(artifact.encoder().encode(x_BF), drawn.encode(x_BF))
    assert [p.name for p in tmp_path.iterdir()] == ["s1"]


def test_an_artifact_of_before_tastes_were_whitened_carries_them_as_they_are(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    tensors = {name: t for name, t in load_artifact(str(tmp_path / "s1")).tensors.items() if name != "whitening_EE"}
    saved(tmp_path / "s2")
    (tmp_path / "s2" / "weights.safetensors").write_bytes(tensor_bytes(tensors))
    rehash(tmp_path / "s2")
    artifact = load_artifact(str(tmp_path / "s2"))
    x_BF = torch.from_numpy(artifact.scaler.apply(artifact.layout, artifact.layout.raw(features(10))))
    z_BD = artifact.encoder().encode(x_BF).numpy()
    carried_CF = carried_inputs(artifact.layout, MODEL)
    np.testing.assert_allclose(z_BD[:, : len(carried_CF)], x_BF.numpy() @ carried_CF.T, atol=1e-5)
    np.testing.assert_allclose(Encoder(artifact).embed(features(10)), z_BD, rtol=1e-5, atol=1e-6)


def test_an_artifact_without_whitening_is_not_written(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    artifact = load_artifact(str(tmp_path / "s1"))
    tensors = {name: t for name, t in artifact.tensors.items() if name != "whitening_EE"}
    with pytest.raises(ArtifactError, match="whitening_EE missing"):
        save_artifact(str(tmp_path / "s2"), artifact.manifest, tensors)


def test_a_manifest_without_modalities_does_not_fit(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    path = tmp_path / "s1" / "manifest.json"
    values = json.loads(path.read_text())
    values["layout"]["spec"]["modalities"] = {}
    path.write_text(json.dumps(values))
    rehash(tmp_path / "s1")
    with pytest.raises(ArtifactError, match="its blocks are not those of its columns"):
        load_artifact(str(tmp_path / "s1"))


def test_an_artifact_is_never_overwritten(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    with pytest.raises(ArtifactError, match=r"an artifact already, and spaces are frozen"):
        saved(tmp_path / "s1")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        saved(tmp_path / "s1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json"])
def test_a_missing_or_torn_file_is_refused(tmp_path: Path, name: str) -> None:
    saved(tmp_path / "s1")
    path = tmp_path / "s1" / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"not the ones written together|is torn, or not JSON"):
        load_artifact(str(tmp_path / "s1"))
    path.unlink()
    with pytest.raises(ArtifactError, match=rf"{name}: No such file or directory\. Restore"):
        load_artifact(str(tmp_path / "s1"))


def test_swapped_weights_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    saved(tmp_path / "s2", empty_F=np.ones(layout_of().width, np.float32))
    (tmp_path / "s2" / "weights.safetensors").rename(tmp_path / "s1" / "weights.safetensors")
    with pytest.raises(ArtifactError, match=r"not the ones written together"):
        load_artifact(str(tmp_path / "s1"))


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    path = tmp_path / "s1" / "manifest.json"
    path.write_text(path.read_text().replace("2024-01-01", "2023-01-01"))
    with pytest.raises(ArtifactError, match=r"not the ones written together"):
        load_artifact(str(tmp_path / "s1"))


def test_another_space_than_the_registry_says_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    with pytest.raises(ArtifactError, match=r"another artifact was expected here \(content hash 0000"):
        load_artifact(str(tmp_path / "s1"), "0" * 64)


@pytest.mark.parametrize(("version", "cure"), [(4, "upgrade userrep"), (2, "go on with the release that wrote it")])
def test_another_format_is_refused_by_name(tmp_path: Path, version: int, cure: str) -> None:
    saved(tmp_path / "s1")
    path = tmp_path / "s1" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": version, "novelty": 1}))
    with pytest.raises(ArtifactError, match=rf"format_version {version} was found, this release reads 3: {cure}"):
        load_artifact(str(tmp_path / "s1"))


def test_a_manifest_with_a_fault_is_refused_by_its_place(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    path = tmp_path / "s1" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"space_id": "../other"}))
    with pytest.raises(ArtifactError, match=r"manifest.json does not fit: space_id: not a valid name"):
        load_artifact(str(tmp_path / "s1"))


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("a pickle was run",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Bomb()),
        b"",
        struct.pack("<Q", 1 << 40) + b"{}",  # a header larger than the file
        struct.pack("<Q", 2 << 20) + b" " * (2 << 20),  # a header that fits the file, and nothing of ours
    ],
)
def test_bytes_that_are_no_safetensors_are_refused_before_they_are_parsed(tmp_path: Path, content: bytes) -> None:
    saved(tmp_path / "s1")
    (tmp_path / "s1" / "weights.safetensors").write_bytes(content)
    rehash(tmp_path / "s1")
    with pytest.raises(ArtifactError, match=r"is no safetensors file of ours: \d+ bytes"):
        load_artifact(str(tmp_path / "s1"))


def test_a_header_that_is_no_json_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    (tmp_path / "s1" / "weights.safetensors").write_bytes(struct.pack("<Q", 8) + b"{{{{{{{{")
    rehash(tmp_path / "s1")
    with pytest.raises(ArtifactError, match=r"is not readable as safetensors"):
        load_artifact(str(tmp_path / "s1"))


def test_a_file_beyond_any_size_of_ours_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "s1")
    monkeypatch.setattr("userrep.model.frozen_folder._MAX_WEIGHTS", 100)
    with pytest.raises(ArtifactError, match=r"more than the 100 that such a file may have"):
        load_artifact(str(tmp_path / "s1"))


@pytest.mark.parametrize(
    ("tensors", "fault"),
    [
        ({"scale_F": np.ones(3, np.float32)}, r"scale_F \(3,\), wanted \(\d+,\)"),
        ({"extra": np.ones(3, np.float32)}, r"extra \(3,\), wanted none"),
        ({"center_F": np.zeros(layout_of().width, np.float64)}, r"center_F is float64, wanted float32"),  # type: ignore[dict-item]
        ({"center_F": np.full(layout_of().width, np.nan, np.float32)}, r"not finite numbers in center_F"),
        ({"scale_F": np.zeros(layout_of().width, np.float32)}, r"scale_F \(not above zero\)"),
    ],
)
def test_tensors_that_do_not_fit_are_neither_written_nor_read(
    tmp_path: Path, tensors: dict[str, np.ndarray], fault: str
) -> None:
    with pytest.raises(ArtifactError, match=fault):
        saved(tmp_path / "s1", **tensors)
    saved(tmp_path / "s1")
    weights = safetensors.numpy.load_file(tmp_path / "s1" / "weights.safetensors") | tensors
    safetensors.numpy.save_file(weights, tmp_path / "s1" / "weights.safetensors")
    rehash(tmp_path / "s1")
    with pytest.raises(ArtifactError, match=fault):
        load_artifact(str(tmp_path / "s1"))


def test_a_manifest_that_calls_for_absurd_widths_is_refused_before_they_are_allocated(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    path = tmp_path / "s1" / "manifest.json"
    path.write_text(
        path.read_text()
        .replace('"hidden_dim":8', '"hidden_dim":1000000000000')
        .replace('"hidden_dim": 8', '"hidden_dim": 1000000000000')
    )
    rehash(tmp_path / "s1")
    with pytest.raises(ArtifactError, match=r"encoder_hidden.bias \(8,\), wanted \(1000000000000,\)"):
        load_artifact(str(tmp_path / "s1"))


# Encoder


def test_an_embedding_does_not_depend_on_its_neighbours_to_the_bit(tmp_path: Path) -> None:
    saved(tmp_path / "s1")
    encoder = Encoder(load_artifact(str(tmp_path / "s1")))
    batch = features(ROWS + 300)
    whole_BD = encoder.embed(batch)
    assert whole_BD.shape == (ROWS + 300, 16)
    assert whole_BD.dtype == np.float32
    for start, num_rows in ((0, 1), (700, 1), (ROWS - 1, 2), (5, 999), (ROWS + 299, 1)):
        assert np.array_equal(encoder.embed(batch.slice(start, num_rows)), whole_BD[start : start + num_rows])
    shuffled = np.random.default_rng(4).permutation(batch.num_rows)
    assert np.array_equal(encoder.embed(batch.take(pa.array(shuffled))), whole_BD[shuffled])
    assert encoder.embed(batch.slice(0, 0)).shape == (0, 16)


def test_where_position_matters_rows_are_encoded_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "s1")
    artifact, forward = load_artifact(str(tmp_path / "s1")), Encoder._forward
    expected_BD = Encoder(artifact).embed(features(50))

    def uneven(self: Encoder, x_BF: torch.Tensor) -> torch.Tensor:
        return forward(self, x_BF) + torch.arange(len(x_BF))[:, None]

    monkeypatch.setattr(Encoder, "_forward", uneven)
    np.testing.assert_allclose(Encoder(artifact).embed(features(50)), expected_BD, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("carried_share", [0.85, 0.4, 0.0])
def test_an_embedding_is_scaling_and_the_forward_pass(tmp_path: Path, carried_share: float) -> None:
    model = MODEL.model_copy(update={"carried_share": carried_share})
    assert bool(carried_tastes(layout_of(), model).num) == (carried_share == 0.85)
    saved(tmp_path / "s1", model=model)
    artifact = load_artifact(str(tmp_path / "s1"))
    x_BF = artifact.scaler.apply(artifact.layout, artifact.layout.raw(features(10)))
    expected_BD = artifact.encoder().encode(torch.from_numpy(x_BF)).numpy()
    np.testing.assert_allclose(Encoder(artifact).embed(features(10)), expected_BD, rtol=1e-5, atol=1e-6)
