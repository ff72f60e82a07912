"""A warm start: the same function of raw inputs as the earlier space's, and what could not be carried over."""

from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest
import torch

from userrep import config
from userrep.features.layout import CLIP, UNKNOWN, Block, InputLayout, Moments, Scaler
from userrep.features.spec import FeatureSpec
from userrep.features.targets import TargetLayout
from userrep.model.artifact import Artifact, SpaceManifest, Tensors
from userrep.model.autoencoder import Autoencoder
from userrep.model.losses import ReconstructionLoss
from userrep.model.warm_start import WarmStart, warm_start

pytestmark = pytest.mark.fast

MODEL = config.Model(latent_dim=16, hidden_dim=12, decoder_dim=7)
LINEAR = config.Model(latent_dim=16)
PLAIN = MODEL.model_copy(update={"next_items_weight": 0.0, "next_days_weight": 0.0})
COUNTRIES, DEVICES = ["de", "dk", "fr", "pl"], ["device=phone", "device=tv", "device=web"]


def layout_of(
    countries: list[str] = COUNTRIES[:2],
    devices: list[str] = DEVICES[:2],
    dim: int = 3,
    windows: tuple[int, ...] = (7,),
    taste_modality: str | None = None,
) -> InputLayout:
    """Build a layout of one modality, a country and a device; order of the values is as given."""
    spec = FeatureSpec(
        windows_days=list(windows), modalities={"behaviour": dim}, onboarding=True, registered_at=True,
        attributes=["country"], context=["device"],
    )  # fmt: skip
    vocabulary = {"attribute_country": [*countries, UNKNOWN], spec.context_column or "": [*devices, UNKNOWN]}
    return InputLayout.of(spec, vocabulary, taste_modality)


def features(spec: FeatureSpec, num_rows: int, seed: int, *, countries: list[str] = COUNTRIES) -> pa.RecordBatch:
    """Draw user features; each block is absent of a third of the users. Each seed has a distribution of its own."""
    random = np.random.default_rng(seed)
    columns: dict[str, pa.Array] = {}
    for name, kind in spec.columns():
        dim = next((b.dim for b in spec.pooled if b.column == name), spec.shares.get(name))
        there = random.random(num_rows) < 2 / 3
        if kind == "BOOLEAN":
            columns[name] = pa.array(there)
        elif dim:
            mean, spread = random.normal(0, 0.5, dim), random.uniform(0.7, 1.5)
            columns[name] = pa.array(
                list(random.normal(mean, spread, (num_rows, dim)).astype(np.float32)), pa.list_(pa.float32())
            )
        elif kind == "MAP<STRING,BIGINT>":
            counts = random.integers(0, 4, (num_rows, len(DEVICES)))
            maps = [[(d, int(n)) for d, n in zip(DEVICES, row, strict=True) if n] for row in counts]
            columns[name] = pa.array(maps, pa.map_(pa.string(), pa.int64()))
        elif kind == "STRING":
            columns[name] = pa.array(random.choice(countries, num_rows))
        else:
            days = random.exponential(random.uniform(5, 50), num_rows)
            columns[name] = pa.array(days, mask=~there if name.startswith("days_since") else None)
    for block in spec.pooled:  # absent vectors are zero, as stored
        vectors = np.stack(columns[block.column].to_pylist()) * np.asarray(columns[block.flag])[:, None]
        columns[block.column] = pa.array(list(vectors.astype(np.float32)), pa.list_(pa.float32()))
    return pa.RecordBatch.from_pydict(columns)


def scaler_of(layout: InputLayout, seed: int) -> Scaler:
    """Fit a scaler, but let directions be taken from the same point in all: another one cannot be made up for."""
    scaler = Scaler.fit(layout, Moments.of(layout.raw(features(layout.spec, 300, seed))))
    scaler.center_F[directions(layout)] = 0.1
    return scaler


def directions(layout: InputLayout) -> list[int]:
    return [k for block in layout.blocks if block.kind == "pooled" for k in range(block.start, block.stop)]


POOLED = ("behaviour_7d", "behaviour_onboarding")


def targets_of(layout: InputLayout, model: config.Model) -> TargetLayout:
    return TargetLayout.of(layout.spec, layout.spec.windows_days if model.looks_ahead else [])


def autoencoder_of(layout: InputLayout, model: config.Model = MODEL, seed: int = 0) -> Autoencoder:
    return Autoencoder(layout, model, targets_of(layout, model), seed=seed)


def weights_of(autoencoder: Autoencoder) -> Tensors:
    return {name: tensor.numpy() for name, tensor in autoencoder.state_dict().items()}


def space(layout: InputLayout, scaler: Scaler, weights: Tensors | None = None, model: config.Model = MODEL) -> Artifact:
    manifest = SpaceManifest(
        space_id="s001", created_at=datetime(2024, 1, 1, tzinfo=UTC), lineage_id="al-1", trained_until=date(2024, 1, 1),
        layout=layout, targets=targets_of(layout, model), model=model, training=config.Training(), metrics={},
        config_hash="c", code_hash="h",
    )  # fmt: skip
    weights = weights or weights_of(autoencoder_of(layout, model, seed=3))
    return Artifact(manifest, weights | {"center_F": scaler.center_F, "scale_F": scaler.scale_F})


def started(
    earlier: Artifact, layout: InputLayout, scaler: Scaler, *, model: config.Model = MODEL, same_items: bool = True
) -> WarmStart:
    targets = targets_of(layout, model)
    return warm_start(
        earlier, layout=layout, targets=targets, scaler=scaler, model=model, same_items=same_items, seed=9
    )


def scaled(layout: InputLayout, scaler: Scaler, batch: pa.RecordBatch) -> np.ndarray:
    x_BF = scaler.apply(layout, layout.raw(batch))
    assert np.abs(x_BF).max() < CLIP  # what is clipped is not carried
    return x_BF


def outputs(
    layout: InputLayout, scaler: Scaler, weights: Tensors, batch: pa.RecordBatch, model: config.Model = MODEL
) -> tuple[np.ndarray, np.ndarray]:
    """Return what is encoded of user features, and the reconstruction in raw units, directions as they are."""
    x_BF = scaled(layout, scaler, batch)
    autoencoder = autoencoder_of(layout, model)
    autoencoder.load_state_dict({name: torch.from_numpy(weights[name]) for name in autoencoder.state_dict()})
    with torch.inference_mode():
        z_BD = autoencoder.encode(torch.from_numpy(x_BF))
        reconstruction_BF = autoencoder(torch.from_numpy(x_BF)).reconstruction_BF
    center_F, scale_F = scaler.center_F.copy(), scaler.scale_F.copy()
    center_F[directions(layout)], scale_F[directions(layout)] = 0, 1
    return z_BD.numpy(), center_F + scale_F * reconstruction_BF.numpy()


def block_of(layout: InputLayout, name: str) -> Block:
    return next(block for block in layout.blocks if block.name == name)


def part(layout: InputLayout, name: str) -> slice:
    return slice(block_of(layout, name).start, block_of(layout, name).stop)


def by_value(layout: InputLayout, name: str, reconstruction_BF: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(layout.vocabulary[name], reconstruction_BF[:, part(layout, name)].T, strict=True))


@pytest.mark.parametrize("model", [MODEL, LINEAR])
def test_another_scaler_changes_neither_codes_nor_reconstructions_in_raw_units(model: config.Model) -> None:
    layout = layout_of()
    before, now = scaler_of(layout, 1), scaler_of(layout, 2)
    assert np.abs(before.center_F - now.center_F).max() > 0.5
    assert np.abs(np.log(before.scale_F / now.scale_F)).max() > 0.3
    earlier = space(layout, before, model=model)
    start = started(earlier, layout, now, model=model)
    batch = features(layout.spec, 200, seed=4)
    flags = layout.raw(batch)[:, part(layout, "flags")]
    assert set(np.unique(flags)) == {0, 1}
    for got, expected in zip(
        outputs(layout, now, start.tensors, batch, model),
        outputs(layout, before, earlier.tensors, batch, model),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, atol=1e-5)
    assert start.fresh == []
    hidden = ("encoder_hidden", "encoder_latent", "decoder_hidden") if model.hidden_dim else ()
    assert start.carried == [
        *("encoder_linear", *hidden, "decoder_output", "item_query", "item_worth", "next_days"),
        *(block.name for block in layout.blocks[:-1]),
    ]
    assert {name: tensor.shape for name, tensor in start.tensors.items()} == {
        name: tensor.shape for name, tensor in weights_of(autoencoder_of(layout, model)).items()
    }
    assert {tensor.dtype for tensor in start.tensors.values()} == {np.dtype(np.float32)}


def test_unit_vectors_are_carried_exactly_but_nothing_from_a_space_without_tastes() -> None:
    layout, batch = layout_of(taste_modality="behaviour"), features(layout_of().spec, 200, seed=4)
    before, now = scaler_of(layout, 1), scaler_of(layout, 2)
    earlier = space(layout, before, model=LINEAR)
    start = started(earlier, layout, now, model=LINEAR)
    for got, expected in zip(
        outputs(layout, now, start.tensors, batch, LINEAR),
        outputs(layout, before, earlier.tensors, batch, LINEAR),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, atol=1e-5)
    directed = space(layout_of(), scaler_of(layout_of(), 1), model=LINEAR)
    (line,) = started(directed, layout, now, model=LINEAR).fresh
    assert line.endswith(": fresh, 11 learned dimensions, s001 has 14")


def test_the_earlier_space_is_left_as_it_was() -> None:
    layout = layout_of()
    earlier = space(layout, scaler_of(layout, 1))
    before = {name: tensor.copy() for name, tensor in earlier.tensors.items()}
    for started_with in started(earlier, layout, scaler_of(layout, 2)).tensors.values():
        started_with.fill(1)
    for name, tensor in before.items():
        np.testing.assert_array_equal(earlier.tensors[name], tensor)


def test_values_of_a_vocabulary_in_another_order_are_found_by_name() -> None:
    was, layout = layout_of(["de", "dk", "fr"], DEVICES), layout_of(["fr", "de", "dk"], DEVICES[::-1])
    before, now = scaler_of(was, 1), scaler_of(layout, 2)
    earlier = space(was, before)
    start = started(earlier, layout, now)
    batch = features(layout.spec, 100, seed=4)
    (z_BD, got_BF), (expected_BD, expected_BF) = (
        outputs(layout, now, start.tensors, batch),
        outputs(was, before, earlier.tensors, batch),
    )
    np.testing.assert_allclose(z_BD, expected_BD, atol=1e-5)
    for name in layout.vocabulary:
        expected = by_value(was, name, expected_BF)
        for word, values in by_value(layout, name, got_BF).items():
            np.testing.assert_allclose(values, expected[word], atol=1e-5)
    assert start.fresh == []


def test_a_new_value_begins_as_other_did_and_shares_its_reconstruction() -> None:
    was, layout = layout_of(["de"], ["device=web"]), layout_of(["de", "fr", "pl"], DEVICES)
    before, now = scaler_of(was, 1), scaler_of(layout, 2)
    earlier = space(was, before)
    start = started(earlier, layout, now)
    batch = features(layout.spec, 100, seed=4)
    (z_BD, got_BF), (expected_BD, expected_BF) = (
        outputs(layout, now, start.tensors, batch),
        outputs(was, before, earlier.tensors, batch),
    )
    np.testing.assert_allclose(z_BD, expected_BD, atol=1e-5)
    got, expected = by_value(layout, "attribute_country", got_BF), by_value(was, "attribute_country", expected_BF)
    np.testing.assert_allclose(got["de"], expected["de"], atol=1e-5)
    np.testing.assert_allclose(got["fr"] + got["pl"] + got[UNKNOWN], expected[UNKNOWN], atol=1e-5)
    often_V = now.center_F[part(layout, "attribute_country")]
    np.testing.assert_allclose(got["fr"], often_V[1] / often_V[1:].sum() * expected[UNKNOWN], atol=1e-5)
    assert start.fresh == [
        "num_by_context_7d: device=phone, device=tv: new, initialized from (other)",
        "attribute_country: fr, pl: new, initialized from (other)",
    ]


def test_a_removed_value_counts_as_other_and_the_other_values_as_before() -> None:
    was, layout = layout_of(["de", "dk", "pl"]), layout_of(["de"])
    before, now = scaler_of(was, 1), scaler_of(layout, 2)
    earlier = space(was, before)
    start = started(earlier, layout, now)
    batch = features(layout.spec, 100, seed=4, countries=["de", "fr"])
    (z_BD, got_BF), (expected_BD, expected_BF) = (
        outputs(layout, now, start.tensors, batch),
        outputs(was, before, earlier.tensors, batch),
    )
    np.testing.assert_allclose(z_BD, expected_BD, atol=1e-5)
    got, expected = by_value(layout, "attribute_country", got_BF), by_value(was, "attribute_country", expected_BF)
    np.testing.assert_allclose(got["de"], expected["de"], atol=1e-5)
    np.testing.assert_allclose(got[UNKNOWN], expected[UNKNOWN] + expected["dk"] + expected["pl"], atol=1e-5)
    assert start.fresh == ["attribute_country: dk, pl: removed, counted as (other)"]


def test_if_no_user_is_other_any_more_other_keeps_its_weights() -> None:
    layout = layout_of(COUNTRIES, DEVICES)
    now = scaler_of(layout, 2)
    assert now.center_F[part(layout, "attribute_country")][-1] == 0
    earlier = space(layout, scaler_of(layout, 1))
    batch = features(layout.spec, 100, seed=4)
    got_BF = outputs(layout, now, started(earlier, layout, now).tensors, batch)[1]
    expected_BF = outputs(layout, earlier.scaler, earlier.tensors, batch)[1]
    np.testing.assert_allclose(got_BF, expected_BF, atol=1e-5)


def test_many_new_values_are_reported_by_their_number() -> None:
    was, layout = layout_of([]), layout_of([f"c{k}" for k in range(8)])
    start = started(space(was, scaler_of(was, 1)), layout, scaler_of(layout, 2))
    assert start.fresh == ["attribute_country: c0, c1, c2, c3, c4 and 3 more: new, initialized from (other)"]


def test_item_vectors_of_another_lineage_begin_fresh_and_the_rest_is_carried() -> None:
    layout = layout_of()
    before, now = scaler_of(layout, 1), scaler_of(layout, 2)
    earlier = space(layout, before)
    start = started(earlier, layout, now, same_items=False)
    assert start.fresh == [
        "item_query, item_worth, next_days: fresh, s001 has other targets",
        *(f"{name}: fresh, s001 has item vectors of another lineage, al-1" for name in POOLED),
    ]
    drawn = weights_of(autoencoder_of(layout, seed=9))
    pooled = slice(0, block_of(layout, "behaviour_onboarding").stop)
    for name, where in (("encoder_hidden.weight", np.s_[:, pooled]), ("decoder_output.bias", np.s_[pooled])):
        np.testing.assert_array_equal(start.tensors[name][where], drawn[name][where])
    nobody = features(layout.spec, 100, seed=4)
    for block in layout.spec.pooled:  # of users without these blocks nothing has changed
        place = nobody.schema.get_field_index(block.flag)
        nobody = nobody.set_column(place, block.flag, pa.array([False] * 100))
    (z_BD, got_BF), (expected_BD, expected_BF) = (
        outputs(layout, now, start.tensors, nobody),
        outputs(layout, before, earlier.tensors, nobody),
    )
    np.testing.assert_allclose(z_BD, expected_BD, atol=1e-5)
    np.testing.assert_allclose(got_BF[:, pooled.stop :], expected_BF[:, pooled.stop :], atol=1e-5)


def test_blocks_that_are_new_removed_or_of_another_width_are_named() -> None:
    was, layout = layout_of(dim=3, windows=(2, 7)), layout_of(dim=4, windows=(7,))
    lines = started(space(was, scaler_of(was, 1), model=PLAIN), layout, scaler_of(layout, 2), model=PLAIN).fresh
    assert "behaviour_7d: fresh, pooled of width 4, s001 has pooled of width 3" in lines
    assert "behaviour_2d: dropped, only s001 has it" in lines
    assert [line for line in lines if line.startswith("num_events")] == ["num_events_2d: dropped, only s001 has it"]
    back = started(space(layout, scaler_of(layout, 2), model=PLAIN), was, scaler_of(was, 1), model=PLAIN)
    assert "behaviour_2d: fresh, s001 does not have it" in back.fresh
    assert "num_events_7d" in back.carried
    assert "num_events_2d" not in back.carried


def test_a_removed_window_counts_as_absent() -> None:
    was, layout = layout_of(windows=(2, 7)), layout_of(windows=(7,))
    before, now = scaler_of(was, 1), scaler_of(layout, 2)
    earlier = space(was, before, model=PLAIN)
    batch = features(was.spec, 100, seed=4)
    x_BF = scaled(was, before, batch)
    gone = [block for block in was.blocks if block.name.endswith("_2d")]
    for block in gone:
        x_BF[:, block.start : block.stop] = 0
        if block.flag is not None:
            x_BF[:, block.flag] = 0
    expected_BD = earlier.encoder().encode(torch.from_numpy(x_BF)).numpy()
    start = started(earlier, layout, now, model=PLAIN)
    np.testing.assert_allclose(outputs(layout, now, start.tensors, batch, PLAIN)[0], expected_BD, atol=1e-5)
    assert len(start.fresh) == len(gone) == 4


ENCODER, DECODER = ["encoder_linear", "encoder_hidden", "encoder_latent"], ["decoder_hidden", "decoder_output"]
FUTURE = ["item_query", "item_worth", "next_days"]


@pytest.mark.parametrize(
    ("width", "carried", "fresh"),
    [
        ("hidden_dim", [], [*ENCODER, *DECODER, *FUTURE]),
        ("latent_dim", [], [*ENCODER, *DECODER, *FUTURE]),
        ("decoder_dim", [*ENCODER, *FUTURE], DECODER),
    ],
)
def test_an_encoder_or_a_decoder_of_other_widths_begins_fresh(width: str, carried: list[str], fresh: list[str]) -> None:
    layout = layout_of()
    scaler, model = scaler_of(layout, 1), MODEL.model_copy(update={width: 20})
    earlier = space(layout, scaler)
    start = started(earlier, layout, scaler, model=model)
    assert start.fresh == [f"{', '.join(fresh)}: fresh, model.{width} is 20, s001 has {getattr(MODEL, width)}"]
    assert start.carried == ([*carried, *(block.name for block in layout.blocks[:-1])] if carried else [])
    drawn = weights_of(autoencoder_of(layout, model, seed=9))
    for name, tensor in start.tensors.items():
        expected = earlier.tensors if name.split(".")[0] in carried else drawn
        np.testing.assert_allclose(tensor, expected[name], atol=1e-6)


def test_an_encoder_with_another_number_of_propensities_begins_fresh() -> None:
    was, layout = layout_of(windows=(2, 7)), layout_of(windows=(7,))
    start = started(space(was, scaler_of(was, 1)), layout, scaler_of(layout, 2))
    assert start.fresh[0].endswith("fresh, 14 learned dimensions, s001 has 12")
    assert start.carried == []


def test_what_is_predicted_is_what_was_under_another_scaler() -> None:
    layout = layout_of()
    before, now = scaler_of(layout, 1), scaler_of(layout, 2)
    earlier, batch = space(layout, before), features(layout.spec, 100, seed=4)
    with torch.inference_mode():
        expected = earlier.encoder()(torch.from_numpy(scaled(layout, before, batch)))
    warm = autoencoder_of(layout)
    start = started(earlier, layout, now)
    warm.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in start.tensors.items()})
    with torch.inference_mode():
        got = warm(torch.from_numpy(scaled(layout, now, batch)))
    for part_of in ("query_BE", "worth_E", "next_days_BN"):
        assert getattr(got, part_of).numel() > 0
        np.testing.assert_allclose(getattr(got, part_of).detach(), getattr(expected, part_of).detach(), atol=1e-5)


def test_other_targets_begin_fresh() -> None:
    layout = layout_of(windows=(2, 7))
    scaler = scaler_of(layout, 1)
    earlier = space(layout, scaler)
    targets = TargetLayout.of(layout.spec, [7, 2])
    start = warm_start(earlier, layout=layout, targets=targets, scaler=scaler, model=MODEL, same_items=True, seed=9)
    assert start.fresh == ["item_query, item_worth, next_days: fresh, s001 has other targets"]
    assert start.carried[:5] == [*ENCODER, *DECODER]
    few = MODEL.model_copy(update={"latent_dim": 6})  # too few for propensities
    plain = few.model_copy(update={"next_items_weight": 0.0, "next_days_weight": 0.0})
    assert started(space(layout, scaler, model=plain), layout, scaler, model=few).fresh == start.fresh
    assert started(space(layout, scaler, model=few), layout, scaler, model=plain).fresh == []


def test_a_training_begins_at_the_loss_where_the_earlier_one_ended() -> None:
    layout = layout_of()
    loss = ReconstructionLoss(layout)

    def planted(seed: int, *, shift: float = 0.0) -> np.ndarray:
        """Draw 400 raw inputs, linear in two factors; a block is absent of a third of the users."""
        mixing = np.random.default_rng(0).normal(size=(3, layout.width))
        random = np.random.default_rng(seed)
        factors = np.c_[np.ones(400), random.normal(size=(400, 2)) + shift]
        raw_BF = (factors @ mixing + 0.1 * random.normal(size=(400, layout.width))).astype(np.float32)
        for block in layout.blocks:
            if block.flag is not None:
                raw_BF[:, block.flag] = random.random(400) < 2 / 3
                raw_BF[:, block.start : block.stop] *= raw_BF[:, block.flag, None]
        return raw_BF

    def loss_of(autoencoder: Autoencoder, scaler: Scaler, raw_BF: np.ndarray) -> torch.Tensor:
        x_BF = torch.from_numpy(scaler.apply(layout, raw_BF))
        per_block_K: torch.Tensor = loss(autoencoder(x_BF).reconstruction_BF, x_BF)
        return per_block_K.mean()

    trained_on, unseen = planted(1), planted(3)
    before, now = (Scaler.fit(layout, Moments.of(raw_BF)) for raw_BF in (trained_on, planted(2, shift=0.5)))
    now.center_F[directions(layout)] = before.center_F[directions(layout)]  # as in scaler_of
    autoencoder = autoencoder_of(layout, seed=3)
    adam = torch.optim.Adam(autoencoder.parameters(), lr=0.01)
    for _ in range(300):
        adam.zero_grad()
        loss_of(autoencoder, before, trained_on).backward()
        adam.step()
    start = started(space(layout, before, weights_of(autoencoder)), layout, now)
    warm, cold = autoencoder_of(layout), autoencoder_of(layout, seed=9)
    warm.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in start.tensors.items()})
    with torch.inference_mode():
        ended, began, without = (
            loss_of(model, scaler, unseen).item() for model, scaler in ((autoencoder, before), (warm, now), (cold, now))
        )
    assert began == pytest.approx(ended, rel=0.1)
    assert without > 3 * ended
