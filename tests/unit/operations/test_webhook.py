"""Messages to a real HTTP server: their content, their attempts, and what is reported when it refuses them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.webhook_server import WebhookServer
from userrep.errors import UsageError
from userrep.operations import webhook
from userrep.operations.webhook import post, webhook_url

pytestmark = pytest.mark.fast

SECRET = "T0P-SECRET"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookServer]:
    monkeypatch.setattr(webhook, "PAUSES", (0.0, 0.0))
    with WebhookServer() as server:
        yield server


def test_a_message_is_posted_once_as_json(server: WebhookServer) -> None:
    assert post(f"{server.url}/{SECRET}?key={SECRET}", {"text": "naïve", "path": Path("a")}) is None
    assert server.messages == [{"text": "naïve", "path": "a"}]
    assert server.requests == [("POST", f"/{SECRET}?key={SECRET}", "application/json")]


@pytest.mark.parametrize(
    ("statuses", "reason", "num_attempts"),
    [
        ([503, 429], None, 3),
        ([500, 500, 500], "HTTP status 500", 3),
        ([404], "HTTP status 404", 1),
        ([401], "HTTP status 401", 1),
    ],
)
def test_only_what_may_pass_is_tried_again(
    server: WebhookServer, statuses: list[int], reason: str | None, num_attempts: int
) -> None:
    server.statuses = statuses
    assert post(server.url, {}) == reason
    assert len(server.requests) == num_attempts


def test_a_server_that_does_not_answer_is_given_up(server: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT", 0.05)
    server.delay = 0.3
    assert post(server.url, {}) in ("TimeoutError", "timeout")
    server.close()
    assert post(f"{server.url}/{SECRET}", {}) == "ConnectionRefusedError"


def test_a_reason_never_contains_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "PAUSES", (0.0, 0.0))
    for url in (f"http://[{SECRET}", f"http://localhost:1/{SECRET}\n", f"http://{SECRET}.invalid/"):
        reason = post(url, {})
        assert reason is not None
        assert SECRET not in reason


def test_the_url_may_come_from_the_environment_and_must_be_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "https://hooks/x")
    assert webhook_url("${HOOK}") == "https://hooks/x"
    monkeypatch.setenv("HOOK", f"file:///{SECRET}")
    with pytest.raises(UsageError, match="must be a URL that starts with https:// or http://") as error:
        webhook_url("${HOOK}")
    assert SECRET not in str(error.value)
    monkeypatch.delenv("HOOK")
    with pytest.raises(UsageError, match=r"alerts\.webhook: not set in the environment: HOOK"):
        webhook_url("${HOOK}")
