"""The data dictionary and the tables: each has what the other has."""

import re
from pathlib import Path

import pytest

from deploy.reference.tables import KEYS_AND_WRITERS
from userrep.cli import main as cli
from userrep.features.spec import FeatureSpec
from userrep.store import schemas
from userrep.store.data_dictionary import FEATURES, IN_TABLE, MEANINGS, described
from userrep.store.file_tables import FileTables

pytestmark = pytest.mark.fast

COLUMNS = {(table.name, column) for table in schemas.ALL for column in table.fields().names}
SPEC = FeatureSpec(
    windows_days=[2, 30],
    history_days=60,
    modalities={"behaviour": 4, "own": 2},
    onboarding=True,
    registered_at=True,
    attributes=["country"],
    context=["device"],
)


def test_every_column_of_every_table_is_described_and_nothing_else_is() -> None:
    general = COLUMNS - IN_TABLE.keys()
    assert {column for _, column in general} == MEANINGS.keys()
    assert IN_TABLE.keys() <= COLUMNS


def test_every_table_has_a_key_of_its_own_columns() -> None:
    assert KEYS_AND_WRITERS.keys() == {table.name for table in schemas.ALL}
    keys = {(table, column) for table, (columns, _) in KEYS_AND_WRITERS.items() for column in columns}
    assert keys <= COLUMNS
    assert [table for table, (columns, _) in KEYS_AND_WRITERS.items() if len(set(columns)) != len(columns)] == []


def test_writers_of_tables_are_jobs_and_commands_that_exist() -> None:
    root = Path(__file__).parents[3]
    commands = {command.callback.__name__ for command in cli.app.registered_commands if command.callback is not None}
    commands |= {path.stem for path in (root / "userrep/cli").glob("*.py")}
    jobs = {path.stem for path in (root / "jobs").glob("*.py")}
    named = {name for _, writers in KEYS_AND_WRITERS.values() for name in re.findall(r"`(\w+)`", writers)}
    assert named - jobs - commands == {"create_training_set"}


def test_every_feature_is_described_by_one_pattern_and_every_pattern_describes_one() -> None:
    names = schemas.user_features("l1", SPEC.ddl()).fields().names[2:]
    found = {name: [pattern for pattern in FEATURES if re.fullmatch(pattern, name)] for name in names}
    assert {name: patterns for name, patterns in found.items() if len(patterns) != 1} == {}
    assert {pattern for patterns in found.values() for pattern in patterns} == FEATURES.keys()


def test_tables_store_the_meanings_of_their_columns_as_comments(tmp_path: Path) -> None:
    features = schemas.user_features("l1", SPEC.ddl())
    for table in (schemas.SNAPSHOTS, schemas.USER_EMBEDDINGS, features):
        assert all(field.metadata["comment"] for field in described(table))
        tables = FileTables(None, str(tmp_path))
        tables.create(table)
        assert tables.fields(table) == described(table)
    by_name = {field.name: field.metadata["comment"] for field in tables.fields(schemas.SNAPSHOTS)}
    assert by_name["state"] == "`staged`, `published`, `refused` or `expired`"
    assert by_name["as_of"] == "as-of date; only events before its 00:00 UTC are included"


def test_comments_survive_writes_and_stay_out_of_files(tmp_path: Path) -> None:
    tables, table = FileTables(None, str(tmp_path)), schemas.TOMBSTONES
    tables.add(table, [{"key_id": "a"}])
    tables.add(table, [{"key_id": "a"}], replacing="key_id = 'a'")
    assert tables.change(table, lambda rows: [row.asDict() for row in rows])
    assert tables.fields(table) == described(table)
    assert all(not field.metadata for field in tables.target(table).schema)
