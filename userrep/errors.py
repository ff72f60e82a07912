"""Every deliberate exception. Each message says where, what was wanted, what was got, and the cure."""

import re
from collections.abc import Sequence

# How Spark, pyarrow and delta-rs say that an object store does not take the credentials. Of a HEAD there is no code.
_REFUSED = re.compile(
    r"ExpiredToken\w*|InvalidToken|TokenRefreshRequired|RequestExpired|InvalidAccessKeyId|SignatureDoesNotMatch"
    r"|AWS Error ACCESS_DENIED|Status Code: 40[13]|lacked the necessary privileges|lacked valid authentication"
)
_THROWN = re.compile(r"^ *Traceback \(most recent call last\):\n(?:[ \t].*\n)+(\S.*)", re.MULTILINE)  # within a worker
_PLACE = re.compile(r"\bs3[an]?://[^\s,;:'\")]+|(?<=for path )\S+")


def in_line(text: str) -> str:
    """Show a text from outside within a message of one line: the beginning of a long one, without its line ends."""
    return text[:80] if text.isprintable() else ascii(text[:80])


def in_one_line(error: BaseException) -> str:
    """Say what an exception that nobody planned for is about.

    Java's are wrapped in a line that says nothing, and so are those of Python's workers, which may be deliberate ones.
    """
    thrown = _THROWN.findall(str(error))
    if thrown:
        return str(thrown[-1])[:600].removeprefix("userrep.errors.").rstrip(".")
    lines = [line.strip().removeprefix(": ") for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if not line.startswith("An error occurred while calling ")), "no message")
    return f"{type(error).__name__}: {said[:300].rstrip('.')}"


def cause_outside(error: BaseException) -> str | None:
    """Say what to do about an error that comes from where userrep runs: a full disk, a store that refuses access."""
    return of_full_disk(error) or refused_by_store(error)


def of_full_disk(error: BaseException | None) -> str | None:
    """Say what to do about an error that a full disk has caused, whoever has wrapped it; None of any other error."""
    while error is not None:
        if found := re.search("No space left on device|Disk quota exceeded", str(error)):
            return (
                f"a disk is full ({found[0]}): that of the root, of --out, or of Spark's temporary files "
                "(spark.local.dir). What was committed stays. Make room, then run the same command again."
            )
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def refused_by_store(error: BaseException) -> str | None:
    """Say in one line that an object store has refused the credentials, if that is behind an exception; else None.

    Whoever met it may have taken it for something else, such as a file that is not readable.
    """
    texts: list[str] = []
    of: BaseException | None = error
    while of is not None:
        texts.append(str(of))
        of = of.__cause__ or of.__context__
    said = "\n".join(texts)
    codes = _REFUSED.findall(said)
    if not codes:
        return None
    code = next((code for code in codes if code.isalpha()), "403")
    place = _PLACE.search(said)
    return (
        f"the object store refuses access{f' to {place[0][:200]}' if place else ''} ({code}): the credentials have "
        "expired, or do not allow it. Renew them, and run the command again; what was committed stays."
    )


class UserrepError(Exception):
    """The run failed for a reason that its user can mend. ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(UserrepError):
    """Wrong use or wrong configuration; holds all the faults of one input at once."""

    exit_code = 2

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


class GateRefusedError(UserrepError):
    """A gate kept a snapshot from being published, or a space from being trained; what serves is as it was."""

    exit_code = 3


class PromotionRefusedError(UserrepError):
    """A consumer that follows "serving" is not ready for the space; what serves is as it was."""

    exit_code = 3


class RejectedShareError(UserrepError):
    """Days of the log hold more malformed rows than ``events.max_rejected_share`` allows."""


class ArtifactError(UserrepError):
    """A space's files are not what their manifest says: torn, swapped, or of an unknown format."""


class AlreadyRunningError(UserrepError):
    """Another run of the same job is at work on the same root; this one has changed nothing, or has stopped."""


class SlotsError(UserrepError):
    """Spark has fewer free slots than the ranks that training asks for."""


class DivergedError(UserrepError):
    """The training loss is no longer a number."""


class PeerLostError(UserrepError):
    """A rank cannot go on because another rank of its training is gone; that one has the cause."""


class RankFailedError(UserrepError):
    """A rank of a training failed, died or hung; the message names it and says what it said last."""


class TrackingError(UserrepError):
    """A training could not be recorded with MLflow. The training itself is whole, in ``root``."""
