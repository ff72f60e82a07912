"""How a row of user features becomes the model's input."""

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.inference_data import as_stored
from userrep.evaluation.representations.inputs import counts, recent_counts
from userrep.features.layout import CLIP, UNKNOWN, InputLayout, Moments, Scaler
from userrep.features.spec import FeatureSpec
from userrep.tracking.registered_model import example_users

pytestmark = pytest.mark.fast

SPEC = FeatureSpec(
    windows_days=[2, 7],
    modalities={"behaviour": 2, "content": 3},
    onboarding=True,
    registered_at=True,
    attributes=["country"],
    context=["device"],
)
WITH_HISTORY = SPEC.model_copy(update={"history_days": 30})
VOCABULARY = {
    "attribute_country": ["de", "fr", UNKNOWN],
    "num_by_context_7d": ["device=phone", "device=web", UNKNOWN],
}
LAYOUT = InputLayout.of(SPEC, VOCABULARY)
ARROW = {"DOUBLE": pa.float64(), "BIGINT": pa.int64(), "BOOLEAN": pa.bool_(), "STRING": pa.string()}
ARROW |= {"ARRAY<FLOAT>": pa.list_(pa.float32()), "MAP<STRING,BIGINT>": pa.map_(pa.string(), pa.int64())}


def features(*rows: dict[str, Any]) -> pa.RecordBatch:
    """Build a batch of user features; what a row does not name is as of a user without events."""
    widths = {block.column: block.dim for block in SPEC.pooled} | SPEC.shares
    empty: dict[str, Any] = {"user_id": "u", "as_of": date(2024, 5, 1), "is_exact": True, SPEC.context_column: []}
    for name, kind in SPEC.columns():
        if name in widths:
            empty[name] = [0.0] * widths[name]
        elif kind == "BOOLEAN" and name.startswith("has_"):
            empty[name] = False
        elif name.startswith(("num_events", "num_active", "weight")):
            empty[name] = 0
    columns = [
        ("user_id", pa.string()),
        ("as_of", pa.date32()),
        *((name, ARROW[kind]) for name, kind in SPEC.columns()),
    ]
    return pa.RecordBatch.from_pylist([{**empty, **row} for row in rows], schema=pa.schema(columns))


def inputs(x_F: np.ndarray, name: str) -> list[float]:
    block = next(block for block in LAYOUT.blocks if block.name == name)
    return x_F[block.start : block.stop].tolist()


def flag(x_F: np.ndarray, name: str) -> float:
    block = next(block for block in LAYOUT.blocks if block.name == name)
    assert block.flag is not None
    return float(x_F[block.flag])


def test_recent_counts_are_those_without_the_history() -> None:
    for spec, added in ((WITH_HISTORY, {"num_events_30d", "weight_30d", "num_active_days_30d"}), (SPEC, set())):
        layout = InputLayout.of(spec, VOCABULARY)
        every, recent = ({block.name for block in select(layout)} for select in (counts, recent_counts))
        assert every - recent == added
        assert recent == set(SPEC.scalars)


def test_an_invented_user_has_an_event_a_day_in_the_history_too() -> None:
    users = example_users(InputLayout.of(WITH_HISTORY, VOCABULARY)).to_dict("records")
    assert [[user[f"num_events_{days}d"] for days in (2, 7, 30)] for user in users] == [[2, 7, 30], [0, 0, 0]]


def test_blocks_cover_the_inputs_without_a_gap_and_flags_come_last() -> None:
    starts, stops = [b.start for b in LAYOUT.blocks], [b.stop for b in LAYOUT.blocks]
    assert starts == [0, *stops[:-1]]
    assert LAYOUT.blocks[-1].kind == "flags"
    flags = [block.flag for block in LAYOUT.blocks if block.flag is not None]
    assert flags == list(range(starts[-1], LAYOUT.width))
    assert len(flags) == 6 + 3  # pooled blocks, and days since


def test_picks_registration_and_attributes_are_known_of_a_newcomer() -> None:
    assert {block.name for block in LAYOUT.blocks if block.newcomer} == {
        *("behaviour_onboarding", "content_onboarding", "days_since_registration", "attribute_country")
    }


def test_a_layout_survives_json() -> None:
    assert InputLayout.model_validate_json(LAYOUT.model_dump_json()) == LAYOUT


def test_means_are_unit_vectors_that_come_back_from_the_scaled_inputs() -> None:
    layout = InputLayout.of(SPEC, VOCABULARY, "content")
    means = [block for block in layout.blocks if block.kind == "mean"]
    assert [block.name for block in means] == ["content_7d", "content_onboarding"]
    batch = features(
        {"content_7d": [3.0, 0.0, 4.0], "has_content_7d": True, "content_2d": [3.0, 0.0, 4.0], "has_content_2d": True},
        {"content_onboarding": [0.0, 0.1, 0.0], "has_content_onboarding": True},
    )
    raw_BF = layout.raw(batch)
    week, picks = (raw_BF[:, block.inputs] for block in means)
    np.testing.assert_allclose(week, [[0.6, 0, 0.8], [0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(picks, [[0, 0, 0], [0, 1, 0]], rtol=1e-6)
    assert inputs(raw_BF[0], "content_2d") == [3, 0, 4]
    scaler = Scaler(center_F=np.zeros(layout.width, np.float32), scale_F=np.ones(layout.width, np.float32))
    for block in means:
        scaler.center_F[block.inputs], scaler.scale_F[block.inputs] = 0.1, 0.01
    x_BF = scaler.apply(layout, raw_BF)
    for row, block in ((0, means[0]), (1, means[1])):  # far beyond the clip
        np.testing.assert_allclose(0.1 + 0.01 * x_BF[row, block.inputs], raw_BF[row, block.inputs], atol=1e-5)
    covered = [k for part in layout.clipped for k in range(part.start, part.stop)]
    assert covered == [k for k in range(layout.width) if not any(b.start <= k < b.stop for b in means)]
    assert LAYOUT.clipped == [slice(0, LAYOUT.width)]


def test_an_unknown_user_is_zero_except_for_the_unknown_attribute() -> None:
    x_F = LAYOUT.raw(features({}))[0]
    assert inputs(x_F, "attribute_country") == [0, 0, 1]
    x_F[next(b for b in LAYOUT.blocks if b.name == "attribute_country").stop - 1] = 0
    assert not x_F.any()


def test_values_are_in_their_blocks() -> None:
    x_F = LAYOUT.raw(
        features(
            {
                "behaviour_7d": [0.5, -1.5],
                "has_behaviour_7d": True,
                "num_events_7d": 3,
                "weight_7d": 1.5,
                "days_since_last_event": 0.0,
                "days_since_registration": 9.0,
                "part_of_day_7d": [0.25, 0.75, 0, 0],
                "num_by_context_7d": [("device=web", 3), ("device=phone", 1)],
                "attribute_country": "fr",
            }
        )
    )[0]
    assert x_F.dtype == np.float32
    assert inputs(x_F, "behaviour_7d") == [0.5, -1.5]
    assert flag(x_F, "behaviour_7d") == 1
    assert flag(x_F, "behaviour_2d") == 0
    assert inputs(x_F, "num_events_7d") == pytest.approx([np.log1p(3)])
    assert inputs(x_F, "weight_7d") == pytest.approx([np.log1p(1.5)])
    assert inputs(x_F, "days_since_registration") == pytest.approx([np.log1p(9)])
    assert inputs(x_F, "part_of_day_7d") == [0.25, 0.75, 0, 0]
    assert inputs(x_F, "num_by_context_7d") == [0.25, 0.75, 0]
    assert inputs(x_F, "attribute_country") == [0, 1, 0]


def test_an_event_today_and_an_unknown_last_event_differ_by_the_flag() -> None:
    today, unknown = LAYOUT.raw(features({"days_since_last_event": 0.0}, {"days_since_last_event": None}))
    assert inputs(today, "days_since_last_event") == inputs(unknown, "days_since_last_event") == [0]
    assert (flag(today, "days_since_last_event"), flag(unknown, "days_since_last_event")) == (1, 0)


def test_values_outside_the_vocabulary_count_as_other() -> None:
    x_F = LAYOUT.raw(
        features({"attribute_country": "xx", "num_by_context_7d": [("device=tv", 2), ("os=x", 1), ("device=web", 1)]})
    )[0]
    assert inputs(x_F, "attribute_country") == [0, 0, 1]
    assert inputs(x_F, "num_by_context_7d") == [0, 0.25, 0.75]


def test_rows_do_not_depend_on_their_neighbours_and_an_empty_batch_is_empty() -> None:
    rows = [
        {"behaviour_2d": [1, 2], "has_behaviour_2d": True, "attribute_country": "de"},
        {"num_events_2d": 5, "num_by_context_7d": [("device=phone", 5)]},
        {},
    ]
    together = LAYOUT.raw(features(*rows))
    alone = np.concatenate([LAYOUT.raw(features(row)) for row in rows])
    np.testing.assert_array_equal(together, alone)
    assert LAYOUT.raw(features()).shape == (0, LAYOUT.width)
    np.testing.assert_array_equal(LAYOUT.raw(features(*rows).slice(1, 2)), together[1:])


def test_stored_vectors_are_laid_out_as_lists_are() -> None:
    there = {f"has_{block.column}": True for block in SPEC.pooled}
    lists = {block.column: [float(k + 1) for k in range(block.dim)] for block in SPEC.pooled}
    rows = features({**lists, **there}, lists, {**lists, **there, "has_content_7d": None}, {})
    np.testing.assert_array_equal(LAYOUT.raw(as_stored(rows, SPEC)), LAYOUT.raw(rows))
    np.testing.assert_array_equal(LAYOUT.raw(as_stored(rows, SPEC).slice(1, 2)), LAYOUT.raw(rows)[1:3])
    wrong = as_stored(rows, WITH_HISTORY.model_copy(update={"history_days": None, "windows_days": [2]}))
    with pytest.raises(ValueError, match=r"pooled: \d+ numbers a row .+ were expected"):
        LAYOUT.raw(wrong)


def test_vectors_of_another_width_are_refused() -> None:
    there = {"has_behaviour_2d": True}
    with pytest.raises(ValueError, match="behaviour_2d: 1 vectors of width 2 were expected, got one of 3 numbers"):
        LAYOUT.raw(features({"behaviour_2d": [1, 2, 3], **there}))
    with pytest.raises(ValueError, match="2 vectors of width 2 were expected, got one of 1 numbers"):
        LAYOUT.raw(features({"behaviour_2d": [1], **there}, {"behaviour_2d": [1, 2, 3], **there}))


def test_nulls_are_absent_and_so_are_values_below_a_flag_that_is_not_set() -> None:
    nulls = dict.fromkeys(name for name, _ in SPEC.columns())
    hidden = {"behaviour_2d": [float("nan"), 3.0], "has_behaviour_2d": False}
    without = {"behaviour_2d": None, "has_behaviour_2d": True}
    known = {"behaviour_2d": [1.0, 2.0], "has_behaviour_2d": True, "num_by_context_7d": [("device=web", None)]}
    x_BF = LAYOUT.raw(features(nulls, hidden, without, known, {}))
    assert all(np.array_equal(x_BF[k], x_BF[4]) for k in range(3))
    assert (inputs(x_BF[3], "behaviour_2d"), flag(x_BF[3], "behaviour_2d")) == ([1, 2], 1)
    assert inputs(x_BF[3], "num_by_context_7d") == [0, 0, 0]


def some_raw(num_rows: int, seed: int = 0) -> np.ndarray:
    """Rows of plausible inputs; of each flagged block about half are absent."""
    rng = np.random.default_rng(seed)
    raw_BF = rng.normal(3, 2, (num_rows, LAYOUT.width)).astype(np.float32)
    for block in LAYOUT.blocks[:-1]:
        if block.flag is not None:
            raw_BF[:, block.flag] = rng.random(num_rows) < 0.5
            raw_BF[:, block.start : block.stop] *= raw_BF[:, block.flag, None]
    return raw_BF


def test_moments_of_parts_add_up_to_those_of_the_whole() -> None:
    raw_BF = some_raw(50)
    whole, parts = Moments.of(raw_BF), [Moments.of(part) for part in np.split(raw_BF, [7, 7, 30])]
    added = Moments(
        num_rows=sum(part.num_rows for part in parts),
        sum_F=np.sum([part.sum_F for part in parts], axis=0),
        sum_squares_F=np.sum([part.sum_squares_F for part in parts], axis=0),
    )
    assert added.num_rows == whole.num_rows == 50
    np.testing.assert_allclose(added.sum_F, whole.sum_F, rtol=1e-12)
    np.testing.assert_allclose(added.sum_squares_F, whole.sum_squares_F, rtol=1e-12)
    np.testing.assert_allclose(Scaler.fit(LAYOUT, added).scale_F, Scaler.fit(LAYOUT, whole).scale_F, rtol=1e-6)


def test_a_scaler_sees_the_rows_that_have_the_block_and_gives_each_block_one_scale() -> None:
    raw_BF = some_raw(200)
    scaler = Scaler.fit(LAYOUT, Moments.of(raw_BF))
    for block in LAYOUT.blocks[:-1]:
        rows_BF = raw_BF if block.flag is None else raw_BF[raw_BF[:, block.flag] == 1]
        part_BF = rows_BF[:, block.start : block.stop].astype(np.float64)
        np.testing.assert_allclose(scaler.center_F[block.start : block.stop], part_BF.mean(axis=0), rtol=1e-5)
        one_scale = np.sqrt(part_BF.var(axis=0).mean())
        np.testing.assert_allclose(scaler.scale_F[block.start : block.stop], one_scale, rtol=1e-5)


def test_flags_are_left_as_they_are() -> None:
    raw_BF = some_raw(30)
    first = LAYOUT.blocks[-1].start
    x_BF = Scaler.fit(LAYOUT, Moments.of(raw_BF)).apply(LAYOUT, raw_BF)
    np.testing.assert_array_equal(x_BF[:, first:], raw_BF[:, first:])


def test_scaled_inputs_are_centred_where_present_zero_where_absent_and_pooled_ones_equally_long() -> None:
    raw_BF = some_raw(100)
    before = raw_BF.copy()
    x_BF = Scaler.fit(LAYOUT, Moments.of(raw_BF)).apply(LAYOUT, raw_BF)
    np.testing.assert_array_equal(raw_BF, before)
    for block in LAYOUT.blocks[:-1]:
        there_B = np.ones(100, bool) if block.flag is None else raw_BF[:, block.flag] == 1
        part_BF = x_BF[:, block.start : block.stop]
        assert not part_BF[~there_B].any()
        if block.kind != "pooled":
            np.testing.assert_allclose(part_BF[there_B].mean(axis=0), 0, atol=1e-4)
            continue
        from_mean_BW = raw_BF[there_B, block.start : block.stop] - raw_BF[there_B, block.start : block.stop].mean(
            axis=0
        )
        for got_W, raw_W in zip(part_BF[there_B], from_mean_BW, strict=True):
            np.testing.assert_allclose(got_W, raw_W * (len(raw_W) / (raw_W @ raw_W)) ** 0.5, rtol=1e-3, atol=1e-4)


def test_a_pooled_vector_that_equals_the_mean_becomes_zeros() -> None:
    raw_BF = some_raw(100)
    scaler = Scaler.fit(LAYOUT, Moments.of(raw_BF))
    block = next(block for block in LAYOUT.blocks if block.kind == "pooled")
    raw_BF[0, block.start : block.stop], raw_BF[0, block.flag] = scaler.center_F[block.start : block.stop], 1
    assert not scaler.apply(LAYOUT, raw_BF)[0, block.start : block.stop].any()


def test_scaled_inputs_are_clipped() -> None:
    raw_BF = some_raw(100)
    scaler = Scaler.fit(LAYOUT, Moments.of(raw_BF))
    far_BF = raw_BF * 1e6
    far_BF[:, LAYOUT.blocks[-1].start :] = 1
    x_BF = scaler.apply(LAYOUT, far_BF)
    assert np.abs(x_BF).max() == CLIP


def test_a_block_that_never_varies_or_is_never_there_keeps_scale_one() -> None:
    raw_BF = np.zeros((10, LAYOUT.width), np.float32)
    block = next(block for block in LAYOUT.blocks if block.name == "num_events_7d")
    raw_BF[:, block.start] = 5
    scaler = Scaler.fit(LAYOUT, Moments.of(raw_BF))
    assert (scaler.scale_F == 1).all()
    assert scaler.center_F[block.start] == 5
    assert not scaler.apply(LAYOUT, raw_BF).any()
