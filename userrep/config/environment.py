"""Environment of the process: platform, packages, and the variables that the configuration names as ``${NAME}``."""

import importlib.metadata
import os
import re

from userrep.errors import UsageError

LOGIN = r"(?:[^/@\s]*|[^/@\s:]*:[^@\s]*)"  # of a URI: a name, or a name and a password, which may contain a slash
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def on_databricks() -> bool:
    """Return whether this process runs in a Databricks runtime."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def under_submit() -> bool:
    """Return whether spark-submit has started this process, and the JVM with its own master and JARs."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def package_version(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def without_logins(text: str) -> str:
    """Return a text in which the log-ins of URIs are hidden."""
    return re.sub(rf"//{LOGIN}@", "//***@", text)


def unset_variables(written: str) -> list[str]:
    """Return the names of the variables in a text that are not set, or empty, in the environment."""
    return sorted({name for name in _VARIABLE.findall(written) if not os.environ.get(name)})


def with_variables(written: str, origin: str) -> tuple[str, dict[str, str]]:
    """Substitute environment variables; return the text, and the ``${NAME}`` of each value, for masking secrets.

    ``origin`` is the configuration key or variable that ``written`` comes from.

    Raises
    ------
    UsageError
        If a variable is not set.
    """
    if missing := unset_variables(written):
        raise UsageError(
            f"{origin}: not set in the environment: {', '.join(missing)}. Set it, or write the value itself."
        )
    values = {os.environ[name]: f"${{{name}}}" for name in _VARIABLE.findall(written)}
    return _VARIABLE.sub(lambda match: os.environ[match[1]], written), values
