"""Users as services and notebooks have them, brought to the columns of a model; what is wrong with them is named."""

from collections import UserDict
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from tests.unit.features.test_layout import LAYOUT, SPEC
from tests.unit.inference.test_inference import BATCHES, COLUMNS, WIDTHS, as_arrow, expected, random_users, same_bits
from tests.unit.inference.test_model import saved
from userrep.errors import UsageError
from userrep.inference.model import EmbeddingModel
from userrep.inference.to_arrow import dicts_as_arrow, frame_as_arrow, input_columns

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spaces") / "s1"
    saved(folder, layout=LAYOUT)
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep torch's threads from waiting for each other at every small pass."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Columns


def test_the_columns_of_a_model_are_all_features_but_whether_they_are_exact() -> None:
    columns = input_columns(SPEC)
    assert "is_exact" not in columns
    assert [*columns] == [name for name, _ in SPEC.columns()][:-1]
    assert (columns["content_2d"], columns["num_events_7d"], columns["weight_7d"]) == (
        "ARRAY<FLOAT>",
        "BIGINT",
        "DOUBLE",
    )


def test_dicts_become_columns_in_which_what_is_left_out_is_null() -> None:
    batch = dicts_as_arrow(
        [
            {"user_id": "u", "as_of": date(2024, 5, 1), "is_exact": False, "num_events_7d": 3, "has_content_2d": True},
            {"content_2d": [1, 2, 3], "num_by_context_7d": {"device=tv": 2}, "attribute_country": "de"},
        ],
        SPEC,
    )
    assert batch.schema.names == list(input_columns(SPEC))
    first, second = batch.to_pylist()
    assert {name: value for name, value in first.items() if value is not None} == {
        "num_events_7d": 3.0, "has_content_2d": True,
    }  # fmt: skip
    assert {name: value for name, value in second.items() if value is not None} == {
        "content_2d": [1.0, 2.0, 3.0], "num_by_context_7d": [("device=tv", 2)], "attribute_country": "de",
    }  # fmt: skip
    types = {field.name: field.type for field in batch.schema}
    assert types["content_2d"] == pa.list_(pa.float32())
    assert types["num_by_context_7d"] == pa.map_(pa.string(), pa.int64())
    assert (types["num_events_7d"], types["has_content_2d"]) == (pa.float64(), pa.bool_())


def test_every_form_of_null_in_a_frame_is_null() -> None:
    users = as_arrow(random_users(4, 0)).to_pandas()
    for column in ("behaviour_2d", "num_by_context_7d", "attribute_country", "num_events_7d", "has_content_7d"):
        users[column] = pd.Series([None, np.nan, pd.NA, users[column].dropna().iloc[0]], dtype=object)
        found = frame_as_arrow(users, SPEC).column(column)
        assert found.is_null().to_pylist() == [True, True, True, False], column


def test_lists_and_maps_keep_their_rows_where_some_are_null_or_empty() -> None:
    users = [
        {"content_2d": None, "num_by_context_7d": {}},
        {"content_2d": np.array([1, 2, 3], np.int8), "num_by_context_7d": [("a", 1), ("b", 2)]},
        {"content_2d": (), "num_by_context_7d": None},
        {"content_2d": [Decimal("4"), 5.5, 6], "num_by_context_7d": {"c": 3}},
    ]
    batch = dicts_as_arrow(users, SPEC)
    assert batch.column("content_2d").to_pylist() == [None, [1, 2, 3], [], [4, 5.5, 6]]
    assert batch.column("num_by_context_7d").to_pylist() == [[], [("a", 1), ("b", 2)], None, [("c", 3)]]


def test_a_map_may_be_of_any_type_and_nan_inside_a_value_is_refused() -> None:
    users = [{"num_by_context_7d": MappingProxyType({"a": 1})}, {"num_by_context_7d": UserDict({"b": 2})}]
    batch = dicts_as_arrow(users, SPEC)
    assert batch.column("num_by_context_7d").to_pylist() == [[("a", 1)], [("b", 2)]]
    for number in (float("nan"), float("inf")):
        with pytest.raises(UsageError, match=r"users: content_2d must be ARRAY<FLOAT> \(its numbers must be finite"):
            dicts_as_arrow([{"content_2d": [1.0, number, 3.0]}, {"content_2d": None}], SPEC)
    with pytest.raises(UsageError, match=r"users: num_by_context_7d must be MAP<STRING,BIGINT> \(.*nan"):
        dicts_as_arrow([{"num_by_context_7d": {"a": float("nan")}}], SPEC)


# The model that services load


@pytest.mark.parametrize("seed", range(3))
def test_a_service_gives_the_vectors_of_the_batch_for_dicts_and_frames_of_all_shapes(space: Path, seed: int) -> None:
    users = random_users(60, seed)
    wanted_BD, model = expected(space, users), EmbeddingModel.load(str(space))
    frame = as_arrow(users).to_pandas()
    wide = frame.assign(
        behaviour_2d=[None if row is None else row.astype(np.float64) for row in frame["behaviour_2d"]],
        content_7d=[float("nan") if row is None else tuple(row.tolist()) for row in frame["content_7d"]],
        num_by_context_7d=[user["num_by_context_7d"] for user in users],
        has_content_7d=frame["has_content_7d"].astype("boolean"),
        has_behaviour_2d=frame["has_behaviour_2d"].astype(float),
        num_events_7d=frame["num_events_7d"].astype("Int64"),
        attribute_country=frame["attribute_country"].fillna(np.nan),
        label=1,
    )
    for rows in BATCHES:
        for given in (users, frame, wide, wide.sample(frac=1, random_state=seed).sort_index()):
            parts = [model.predict(given[start : start + rows]) for start in range(0, len(users), rows)]
            assert same_bits(np.concatenate(parts), wanted_BD)
    assert same_bits(np.stack([model.predict(user) for user in users[:20]]), wanted_BD[:20])
    sparse = [{name: value for name, value in user.items() if value is not None} for user in users]
    assert same_bits(model.predict(sparse), wanted_BD)


def test_a_new_user_is_encoded_as_one_without_events(space: Path) -> None:
    model = EmbeddingModel.load(str(space))
    without_events: dict[str, Any] = {name: [0.0] * width for name, width in WIDTHS.items()}
    without_events |= {name: 0 for name, kind in COLUMNS.items() if kind == "BIGINT" or name.startswith("weight")}
    without_events |= {name: False for name, kind in COLUMNS.items() if kind == "BOOLEAN"}
    assert model.predict({}).shape == (16,)
    assert same_bits(model.predict({}), model.predict(without_events | {"num_by_context_7d": {}}))
    assert model.predict([]).shape == (0, 16)
    assert model.predict(as_arrow(random_users(2, 0)).to_pandas()[:0]).shape == (0, 16)


def test_lists_of_a_frame_may_be_of_any_kind_of_number(space: Path) -> None:
    model = EmbeddingModel.load(str(space))
    for vector in ([1, 2], [np.float64(1), 2], np.array([1, 2], np.int8), (1.0, 2.0), pd.Series([1, 2])):
        given = model.predict({"behaviour_7d": vector, "has_behaviour_7d": True})
        assert same_bits(given, model.predict({"behaviour_7d": [1.0, 2.0], "has_behaviour_7d": True}))


# What is wrong


def test_an_error_names_every_fault_of_the_users(space: Path) -> None:
    model, users = EmbeddingModel.load(str(space)), random_users(3, 0)
    with pytest.raises(UsageError, match=r"users: the space has no feature num_event_7d\. Remove it or correct"):
        model.predict({"num_event_7d": 3})
    with pytest.raises(UsageError, match=r"users: missing column behaviour_2d, weight_7d\. Add all feature columns"):
        model.predict(as_arrow(users).to_pandas().drop(columns=["weight_7d", "behaviour_2d"]))
    with pytest.raises(UsageError, match=r"users: num_events_7d must be BIGINT \(.*many") as caught:
        model.predict({"num_events_7d": "many", "behaviour_7d": 3, "num_by_context_7d": 1, "attribute_country": 4})
    assert [fault.split()[1] for fault in caught.value.faults] == [
        "behaviour_7d", "num_events_7d", "num_by_context_7d", "attribute_country",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"behaviour_7d: 2 vectors of width 2 were expected, got one of 1 numbers"):
        model.predict([{"behaviour_7d": v, "has_behaviour_7d": True} for v in ([1.0], [1.0, 2.0, 3.0])])


def test_lists_of_another_width_than_the_model_s_are_refused(space: Path) -> None:
    model, users = EmbeddingModel.load(str(space)), as_arrow(random_users(3, 0)).to_pandas()
    with pytest.raises(ValueError, match="content_7d: 3 vectors of width 3 were expected, got one of 2 numbers"):
        model.predict(users.assign(content_7d=[[1.0, 2.0]] * 3, has_content_7d=True))


@pytest.mark.parametrize(("given", "kind"), [([1], "int"), (None, "NoneType"), (3, "int"), ("x", "str")])
def test_users_that_are_no_dicts_are_refused(space: Path, given: Any, kind: str) -> None:
    with pytest.raises(UsageError, match=f"users: expected a frame or dicts of features, got {kind}"):
        EmbeddingModel.load(str(space)).predict(given)


def test_dicts_may_come_from_a_generator(space: Path) -> None:
    model = EmbeddingModel.load(str(space))
    assert same_bits(
        model.predict({"num_events_7d": k} for k in (1, 2)), model.predict([{"num_events_7d": 1}, {"num_events_7d": 2}])
    )


def test_an_unknown_storage_type_is_refused(space: Path) -> None:
    storage: Any = "Int8"
    with pytest.raises(UsageError, match="storage: expected one of float32, float16, int8, got 'Int8'"):
        EmbeddingModel.load(str(space), storage=storage)
