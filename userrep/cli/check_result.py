"""The result of one check of ``userrep doctor``."""

from collections.abc import Callable
from dataclasses import dataclass

from userrep.errors import UserrepError, in_one_line


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. ``found``: the version or state; ``cure``: what to do if the check fails."""

    check: str
    ok: bool
    found: str
    cure: str = ""

    def __str__(self) -> str:
        cure = f". {self.cure}" if self.cure and not self.ok else ""
        return f"{'ok  ' if self.ok else 'FAIL'} {self.check}: {self.found}{cure}"


def checked(name: str, check: Callable[[], object]) -> CheckResult:
    """Return what a check found, or the error it raised in one line."""
    try:
        return CheckResult(name, True, str(check()))
    except UserrepError as error:
        return CheckResult(name, False, str(error))
    except Exception as error:  # must not stop the other checks
        return CheckResult(name, False, in_one_line(error))
