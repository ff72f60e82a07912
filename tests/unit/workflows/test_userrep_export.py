"""Exports of what is not built."""

from datetime import date
from pathlib import Path

import pytest

from tests.support.builders import config_of
from userrep.errors import UsageError
from userrep.store.file_tables import FileTables
from userrep.store.schemas import EXPORTS
from userrep.store.tables import Tables
from userrep.workflows.export import export_features, export_item_vectors

pytestmark = pytest.mark.fast

D1 = date(2024, 5, 1)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return FileTables(None, str(tmp_path / "root"))


def test_features_and_vectors_that_are_not_built_are_refused_with_the_command_that_builds_them(
    tables: Tables, tmp_path: Path
) -> None:
    config, out = config_of(tmp_path), tmp_path / "out"
    with pytest.raises(
        UsageError, match=r"no features for 2024-05-01\. Run `userrep pipeline --as-of 2024-05-01` to build them"
    ):
        export_features(tables, config, D1, str(out))
    with pytest.raises(
        UsageError, match=r"no item vectors for 2024-05-01\. Run `userrep pipeline --as-of 2024-05-01` to build them"
    ):
        export_item_vectors(tables, config, D1, str(out))
    assert not out.exists()
    assert tables.ledger(EXPORTS) == []
