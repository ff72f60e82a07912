"""The configuration as a whole: sections that must fit together, and defaults that depend on other sections."""

from typing import Any

import pytest

from tests.support.configurations import CATALOG, EVENTS, ITEMS, SMALLEST, USERS, fault_of, faults_of, parsed
from userrep.config import AlsVectors, Stream, TextVectors, parse_config

pytestmark = pytest.mark.fast

ARRIVING = {"path": "arriving"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"events": EVENTS},
            "set either root: PATH, or catalog: NAME with schema: NAME, as the location of tables.",
        ),
        ({**SMALLEST, "catalog": "main", "schema": "s"}, "set either root: PATH, or catalog: NAME"),
        ({"events": EVENTS, "catalog": "main"}, "catalog and schema must be set together."),
        (
            {"events": EVENTS, "catalog": "a", "schema": "b"},
            "artifacts must be set with catalog, which stores only tables. Name a folder",
        ),
        (
            {**SMALLEST, "artifacts": "/models"},
            "artifacts applies only with catalog; with root, they are below it. Remove artifacts.",
        ),
        ({**CATALOG, "schema": "a`; DROP"}, "schema: not a valid name: use 1 to 64 of a-z"),
        ({**CATALOG, "catalog": "../etc"}, "catalog: not a valid name"),
        (
            {**SMALLEST, "evaluation": {"attributes": ["age"]}},
            "evaluation.attributes: there is no users table to read them from. Set users, or remove them.",
        ),
        (
            {
                **SMALLEST,
                "users": {**USERS, "attributes": ["Home.Country"]},
                "evaluation": {"attributes": ["home.country"]},
            },
            "evaluation.attributes: home.country is a model input (users.attributes), which no task should predict.",
        ),
        (
            {**SMALLEST, "item_vectors": {"content": {"kind": "text"}}},
            "item_vectors.content: kind text needs items.columns.text.",
        ),
        (
            {**SMALLEST, "items": ITEMS, "item_vectors": {"own": {"kind": "vector", "dim": 4}}},
            "item_vectors.own: kind vector needs items.columns.vector.",
        ),
        (
            {**SMALLEST, "stream": {"onboarding": ARRIVING}},
            "stream.onboarding: there is no section onboarding, which defines the columns. Add it.",
        ),
        (
            {**SMALLEST, "stream": {"users": ARRIVING}},
            "stream.users: there is no section users, which defines the columns. Add it.",
        ),
        (
            {"root": "r", "events": {"sources": [EVENTS]}, "stream": {}},
            "stream: a log of several sources cannot be streamed yet. Remove this section.",
        ),
        (
            {**CATALOG, "stream": {}},
            "stream: not supported with a catalog: it looks users up in files below root. Set root.",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(values: dict[str, Any], said: str) -> None:
    assert said in fault_of(values)


def test_parts_that_do_not_fit_are_refused_together() -> None:
    vectors = {"content": {"kind": "text"}, "own": {"kind": "vector", "dim": 4}}
    assert len(faults_of({"events": EVENTS, "item_vectors": vectors})) == 3


def test_a_catalog_with_a_schema_takes_the_place_of_a_root() -> None:
    config = parse_config(CATALOG, "c.yaml")
    assert (config.root, config.catalog, config.schema_) == (None, "main", "userrep")


def test_sections_that_fit_are_accepted() -> None:
    config = parsed(
        items={"path": "items", "columns": {"item_id": "item", "vector": "v"}},
        item_vectors={"own": {"kind": "vector", "dim": 4}},
        users={**USERS, "attributes": ["country"]},
        evaluation={"attributes": ["age"]},
        stream={"users": ARRIVING, "query_id": "live"},
    )
    assert config.refit_days == 28
    assert config.streaming.query_id == "live"
    assert parsed().streaming == Stream()


def test_without_item_vectors_behaviour_is_learned_and_content_where_there_is_text() -> None:
    assert parse_config(SMALLEST, "c").item_vectors == {"behaviour": AlsVectors(kind="als")}
    with_text = parse_config({**SMALLEST, "items": ITEMS}, "c")
    assert with_text.item_vectors == {"behaviour": AlsVectors(kind="als"), "content": TextVectors(kind="text")}
    without_text = parse_config({**SMALLEST, "items": {"path": "i", "columns": {"item_id": "i"}}}, "c")
    assert set(without_text.item_vectors) == {"behaviour"}


def test_futures_are_the_windows_of_a_month_at_most_else_the_shortest_and_none_without_prediction_heads() -> None:
    def future_days(**sections: Any) -> list[int]:
        return parse_config({**SMALLEST, **sections}, "c").future_days

    assert future_days() == [7, 30]
    assert future_days(windows_days=[31, 90]) == [31]
    assert future_days(windows_days=[60, 90]) == [60]
    assert future_days(training={"future_days": [180, 7]}) == [7, 180]
    assert future_days(model={"next_items_weight": 0}) == [7, 30]
    assert future_days(model={"next_items_weight": 0, "next_days_weight": 0}) == []
    assert future_days(model={"preset": "autoencoder"}) == []


def test_windows_are_put_in_order() -> None:
    assert parse_config({**SMALLEST, "windows_days": [30, 7]}, "c").windows_days == [7, 30]


def test_the_history_is_twice_the_longest_window_unless_it_is_set_and_none_with_0() -> None:
    def history(**sections: Any) -> int | None:
        return parse_config({**SMALLEST, **sections}, "c").history_window

    assert history() == history(history_days=None) == 360
    assert history(windows_days=[90, 7]) == 180
    assert history(windows_days=[3650]) == 7300
    assert history(history_days=181) == 181
    assert history(history_days=0) is None


def test_the_shortest_refit_of_all_modalities_counts() -> None:
    vectors = {"a": {"kind": "als", "refit_days": 14}, "b": {"kind": "als", "refit_days": 7}}
    assert parse_config({**SMALLEST, "item_vectors": vectors}, "c").refit_days == 7


def test_a_preset_s_model_is_trained_as_suits_it_where_nothing_else_is_set() -> None:
    def settings(**sections: Any) -> tuple[int, float, float]:
        training = parsed(**sections).training
        return training.max_epochs, training.learning_rate, training.weight_decay

    of_next_days = settings()
    assert of_next_days == (8, 3e-3, 0.1)
    assert settings(model={"preset": "next_days"}) == of_next_days
    assert settings(model={"preset": "autoencoder"}) == (16, 1e-3, 0.01)
    assert settings(model={"preset": "autoencoder"}, training={"max_epochs": 3}) == (3, 1e-3, 0.01)


def test_a_gate_on_the_gain_needs_the_self_check() -> None:
    values = {**SMALLEST, "quality": {"self_check": False, "min_gain": 0.01}}
    assert "min_gain needs the self-check" in fault_of(values)
    assert parsed(quality={"min_gain": 0.01}).quality.self_check
