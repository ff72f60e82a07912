"""Upkeep of a catalog: an older date, users that are forgotten, maintenance, the report; a stream is refused."""

from datetime import timedelta

import pytest

from tests.support.builders import AS_OF
from tests.system.catalog.conftest import Catalog

pytestmark = pytest.mark.full

EARLIER = AS_OF - timedelta(days=3)


def test_an_older_date_is_filled_in(catalog: Catalog) -> None:
    catalog.run("backfill", "--from", EARLIER, "--to", EARLIER, "--every", 1)
    assert catalog.exported("embeddings", EARLIER)


def test_users_are_forgotten_and_tables_maintained(catalog: Catalog) -> None:
    ids = catalog.folder / "ids.txt"
    ids.write_text("u0000002\n")
    receipt = catalog.result("forget", "--users", ids, "--now")
    assert receipt["rows"]["user_embeddings"] > 0
    catalog.run("run", "maintain_tables")
    catalog.run("report", "--out", catalog.folder / "report.html")
    assert (catalog.folder / "report.html").exists()


def test_a_stream_is_refused_before_it_begins(catalog: Catalog) -> None:
    assert "Set root:" in catalog.run("stream", "--until-empty", code=2)
