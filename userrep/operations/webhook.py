"""Messages to a webhook: one JSON object per POST, within a few seconds, and without the URL in any message."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from userrep.config.environment import with_variables
from userrep.errors import UsageError

TIMEOUT = 5.0  # seconds for each attempt
PAUSES = (1.0, 3.0)  # seconds before the second and the third attempt
_KEY = "alerts.webhook"
_RETRIED = (408, 425, 429)  # HTTP statuses, in addition to those of 500 and above


def webhook_url(written: str) -> str:
    """Return the URL of ``alerts.webhook`` with its environment variables.

    Raises
    ------
    UsageError
        If a variable is not set, or if the result is not a URL with scheme http or https.
    """
    url = with_variables(written, _KEY)[0]
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{_KEY}: must be a URL that starts with https:// or http://. The value is not shown.")
    return url


def post(url: str, message: Mapping[str, Any]) -> str | None:
    """Post a message as JSON, in at most three attempts; return why it was not accepted, or None.

    The reason does not contain the URL, whose path or query may be a secret.
    """
    content, headers = json.dumps(message, default=str).encode(), {"Content-Type": "application/json"}
    for pause in (0.0, *PAUSES):
        time.sleep(pause)
        try:
            request = urllib.request.Request(url, content, headers, method="POST")  # noqa: S310  # see webhook_url
            with urllib.request.urlopen(request, timeout=TIMEOUT):  # noqa: S310
                return None
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"HTTP status {error.code}"
            if error.code < 500 and error.code not in _RETRIED:
                break
        except urllib.error.URLError as error:
            reason = type(error.reason).__name__
        except Exception as error:  # of http.client and socket; their messages may contain the URL
            reason = type(error).__name__
            if isinstance(error, ValueError):
                break
    return reason
