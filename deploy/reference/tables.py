"""The reference page on tables: grain, key, columns and writers, from userrep/store/schemas.py."""

import re

from deploy.reference.markdown import MADE, linked, table
from userrep.features.spec import FeatureSpec
from userrep.store import schemas
from userrep.store.data_dictionary import FEATURES, IN_TABLE, KEYS_AND_WRITERS, MEANINGS
from userrep.store.schemas import TableSchema

_BEGIN = """
Delta tables below `root/tables`, or in `catalog.schema`. Times are UTC. Ledgers are small and say which rows of the
large tables count; so read those by way of userrep (`read_features`, `join_embeddings`, `userrep export`). Rows are
written by the jobs named; `pipeline` runs those of the batch, `forget` takes rows out of all tables, and
`maintain_tables` removes files that nothing needs.
"""
_FEATURES_SPEC = FeatureSpec(
    windows_days=[7, 30, 180], history_days=360, modalities={"behaviour": 80}, onboarding=True, registered_at=True,
    attributes=["country"], context=["device"],
)  # fmt: skip


def tables_page() -> list[str]:
    """Return the lines of the page: a section for each table."""
    lines = ["# Tables", "", MADE, *_BEGIN.rstrip().splitlines()]
    for schema in schemas.ALL:
        keys, writers = KEYS_AND_WRITERS[schema.name]
        lines += _section(schema, keys, writers, schema.name)
    features = schemas.user_features("LINEAGE", _FEATURES_SPEC.ddl())
    lines += _section(features, ("as_of", "user_id"), "`build_user_features`, `daily`", features.name)
    lines += [
        "",
        "These are the columns for windows of 7, 30 and 180 days with a history of 360 days, one modality of item",
    ]
    lines += [
        "vectors, onboarding picks, registrations, an attribute `country` and a context column. `read_features` and"
    ]
    lines += ["exports have one list of floats per pooled block instead of `pooled`."]
    return lines


def column_meaning(table_name: str, column: str) -> str:
    """Return the meaning of a column. Raises ValueError if it is not in the data dictionary."""
    if (table_name, column) in IN_TABLE:
        return IN_TABLE[table_name, column]
    if table_name.startswith(schemas.USER_FEATURES):
        meanings = [text for pattern, text in FEATURES.items() if re.fullmatch(pattern, column)]
        if meanings:
            return meanings[0]
    if column not in MEANINGS:
        raise ValueError(f"{table_name}.{column}: say in userrep/store/data_dictionary.py what it means.")
    return MEANINGS[column]


def _section(schema: TableSchema, keys: tuple[str, ...], writers: str, heading: str) -> list[str]:
    grain = " ".join(schema.grain.split())
    facts = [f"Key: {', '.join(f'`{key}`' for key in keys)}." if keys else "Key: none."]
    if schema.partition_by:
        facts.append(f"Partitioned by {', '.join(f'`{name}`' for name in schema.partition_by)}.")
    names = schema.fields().names
    if "user_bucket" in names:
        facts.append("Files are sorted by `user_bucket`.")
    facts.append(f"Written by {linked(writers)}.")
    rows = [
        [f"`{field.name}`", field.dataType.simpleString(), column_meaning(schema.name, field.name)]
        for field in schema.fields()
    ]
    head = ["column", "type", "meaning"]
    return ["", f"## {heading}", "", f"{grain[0].upper()}{grain[1:]}.", "", " ".join(facts), "", *table(head, rows)]
