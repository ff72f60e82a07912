"""Environment variables that stand in a configuration instead of secrets."""

import pytest

from userrep.config.environment import with_variables
from userrep.errors import UsageError

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set two variables, one of them to no text, and remove others."""
    for name, value in {"DB_USER": "ada", "_P4SS": "${DB_USER}\\1$", "EMPTY": ""}.items():
        monkeypatch.setenv(name, value)
    for name in ("ABSENT", "B_ABSENT"):
        monkeypatch.delenv(name, raising=False)


def test_variables_are_replaced_once_and_their_values_lead_back_to_their_names() -> None:
    text, values = with_variables("redis://${DB_USER}:${_P4SS}@${DB_USER}/0", "stream.redis.url")
    assert text == "redis://ada:${DB_USER}\\1$@ada/0"
    assert values == {"ada": "${DB_USER}", "${DB_USER}\\1$": "${_P4SS}"}


@pytest.mark.parametrize("text", ["", "$DB_USER", "${db user}", "${1}", "${}", "${DB_USER", "$(DB_USER)", "{DB_USER}"])
def test_text_that_is_no_variable_in_braces_is_kept(text: str) -> None:
    assert with_variables(text, "here") == (text, {})


def test_all_variables_that_are_not_set_are_named_once_each_and_an_empty_one_counts_as_not_set() -> None:
    with pytest.raises(UsageError) as caught:
        with_variables("${B_ABSENT}${ABSENT}${DB_USER}${EMPTY}${ABSENT}", "tracking.uri")
    assert caught.value.faults == [
        "tracking.uri: not set in the environment: ABSENT, B_ABSENT, EMPTY. Set it, or write the value itself."
    ]
