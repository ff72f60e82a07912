"""The conformance suite of ``Tables``, which each implementation runs with its own ``tables`` fixture."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from tests.support.builders import in_time_zone
from userrep.errors import UsageError, UserrepError
from userrep.store.data_dictionary import described
from userrep.store.schemas import REGISTRY, TableSchema
from userrep.store.tables import Keys, Tables

D1, D2 = date(2024, 5, 1), date(2024, 5, 2)
LEDGER = TableSchema(
    "ledger", "one row per test", "name STRING, day DATE, num BIGINT, cells MAP<INT,BIGINT>, at TIMESTAMP"
)
SMALL = TableSchema("small", "one row per test", "name STRING")
SHARES = TableSchema("shares", "one row per test", "day DATE, part STRING, user_id STRING", ("day", "part"))
ROWS = [
    {"name": "a", "day": D1, "num": 1, "cells": {3: 4, 1: 2}, "at": datetime(2024, 5, 1, 12, 0, 0, 7)},
    {"name": "b", "day": None, "num": None, "cells": None, "at": None},
]
WRITERS = 3
Write = Callable[[Tables, str, int], bool]


def appended(tables: Tables, name: str, since: int) -> bool:
    row = [(name, None, None, None, None)]
    return tables.append(tables.spark.createDataFrame(row, LEDGER.fields()).coalesce(1), LEDGER, since=since)


def added(tables: Tables, name: str, since: int) -> bool:
    return tables.add(LEDGER, [{"name": name}], since=since)


def share(tables: Tables, day: date, *users: str, part: str = "p") -> Any:
    """Return rows of one partition of ``SHARES``."""
    return tables.spark.createDataFrame([(day, part, user) for user in users], SHARES.fields()).coalesce(1)


def users_of(tables: Tables) -> dict[date, list[str]]:
    rows = tables.ledger(SHARES)
    return {day: sorted(row.user_id for row in rows if row.day == day) for day in sorted({row.day for row in rows})}


class LedgerConformance:
    """Tests of ledgers. A subclass has a fixture ``tables``: a new root without tables, with or without a session."""

    def test_a_ledger_returns_its_rows_with_naive_times_and_maps(self, tables: Tables) -> None:
        tables.add(LEDGER, ROWS)
        assert sorted((row.asDict() for row in tables.ledger(LEDGER)), key=lambda row: row["name"]) == ROWS
        assert [row.asDict() for row in tables.ledger(LEDGER, ("name", "num"), name="a")] == [{"name": "a", "num": 1}]
        assert tables.ledger(LEDGER, name="c") == []
        assert tables.fields(LEDGER) == described(LEDGER)
        assert tables.num_bytes(LEDGER) > 0
        assert tables.stored() == ["ledger"]
        with pytest.raises(UsageError, match="no userrep tables at"):  # another program's table does not count
            tables.check_any()
        tables.create(REGISTRY)
        tables.check_any()

    def test_times_are_utc_in_a_process_of_another_time_zone(self, tables: Tables) -> None:
        with in_time_zone("Europe/Berlin"):
            tables.add(LEDGER, ROWS[:1])
            assert [row.at for row in tables.ledger(LEDGER)] == [ROWS[0]["at"]]
        assert [row.at for row in tables.ledger(LEDGER)] == [ROWS[0]["at"]]

    def test_rows_replace_those_that_match_in_one_commit(self, tables: Tables) -> None:
        tables.add(LEDGER, ROWS)
        before = tables.version(LEDGER)
        tables.add(LEDGER, [{"name": "a", "num": 2}, {"name": "c", "num": 3}], replacing="name IN ('a', 'c')")
        assert tables.version(LEDGER) == before + 1
        assert {row.name: row.num for row in tables.ledger(LEDGER)} == {"a": 2, "b": None, "c": 3}

    def test_rows_are_counted_by_the_values_of_some_columns(self, tables: Tables) -> None:
        row = ROWS[0]
        tables.add(LEDGER, [row, row, row | {"name": "b"}])
        tables.add(LEDGER, [row, row | {"day": None}])
        assert dict(tables.counts(LEDGER, ("name", "day"))) == {("a", D1): 3, ("b", D1): 1, ("a", None): 1}

    def test_a_change_looks_again_where_other_rows_were_added_meanwhile(self, tables: Tables) -> None:
        tables.add(LEDGER, ROWS)

        def overtaken(rows: list[Any]) -> list[dict[str, Any]] | None:
            if len(tables.ledger(LEDGER)) == 2:
                tables.add(LEDGER, [{"name": "c"}])
            return [{"name": "a", "num": 5}] if [row.num for row in rows] == [1] else None

        assert tables.change(LEDGER, overtaken, replacing="name = 'a'", name="a")
        assert not tables.change(LEDGER, overtaken, replacing="name = 'a'", name="a")
        assert {row.name: row.num for row in tables.ledger(LEDGER)} == {"a": 5, "b": None, "c": None}

    def test_no_two_writers_get_the_same_number(self, tables: Tables) -> None:
        tables.create(LEDGER)
        with ThreadPoolExecutor(WRITERS) as pool:
            numbers = list(pool.map(lambda _: tables.reserve(LEDGER, "build", first=5), range(WRITERS)))
        assert sorted(numbers) == [5, 6, 7]
        assert tables.reserve(LEDGER, "build", first=5) == 8
        assert tables.reserve(LEDGER, "another counter") == 1
        assert tables.ledger(LEDGER) == []

    def test_all_rows_are_replaced_only_if_nothing_changed_since(self, tables: Tables) -> None:
        since = tables.version(SMALL)
        assert tables.add(SMALL, [{"name": "a"}, {"name": "b"}], replacing="true", since=since)
        assert not tables.add(SMALL, [{"name": "x"}], replacing="true", since=since)
        since = tables.version(SMALL)
        assert tables.add(SMALL, [{"name": "c"}], replacing="true", since=since)
        assert not tables.add(SMALL, [{"name": "x"}], replacing="true", since=since)
        assert [row.name for row in tables.ledger(SMALL)] == ["c"]

    def test_concurrent_changes_of_all_rows_are_made_one_after_the_other(self, tables: Tables) -> None:
        def add_one(name: str) -> bool:
            return tables.change(SMALL, lambda rows: [*(row.asDict() for row in rows), {"name": name}])

        tables.create(SMALL)
        with ThreadPoolExecutor(WRITERS) as pool:
            assert all(pool.map(add_one, "abc"))
        assert sorted(row.name for row in tables.ledger(SMALL)) == list("abc")

    def test_a_table_with_other_columns_is_refused_and_left_as_it_is(self, tables: Tables) -> None:
        tables.add(LEDGER, ROWS)
        other = TableSchema("ledger", "one row per test", "name STRING, day DATE, extra INT")
        tables._known.clear()
        with pytest.raises(
            UsageError, match="has the columns name, day, num, cells, at; this release expects name, day"
        ):
            tables.add(other, [{"name": "c"}])
        assert len(tables.ledger(LEDGER)) == 2


class Conformance(LedgerConformance):
    """Tests of ``Tables``. A subclass has a fixture ``tables``: a new root without tables, with a session."""

    def test_reading_creates_nothing(self, tables: Tables) -> None:
        assert not tables.exists(LEDGER)
        assert tables.ledger(LEDGER) == []
        assert tables.counts(LEDGER, ("name",)) == {}
        assert tables.partitions(SHARES) == {}
        assert (tables.version(LEDGER), tables.num_bytes(LEDGER)) == (0, 0)
        assert tables.read(LEDGER).schema == LEDGER.fields()
        tables.drop_partitions(SHARES, [{"day": D1}])
        assert tables.compact(LEDGER, at_least=1) == 0
        tables.vacuum(LEDGER, timedelta(0))
        assert tables.stored() == []
        with pytest.raises(UsageError, match=f"^no userrep tables at {tables.location}: check the location"):
            tables.check_any()

    def test_a_table_has_the_meanings_of_its_columns_as_comments(self, tables: Tables) -> None:
        tables.create(REGISTRY)
        assert tables.fields(REGISTRY) == tables.read(REGISTRY).schema == described(REGISTRY)
        comments = {
            row.col_name: row.comment for row in tables.spark.sql(f"DESCRIBE {tables.name(REGISTRY)}").collect()
        }
        assert comments["content_hash"] == "content hash of the space's artifact"

    @pytest.mark.parametrize("write", [appended, added])
    def test_rows_are_added_only_onto_the_version_that_they_were_made_from(self, tables: Tables, write: Write) -> None:
        since = tables.version(LEDGER)
        assert write(tables, "first", since)
        assert not write(tables, "late", since)
        assert write(tables, "second", tables.version(LEDGER))
        assert sorted(row.name for row in tables.ledger(LEDGER)) == ["first", "second"]

    @pytest.mark.parametrize("write", [appended, added])
    def test_of_writers_at_once_exactly_one_wins(self, tables: Tables, write: Write) -> None:
        since = tables.version(LEDGER)
        with ThreadPoolExecutor(WRITERS) as pool:
            won = list(pool.map(lambda k: write(tables, str(k), since), range(WRITERS)))
        assert sum(won) == 1
        assert [row.name for row in tables.ledger(LEDGER)] == [str(won.index(True))]

    @pytest.mark.parametrize("write", [appended, added])
    def test_rows_are_not_added_twice_where_files_were_joined_between_two_reads(
        self, tables: Tables, write: Write
    ) -> None:
        """Both writers have read the same rows, the second one from another version."""
        for name in "ab":
            assert write(tables, name, tables.version(LEDGER))
        earlier = tables.version(LEDGER)
        assert tables.compact(LEDGER, at_least=2) == 2
        later = tables.version(LEDGER)
        assert later > earlier
        assert [write(tables, f"since {since}", since) for since in (earlier, later)].count(True) == 1
        assert len(tables.ledger(LEDGER)) == 3

    def test_partitions_are_not_replaced_after_rows_in_them_were_deleted(self, tables: Tables) -> None:
        tables.append(share(tables, D1, "a", "b"), SHARES)
        since = tables.version(SHARES)
        tables.spark.sql(f"DELETE FROM {tables.name(SHARES)} WHERE user_id = 'a'")
        with pytest.raises(UserrepError, match="another run has changed the same rows meanwhile"):
            tables.replace(share(tables, D1, "a", "b", "c"), SHARES, [{"day": D1}], since=since)
        assert users_of(tables) == {D1: ["b"]}

    @pytest.mark.parametrize("foreign", ["OPTIMIZE {name}", "ALTER TABLE {name} SET TBLPROPERTIES ('note' = 'x')"])
    def test_a_foreign_commit_between_two_reads_hides_no_change(self, tables: Tables, foreign: str) -> None:
        """Both changes are based on the same rows, although each has read another version."""
        for name in "ab":
            tables.add(SMALL, [{"name": name}])
        earlier = tables.version(SMALL)
        tables.spark.sql(foreign.format(name=tables.name(SMALL)))
        later = tables.version(SMALL)
        assert later > earlier
        done = [
            tables.add(SMALL, [{"name": "a"}, {"name": "b"}, {"name": f"since {since}"}], replacing="true", since=since)
            for since in (earlier, later)
        ]
        assert sum(done) == 1
        assert sorted(row.name for row in tables.ledger(SMALL)) == ["a", "b", f"since {(earlier, later)[done[1]]}"]

    def test_a_change_is_not_made_onto_rows_that_were_added_without_a_version(self, tables: Tables) -> None:
        since = tables.version(SMALL)
        tables.add(SMALL, [{"name": "a"}])
        assert not tables.add(SMALL, [{"name": "b"}], replacing="true", since=since)
        assert [row.name for row in tables.ledger(SMALL)] == ["a"]

    def test_partitions_are_described_replaced_and_dropped(self, tables: Tables) -> None:
        for day, part in ((D1, "p"), (D1, "q"), (D2, "p")):
            tables.append(share(tables, day, "a", "b", part=part), SHARES)
        tables.append(share(tables, D2, "c"), SHARES)
        found = tables.partitions(SHARES)
        assert {key: (held.num_files, held.num_rows) for key, held in found.items()} == {
            (D1, "p"): (1, 2), (D1, "q"): (1, 2), (D2, "p"): (2, 3),
        }  # fmt: skip
        now = datetime.now().astimezone().timestamp()
        ages = [now - (held.written_at - datetime(1970, 1, 1)).total_seconds() for held in found.values()]
        assert all(abs(age) < 600 for age in ages)
        before = tables.version(SHARES)
        tables.replace(share(tables, D2, "d"), SHARES, [{"day": D2}])
        tables.drop_partitions(SHARES, [{"day": D1, "part": "p"}, {"part": "none", "day": D1}])
        assert users_of(tables) == {D1: ["a", "b"], D2: ["d"]}
        assert tables.version(SHARES) == before + 2
        tables.drop_partitions(SHARES, [])
        assert tables.version(SHARES) == before + 2

    def test_rows_are_not_replaced_that_others_have_changed_since(self, tables: Tables) -> None:
        tables.append(share(tables, D1, "a"), SHARES)
        since = tables.version(SHARES)
        tables.replace(share(tables, D1, "b"), SHARES, [{"day": D1}], since=since)
        with pytest.raises(UserrepError, match="another run has changed the same rows meanwhile"):
            tables.replace(share(tables, D1, "c"), SHARES, [{"day": D1}], since=since)
        assert users_of(tables) == {D1: ["b"]}

    def test_all_rows_of_a_new_table_are_replaced(self, tables: Tables) -> None:
        tables.create(SHARES)
        tables.replace(share(tables, D1, "a"), SHARES, [{}], since=tables.version(SHARES))
        tables.replace(share(tables, D2, "b"), SHARES, [{}], since=tables.version(SHARES))
        assert users_of(tables) == {D2: ["b"]}

    def test_changes_of_other_partitions_do_not_prevent_a_replacement_and_earlier_changes_of_the_same_do(
        self, tables: Tables
    ) -> None:
        since = tables.version(SHARES)
        tables.append(share(tables, D2, "b"), SHARES)
        tables.replace(share(tables, D1, "a"), SHARES, [{"day": D1}], since=since)
        tables.replace(share(tables, D2, "c"), SHARES, [{"day": D2}], since=tables.version(SHARES))
        with pytest.raises(UserrepError, match="another run has changed the same rows meanwhile"):
            tables.replace(share(tables, D1, "late"), SHARES, [{"day": D1}], since=since)
        assert users_of(tables) == {D1: ["a"], D2: ["c"]}

    def test_of_replacements_of_a_partition_at_once_exactly_one_wins(self, tables: Tables) -> None:
        since = tables.version(SHARES)
        tables.create(SHARES)

        def is_replaced(user: str) -> bool:
            try:
                tables.replace(share(tables, D1, user), SHARES, [{"day": D1}], since=since)
            except UserrepError:
                return False
            return True

        with ThreadPoolExecutor(WRITERS) as pool:
            won = list(pool.map(is_replaced, "abc"))
        assert users_of(tables) == {D1: ["abc"[won.index(True)]]}
        assert sum(won) == 1

    def test_a_transaction_is_committed_once(self, tables: Tables) -> None:
        for number, user in ((5, "a"), (5, "again"), (4, "late"), (6, "b")):
            assert tables.append(share(tables, D1, user), SHARES, transaction=("writer", number))
        assert tables.append(share(tables, D1, "c"), SHARES, transaction=("other", 1))
        assert users_of(tables) == {D1: ["a", "b", "c"]}

    def test_files_are_joined_and_old_ones_deleted(self, tables: Tables) -> None:
        for name in "abc":
            tables.add(LEDGER, [{"name": name}])
            tables.append(share(tables, D1, name), SHARES)
        assert tables.compact(LEDGER, at_least=4) == 0
        assert tables.compact(LEDGER, at_least=3) == 3
        assert tables.compact(LEDGER, at_least=3) == 0
        assert tables.compact_partitions(SHARES, [{"day": D1}])
        assert [held.num_files for held in tables.partitions(SHARES).values()] == [1]
        before = tables.version(LEDGER)
        tables.vacuum(LEDGER, timedelta(0))
        assert sorted(row.name for row in tables.ledger(LEDGER)) == ["a", "b", "c"]
        assert tables.version(LEDGER) >= before

    def test_some_partitions_can_be_read_with_all_columns_in_their_order(self, tables: Tables) -> None:
        for day, part in ((D1, "p"), (D1, "q"), (D2, "p")):
            tables.append(share(tables, day, f"{day} {part}", part=part), SHARES)
        assert [tuple(row) for row in tables.read(SHARES, [{"day": D2}]).collect()] == [(D2, "p", f"{D2} p")]
        keys: Keys = [{"day": D1, "part": "q"}, {"day": D2, "part": "q"}]
        assert [row.user_id for row in tables.read(SHARES, keys).collect()] == [f"{D1} q"]
        assert tables.read(SHARES, [{}]).count() == 3
        nothing = tables.read(SHARES, [])
        assert (nothing.count(), nothing.schema) == (0, tables.read(SHARES).schema)

    def test_earlier_versions_can_be_read(self, tables: Tables) -> None:
        tables.add(LEDGER, ROWS)
        before = tables.version(LEDGER)
        tables.add(LEDGER, [{"name": "a", "num": 2}], replacing="name IN ('a', 'b')")
        assert tables.read(LEDGER, version=before).count() == 2
        assert tables.read(LEDGER).count() == 1
