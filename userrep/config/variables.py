"""The environment: where the process runs, and secrets, which the configuration names as ``${NAME}``."""

import os
import re

from userrep.errors import UsageError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def on_databricks() -> bool:
    """Return whether this process runs in a Databricks runtime."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def with_variables(written: str, origin: str) -> tuple[str, dict[str, str]]:
    """Put variables of the environment in; return the text, and for each value the ``${NAME}`` that stands for it.

    Raises
    ------
    UsageError
        If one is not set. ``origin``: where the text is from.
    """
    names = _VARIABLE.findall(written)
    missing = sorted({name for name in names if not os.environ.get(name)})
    if missing:
        raise UsageError(
            f"{origin}: not set in the environment: {', '.join(missing)}. Set it, or write the value whole."
        )
    values = {os.environ[name]: f"${{{name}}}" for name in names}
    return _VARIABLE.sub(lambda match: os.environ[match[1]], written), values
