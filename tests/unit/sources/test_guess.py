"""Guesses of columns by names, types and values."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from userrep.sources.guess import guess_events, guess_items, guess_users

pytestmark = pytest.mark.fast

TIMES = [datetime(2024, 5, 1) + timedelta(hours=k) for k in range(4)]


def columns_of(**columns: list[Any]) -> dict[str, str | None]:
    return {key: guess.column for key, guess in guess_events(pa.table(columns)).items()}


@pytest.mark.parametrize(
    ("user", "item", "time"),
    [
        ("user_id", "item_id", "timestamp"),
        ("CustomerID", "StockCode", "InvoiceDate"),
        ("household_key", "PRODUCT_ID", "TRANS_TIME"),
        ("visitorid", "itemid", "ts"),
        ("customer.id", "sku", "bought_at"),
        ("retail_member_no", "track-id", "played_at"),
        ("reviewerID", "asin", "reviewTime"),
        ("anonymous_id", "post_id", "received"),
        ("author", "PostId", "CreationDate"),
        ("customer_unique_id", "product_id", "ordered_at"),
    ],
)
def test_common_names_are_known(user: str, item: str, time: str) -> None:
    columns = columns_of(**{time: TIMES, "user_agent": list("abca"), item: list("abcd"), user: [1, 2, 1, 2]})
    assert (columns["user_id"], columns["item_id"], columns["event_at"]) == (user, item, time)


def test_other_candidates_are_listed_best_first() -> None:
    rows = pa.table(
        {"title": list("abcd"), "product_id": [1, 2, 3, 4], "account": list("abab"), "user_id": list("abab")}
    )
    guesses = guess_events(rows)
    assert guesses["user_id"][:2] == ("user_id", ("account",))
    assert guesses["item_id"][:2] == ("product_id", ("title",))


def test_a_time_may_be_text_and_a_registration_or_a_date_ranks_below_it() -> None:
    texts = [time.isoformat() for time in TIMES]
    rows = pa.table({"registered_at": TIMES, "dt": [time.date() for time in TIMES], "seen": texts})
    assert guess_events(rows)["event_at"][:2] == ("seen", ("dt", "registered_at"))


def test_years_are_no_times_of_events() -> None:
    assert columns_of(user=[1, 2], year=["1995", "1996"])["event_at"] is None


def test_epoch_numbers_are_no_time_and_the_hint_explains_it() -> None:
    guess = guess_events(pa.table({"user": [1], "ts": [1714521600]}))["event_at"]
    assert guess.column is None
    assert guess.hint == "ts is not a time that Spark reads, such as 2024-05-01T12:00:00Z; convert it"


def test_a_date_about_the_item_does_not_replace_an_epoch_time() -> None:
    rows = pa.table({"user": [1], "timestamp": [1714521600], "release_date": ["2024-05-01"]})
    guess = guess_events(rows)["event_at"]
    assert guess[:2] == (None, ("release_date",))
    assert guess.hint.startswith("timestamp is not a time")
    assert columns_of(expires_at=[1], release_date=TIMES[:1])["event_at"] == "release_date"


@pytest.mark.parametrize("day", ["2024-05-01", date(2024, 5, 1)])
@pytest.mark.parametrize("played_at", [1714521600123, "1714521600123", 1714521600.5, Decimal("1714521600.5")])
def test_the_day_of_an_epoch_time_does_not_replace_it(day: str | date, played_at: float | str) -> None:
    rows = pa.table({"user": [1, 2], "day": [1, 31], "PlayedAt": [None, played_at], "dt": [day, None]})
    guess = guess_events(rows)["event_at"]
    assert guess[:2] == (None, ("dt",))
    assert guess.hint.startswith("PlayedAt is not a time")


@pytest.mark.parametrize("numbers", [[1, 31], [20240501, 20240531], [202405011200, 202405311200], ["x", "y"]])
def test_other_numbers_of_days_are_no_epoch_times(numbers: list[Any]) -> None:
    assert columns_of(user=[1, 2], day=numbers, date=["2024-05-01", "2024-05-31"])["event_at"] == "date"


def test_columns_that_are_no_ids_are_not_guessed() -> None:
    columns = columns_of(
        user_age=[1, 2, 3, 4],
        customer_zip_code=list("1234"),
        user_session_id=list("1234"),
        item_score=[0.5, 1, 2, 3],
        item=[0.5, 1, 2, 3],
        user=[TIMES] * 4,
    )
    assert (columns["user_id"], columns["item_id"]) == (None, None)


def test_whole_numbers_in_a_column_of_fractions_are_ids() -> None:
    assert columns_of(user=[1.0, None, 2.0, 3.0])["user_id"] == "user"
    assert columns_of(user=[Decimal(1), None, Decimal("2.00")])["user_id"] == "user"
    assert columns_of(user=[Decimal(1), Decimal("2.5")])["user_id"] is None


@pytest.mark.parametrize(
    ("key", "name", "fits", "does_not"),
    [
        ("event_id", "event_id", list("abcd"), list("abca")),
        ("event_type", "action", ["view", "buy"] * 2, ["view", None, "buy", "buy"]),
        ("weight", "weight", [0.0, 1, 2, 3], [-1.0, 1, 2, 3]),
        ("weight", "weight", list("0123"), list("abcd")),
    ],
)
def test_optional_columns_are_guessed_if_their_values_fit(
    key: str, name: str, fits: list[Any], does_not: list[Any]
) -> None:
    assert columns_of(**{name: fits})[key] == name
    assert columns_of(**{name: does_not})[key] is None


def test_a_weight_of_another_name_is_only_a_candidate() -> None:
    guess = guess_events(pa.table({"quantity": [1, 2], "amount": [1.5, 2.5]}))["weight"]
    assert guess[:2] == (None, ("quantity", "amount"))


def test_another_unique_id_is_only_a_candidate_for_the_id_of_events() -> None:
    rows = pa.table({"UserId": list("aab"), "PlayId": list("xyz"), "session_id": list("stt")})
    assert guess_events(rows)["event_id"][:2] == (None, ("PlayId",))


def test_items_have_an_id_and_the_best_text() -> None:
    rows = pa.table({"id": [1, 2], "brand": list("ab"), "title": list("cd"), "price": [1.0, 2.0]})
    guesses = guess_items(rows)
    assert guesses["item_id"].column == "id"
    assert guesses["text"][:2] == ("title", ("brand",))
    assert guess_items(pa.table({"id": [1], "brand": ["a"]}))["text"].column is None


def test_attributes_of_users_are_columns_of_few_values() -> None:
    ids = [f"u{k}" for k in range(100)]
    rows = pa.table({
        "customer": ids, "signup_date": [TIMES[0].date()] * 100, "Country": ["de", None] * 50,
        "country": ["x", "y"] * 50, "constant": ["a"] * 100, "zip": [str(k) for k in range(100)],
        "email": [f"{k % 50}@x" for k in range(100)], "spend": [0.5, 1.5] * 50, "is_b2b": [True, False] * 50,
    })  # fmt: skip
    guesses, attributes = guess_users(rows)
    assert guesses["user_id"].column == "customer"
    assert guesses["registered_at"].column == "signup_date"
    assert attributes == ["country", "is_b2b"], "two names that become one feature name are one attribute"
