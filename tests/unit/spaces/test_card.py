"""The model card of a space: it states what manifest and ledgers record, and what is not recorded."""

import json
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.embedding_tables import add_spaces, snapshot
from tests.unit.inference.test_model import LINEAR, layout_of, saved
from userrep.model.artifact import SpaceManifest
from userrep.model.self_check import Interval, SelfCheck
from userrep.spaces.card import model_card
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import record_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.schemas import ITEM_VECTOR_VERSIONS, JOB_RUNS, TILE_DAYS

pytestmark = pytest.mark.fast

NOW = datetime(2024, 4, 2)
SECTIONS = [
    "Data", "Inputs", "Item vectors", "Training", "Self-check", "Named dimensions", "Limits", "How to use it",
]  # fmt: skip


@pytest.fixture
def tables(tmp_path: Path) -> FileTables:
    """Return tables with one space, trained until 1 April."""
    tables = FileTables(None, str(tmp_path / "root"))
    add_spaces(tables, "s1", content_hash="c0ffee")
    return tables


@pytest.fixture
def manifest(tmp_path: Path) -> SpaceManifest:
    losses = {"valid_loss": 0.75, "valid_loss.behaviour_7d": 0.5}
    metrics = {"epochs": 8.0, "seconds": 21.5, "rows_per_second": 38650.4} | losses
    return saved(tmp_path / "artifact", model=LINEAR).model_copy(update={"metrics": metrics})


def card(tables: FileTables, manifest: SpaceManifest, *protected: str) -> dict[str, str]:
    """Return the sections of the card by title."""
    text = model_card(tables, find_space(tables, "s1"), manifest, protected=protected)
    first, *rest = text.split("\n\n## ")
    return {"": first} | dict(section.split("\n\n", 1) for section in rest)


def a_day(day: date, revision: int, num_events: int) -> dict[str, Any]:
    counts = {"num_events": num_events, "num_tiles": 1, "num_rejected": 0, "num_tiles_by_cell": None}
    return {"event_date": day, "revision": revision, "fingerprint": "f", "content": "c", "built_at": NOW} | counts


def a_training(space_id: str, num_rows: int) -> dict[str, Any]:
    texts = {"reason": "", "inputs": "{}", "config_hash": "", "code_hash": ""}
    return {"run_id": "r", "stage": "train_autoencoder", "outcome": "done", "started_at": NOW, "seconds": 1.0,
            "num_rows": num_rows, "outputs": json.dumps({"space_id": space_id})} | texts  # fmt: skip


def test_a_card_of_a_space_without_records_names_what_is_not_recorded(
    tables: FileTables, manifest: SpaceManifest
) -> None:
    found = card(tables, manifest)
    assert list(found)[1:] == SECTIONS
    assert found[""].startswith("# Space s1\n\nA vector of 16 numbers per user and date")
    assert "| content hash | c0ffee |" in found[""]
    assert "- Log before 2024-04-01: not recorded." in found["Data"]
    assert "as-of date: not recorded." in found["Data"]
    assert "- Published snapshots: 0." in found["Data"]
    assert found["Item vectors"] == "No version is recorded."
    assert found["Self-check"] == "Not recorded: it was switched off, or the log was too short."


def test_the_data_of_a_card_end_where_the_training_ended(tables: FileTables, manifest: SpaceManifest) -> None:
    days = [a_day(date(2024, 3, 30), 1, 10), a_day(date(2024, 3, 30), 2, 1200), a_day(date(2024, 3, 31), 1, 5)]
    tables.add(TILE_DAYS, [*days, a_day(date(2024, 4, 1), 1, 999)])
    tables.add(JOB_RUNS, [a_training("s1", 4321), a_training("s2", 1)])
    record_snapshots(tables, [replace(snapshot(date(2024, 4, 9), space="s1"), num_users=2947)])
    data = card(tables, manifest)["Data"]
    assert "- Log before 2024-04-01: 2024-03-30 to 2024-03-31, 1,205 events on 2 days." in data
    assert "as-of date: 4,321. At most 13 dates, 7 days apart; 5% of the users were held out" in data
    assert "- Published snapshots: 1, the newest 2024-04-09 with 2,947 users." in data


def test_item_vectors_of_a_card_are_the_versions_that_the_training_could_use(
    tables: FileTables, manifest: SpaceManifest
) -> None:
    records = [
        {"lineage_id": lineage, "valid_from": date(2024, month, 1), "num_items": 600, "largest": 1.0, "built_at": NOW,
         "num_vectors": {"behaviour": 500 + month}}
        for lineage, month in (("l1", 2), ("l1", 3), ("l1", 5), ("l2", 1))
    ]  # fmt: skip
    tables.add(ITEM_VECTOR_VERSIONS, records)
    assert "| behaviour | 3 | 2: 2024-02-01 to 2024-03-01 | 503 |" in card(tables, manifest)["Item vectors"]


def test_a_card_names_attributes_and_which_protected_ones_are_inputs(
    tables: FileTables, manifest: SpaceManifest
) -> None:
    found = card(tables, manifest, "Country", "age")
    assert "- Attributes of users: `country`." in found["Inputs"]
    assert "(`users.protected` of the current configuration): `Country`, `age`." in found["Inputs"]
    assert "from vectors: `country`; protected ones among them: `Country`." in found["Limits"]
    assert "from vectors: `country`; protected ones among them: none." in card(tables, manifest)["Limits"]


def test_a_card_has_the_figures_of_the_training_and_the_dimensions_with_a_meaning(
    tables: FileTables, manifest: SpaceManifest
) -> None:
    found = card(tables, manifest)
    assert "| seconds | 21.5 |\n| rows_per_second | 38,650 |\n| valid_loss | 0.75 |" in found["Training"]
    assert "valid_loss.behaviour_7d" not in found["Training"]
    named = manifest.named_dimensions
    assert named
    assert all(f"| {index} | `{name}` |" in found["Named dimensions"] for name, index in named.items())
    assert "tastes" not in found["Named dimensions"]
    tasting = manifest.model_copy(update={"layout": layout_of(taste_modality="behaviour")})
    listed = card(tables, tasting)["Named dimensions"]
    assert "Dimensions 11 to 13 are tastes: what the user's items are like, by `behaviour`." in listed
    without = manifest.model_copy(update={"targets": manifest.targets.model_copy(update={"futures": [], "blocks": []})})
    assert card(tables, without)["Named dimensions"] == "None."


def test_a_card_shows_the_self_check_with_what_it_could_not_judge(tables: FileTables, manifest: SpaceManifest) -> None:
    check = SelfCheck(
        trained_until=date(2024, 3, 1), test_as_ofs=[date(2024, 3, 8)], num_training_dates=4, num_test_users=1500,
        values={"return_7d": {"embedding": 0.8, "raw": 0.75}}, ahead={"raw": {"mean": Interval(0.05, 0.01, 0.09)}},
        not_judged=["next_item_7d"], left_out={"categories": "no items table"},
    )  # fmt: skip
    found = card(tables, manifest.model_copy(update={"self_check": check}))["Self-check"]
    assert "for 1,500 users: the embedding is 5.0% ahead of raw [+1.0%, +9.0%]." in found
    assert "| task | embedding | raw |\n| --- | --- | --- |\n| return_7d | 0.8000 | 0.7500 |" in found
    assert "\n?: not judged, with fewer than 200 test examples, or 200 of a class\n" in found
    assert found.endswith("\nleft out: categories: no items table")


def test_a_card_shows_how_to_open_the_space(tables: FileTables, manifest: SpaceManifest) -> None:
    example = card(tables, manifest)["How to use it"].removeprefix("```python\n").removesuffix("```")
    compile(example, "card", "exec")
    assert f"userrep.open({tables.location!r})" in example
    assert "space='s1'" in example
