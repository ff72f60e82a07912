"""Settings of users and of their first picks."""

from typing import Any

import pytest

from tests.support.configurations import SMALLEST, USERS, faults_of, parsed
from userrep.features.profiles import mapped_columns
from userrep.items.versions import lineage_of

pytestmark = pytest.mark.fast


def test_attributes_keep_their_order_and_get_names_that_columns_can_carry() -> None:
    users = parsed(users={**USERS, "attributes": ["Home.Country", "Größe", "a b", "x_1"]}).users
    assert users is not None
    assert users.attribute_names == ["home_country", "gr__e", "a_b", "x_1"]
    assert users.attributes == ["Home.Country", "Größe", "a b", "x_1"]


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        (["b", "a", "b", "a"], "users.attributes: duplicate names: a, b, got"),
        (["Größe", "Gr__e"], "users.attributes: duplicate names: gr__e, got"),
        (["a.b", "a b", "ok"], "users.attributes: duplicate names: a_b, got"),
    ],
)
def test_attributes_with_one_name_are_refused(attributes: list[str], said: str) -> None:
    (fault,) = faults_of({**SMALLEST, "users": {**USERS, "attributes": attributes}})
    assert fault.startswith(said)


def test_protected_attributes_may_be_inputs_or_not_and_change_no_lineage() -> None:
    plain, protected = (
        {**USERS, "attributes": ["country"], **more} for more in ({}, {"protected": ["country", "age"]})
    )
    found = parsed(users=protected)
    assert found.users is not None
    assert found.users.protected == ["country", "age"]
    assert lineage_of(found) == lineage_of(parsed(users=plain))
    (columns,) = [columns for section, _, columns in mapped_columns(found) if section == "users"]
    assert {"columns.user_id", "attributes[0]", "protected[0]", "protected[1]"} == set(columns)


@pytest.mark.parametrize(
    ("section", "columns", "missing"),
    [
        ("users", {"registered_at": "since"}, ["users.columns.user_id"]),
        ("onboarding", {"user_id": "u"}, ["onboarding.columns.item_id", "onboarding.columns.event_at"]),
    ],
)
def test_a_table_without_a_column_that_rows_need_is_refused(
    section: str, columns: dict[str, Any], missing: list[str]
) -> None:
    faults = faults_of({**SMALLEST, section: {"path": "p", "columns": columns}})
    assert faults == [f"{key} is missing." for key in missing]
