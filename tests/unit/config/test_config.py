"""The configuration across its sections: values of the wrong kind, and documented defaults."""

from datetime import timedelta
from typing import Any

import pytest

from tests.support.configurations import EVENTS, SMALLEST, fault_of
from userrep.config import parse_config

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"windows_days": 7}, "windows_days: must be a list, such as [7, 30], got 7."),
        ({"windows_days": []}, "windows_days: must not be empty, got []."),
        ({"windows_days": [7, 7]}, "windows_days: numbers must be distinct, got [7, 7]."),
        ({"windows_days": [0]}, "windows_days.0: must be at least 1, got 0."),
        ({"windows_days": [10**9]}, "windows_days.0: must be at most 3650"),
        ({"history_days": -1}, "history_days: must be at least 0, got -1."),
        ({"history_days": 10**9}, "history_days: must be at most 7300"),
        (
            {"history_days": 180},
            "history_days: must be longer than the longest of windows_days (180), got 180. Remove it for twice that "
            "length, or set it to 0 for no history",
        ),
        ({"model": {"latent_dim": 64.5}}, "model.latent_dim: must be a whole number"),
        ({"model": None}, "model: must be a section with keys, got null."),
        ({"item_vectors": {"als": "als"}}, "item_vectors.als: must be a section with keys, got 'als'."),
        ({"items": "items.parquet"}, "items: must be a section with keys, got 'items.parquet'."),
        (
            {"events": {**EVENTS, "format": "avro"}},
            "events.format: must be parquet, delta, json, csv or table, got 'avro'.",
        ),
        ({"events": {**EVENTS, "path": ""}}, "events.path: must not be empty, got ''."),
        ({"root": ""}, "root: must not be empty, got ''."),
        ({"training": {"learning_rate": float("inf")}}, "training.learning_rate: must be a finite number"),
        ({"training": {"init_from": "../s001"}}, "training.init_from: not a valid name: use 1 to 64 of a-z"),
        (
            {"training": {"future_days": [8]}},
            "training.future_days: must be among windows_days (7, 30, 180), got 8. Targets",
        ),
        ({"training": {"future_days": []}}, "training.future_days: must not be empty, got []."),
        ({"gates": {"min_rows_share": 1.5}}, "gates.min_rows_share: must be at most 1"),
        (
            {"training": {"as_ofs": {"until": 20240101}}},
            "training.as_ofs.until: must be a date in the form YYYY-MM-DD, got 20240101.",
        ),
        (
            {"training": {"as_ofs": {"until": "1.5.2024"}}},
            "training.as_ofs.until: must be a date in the form YYYY-MM-DD",
        ),
        ({"users": {"path": "u", "columns": {"user_id": "u"}, "attributes": ["a", "a"]}}, "duplicate names: a,"),
        ({"events": {"path": "l", "columns": {**EVENTS["columns"], "context": ["b", "b"]}}}, "duplicate names: b,"),
        (
            {"users": {"path": "u", "columns": {"user_id": "u"}, "attributes": ["a.b", "A_B"]}},
            "users.attributes: duplicate names: a_b,",
        ),
        (
            {"users": {"path": "u", "columns": {"user_id": "u", "registered_at": "at"}, "attributes": ["at"]}},
            "users: attributes: at is already columns.registered_at. Remove it.",
        ),
        ({"evaluation": {"attributes": ["Age", "age"]}}, "evaluation.attributes: duplicate names: age,"),
        ({"evaluation": {"newcomer_events": [3, 3]}}, "evaluation.newcomer_events: numbers must be distinct"),
        ({"evaluation": {"newcomer_events": [-1]}}, "evaluation.newcomer_events.0: must be at least 0, got -1."),
        ({"item_vectors": {}}, "item_vectors: must not be empty."),
        ({"item_vectors": {"own": {"dim": 4}}}, "item_vectors.own.kind: must be one of als, text, vector."),
        ({"item_vectors": {"own": {"kind": "vector"}}}, "item_vectors.own.dim is missing."),
        ({"spark": {"conf": {"spark.ui.enabled": [1]}}}, "spark.conf.spark.ui.enabled: must be text"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_place(sections: dict[str, Any], said: str) -> None:
    assert said in fault_of({**SMALLEST, **sections})


def test_settings_that_are_left_out_have_the_documented_defaults() -> None:
    config = parse_config(SMALLEST, "c")
    assert config.windows_days == [7, 30, 180]
    assert config.snapshots.publish_delay == timedelta(hours=6)
    assert config.model.latent_dim == 120
    assert (config.training.backend, config.training.num_workers) == ("local", 1)
    assert config.refit_days == 28
    assert config.spark.item_vectors_bytes == 2 * 2**30
