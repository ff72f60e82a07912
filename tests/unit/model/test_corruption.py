"""The noise of a training batch: keyed by seed, epoch and row, with the shares asked for, and none on flags."""

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.inference.test_model import inputs, layout_of, part, scaler_of
from userrep import config
from userrep.features.layout import InputLayout
from userrep.model.corruption import Corruption, empty_input

pytestmark = pytest.mark.fast


def noise_of(layout: InputLayout, seed: int = 1, **shares: float) -> Corruption:
    none = {"noise": 0.0, "feature_dropout": 0.0, "block_dropout": 0.0, "newcomer_share": 0.0, "dropout": 0.0}
    model = config.Model(hidden_dim=8, **(none | shares))  # type: ignore[arg-type]
    return Corruption(layout, model, empty_input(layout, scaler_of(layout)), seed=seed)


def test_corruption_depends_only_on_seed_epoch_and_row() -> None:
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


def test_dropped_features_are_zero_as_many_as_asked_for_and_the_others_keep_the_mean() -> None:
    layout = layout_of()
    x_BF, flags = inputs(layout, 5000), layout.blocks[-1].start
    out_BF = noise_of(layout, feature_dropout=0.2)(x_BF, np.arange(5000), epoch=1).x_BF
    np.testing.assert_allclose((out_BF[:, :flags] == 0).mean(axis=0), 0.2, atol=0.03)
    kept_BF = out_BF[:, :flags] != 0
    np.testing.assert_allclose(out_BF[:, :flags][kept_BF], x_BF[:, :flags][kept_BF] / 0.8, rtol=1e-6)
    assert np.array_equal(out_BF[:, flags:], x_BF[:, flags:])


def test_a_linear_encoder_has_no_hidden_units_to_drop() -> None:
    layout = layout_of()
    corrupt = Corruption(layout, config.Model(), empty_input(layout, scaler_of(layout)), seed=1)
    assert corrupt(inputs(layout, 5), np.arange(5), epoch=1).keep_BH is None


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


ALL_NOISE = {"noise": 0.1, "feature_dropout": 0.2, "block_dropout": 0.2, "newcomer_share": 0.1, "dropout": 0.3}


def test_seed_and_epoch_are_not_interchangeable() -> None:
    layout = layout_of()
    x_BF, keys_B = inputs(layout, 50), np.arange(50)
    first = noise_of(layout, seed=2, **ALL_NOISE)(x_BF, keys_B, epoch=5)
    other = noise_of(layout, seed=5, **ALL_NOISE)(x_BF, keys_B, epoch=2)
    assert not np.array_equal(first.x_BF, other.x_BF)
    assert not np.array_equal(first.keep_BH, other.keep_BH)


def test_rows_with_one_key_get_the_same_noise_and_rows_with_others_get_their_own() -> None:
    layout = layout_of()
    x_BF = np.repeat(inputs(layout, 1), 300, axis=0)
    corrupted = noise_of(layout, **ALL_NOISE)(x_BF, np.repeat([7, 8, -7], 100), epoch=1)
    assert corrupted.keep_BH is not None
    for noisy in corrupted:
        assert noisy is not None
        assert [len(np.unique(part, axis=0)) for part in np.split(noisy, 3)] == [1, 1, 1]
        assert len(np.unique(noisy, axis=0)) == 3


def test_what_is_dropped_of_the_hidden_layer_does_not_follow_what_is_dropped_of_the_inputs() -> None:
    layout = layout_of()
    x_BF = inputs(layout, 20_000)
    noisy = noise_of(layout, feature_dropout=0.5, dropout=0.5, block_dropout=0.5)(x_BF, np.arange(20_000), epoch=1)
    assert noisy.keep_BH is not None
    flags = layout.blocks[-1].start
    is_absent = noisy.x_BF[:, flags:] == 0  # whole blocks
    is_zero = noisy.x_BF[:, :flags] == 0
    both = np.corrcoef(np.hstack([noisy.keep_BH, is_zero, is_absent]).T)[
        : noisy.keep_BH.shape[1], noisy.keep_BH.shape[1] :
    ]
    assert np.abs(both).max() < 0.04


def test_the_batch_itself_stays_clean() -> None:
    layout = layout_of()
    x_BF = inputs(layout, 200)
    before_BF = x_BF.copy()
    noise_of(layout, **ALL_NOISE)(x_BF, np.arange(200), epoch=1)
    np.testing.assert_array_equal(x_BF, before_BF)


def test_without_noise_rows_are_as_they_were_and_no_unit_is_dropped() -> None:
    layout = layout_of()
    x_BF = inputs(layout, 10)
    corrupted = noise_of(layout)(x_BF, np.arange(10), epoch=1)
    np.testing.assert_array_equal(corrupted.x_BF, x_BF)
    assert corrupted.keep_BH is None
