"""All deliberate exceptions, the parts of their messages, and one-line messages for errors from outside userrep.

A message says where the fault is, what is wrong, which value was found, and what to do.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Result = TypeVar("Result")

# How Spark, pyarrow and delta-rs report refused credentials of an object store. HEAD requests have no error code.
_REFUSED = re.compile(
    r"ExpiredToken\w*|InvalidToken|TokenRefreshRequired|RequestExpired|InvalidAccessKeyId|SignatureDoesNotMatch"
    r"|AWS Error ACCESS_DENIED|Status Code: 40[13]|lacked the necessary privileges|lacked valid authentication"
)
# How delta-rs and S3A report that there are no credentials. PyArrow's requests without them are refused.
_NO_CREDENTIALS = re.compile(r"an error occurred while loading credentials|NoAuthWithAWSException")
# How pyarrow, delta-rs and S3A report a store that does not answer. The names of Kafka, Redis and webhooks have none.
_UNREACHABLE = re.compile(
    r"AWS Error NETWORK_CONNECTION|Generic \w+ error(?s:.{0,500}?)client error \(Connect\)"
    r"|(?:SdkClientException|\bon s3a?://).*?(?:Connection refused|UnknownHost|[Cc]onnect timed out|Unable to connect)"
)
# A traceback in Python, which may itself wrap an exception of Java; foreachBatch begins it within a line.
_WORKER_TRACEBACK = re.compile(
    r"(?:^ *|Return Message: )Traceback \(most recent call last\):\n(?:[ \t].*\n)+"
    r"(?:\S*Py4JJavaError: An error occurred while calling .*\n: )?(\S.*)",
    re.MULTILINE,
)
# The extra of setup.py that brings a package.
_SPARK = ("pyspark", "py4j", "delta", "implicit", "jinja2", "markupsafe", "scipy", "safetensors", "threadpoolctl")
_EXTRA_OF = dict.fromkeys(_SPARK, "spark") | {
    "sklearn": "train", "torch": "train", "lightgbm": "train", "matplotlib": "evaluate", "mlflow": "tracking",
    "sqlalchemy": "tracking", "redis": "streaming",
}  # fmt: skip
_STORE_PATH = re.compile(r"\bs3[an]?://[^\s,;:'\")]+|(?<=for path )[^\s:]+")


def in_line(text: str) -> str:
    """Return text from outside for use in a one-line message: at most 80 characters, escaped if not printable."""
    return text[:80] if text.isprintable() else ascii(text[:80])


def plural(number: int, noun: str) -> str:
    """Format a number with its noun, which takes a plural s unless the number is 1."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shortened(names: Sequence[object], *, most: int = 10, noun: str = "", separator: str = ", ") -> str:
    """Join the first names, and count the others: "a, b and 3 more", with the noun "a, b and 3 more days"."""
    shown, num_more = separator.join(str(name) for name in names[:most]), len(names) - most
    if num_more <= 0:
        return shown
    return f"{shown} and {plural(num_more, f'more {noun}') if noun else f'{num_more:,} more'}"


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "", *, cutoff: float = 0.5) -> str:
    """Return a question that names the known name most like ``name``, or ``otherwise`` if none is like it."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else otherwise


def first_line(error: BaseException | str) -> str:
    """Return the first line of an expected error's message, shortened and without a full stop, or its type if empty."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".")


def in_one_line(error: BaseException) -> str:
    """Return a one-line summary of an unexpected exception.

    Wrappers of Java exceptions and of exceptions in Python workers, which may be deliberate ones, are removed.
    """
    raised = _WORKER_TRACEBACK.findall(str(error))
    if raised:
        return str(raised[-1])[:600].removeprefix("userrep.errors.").rstrip(".")
    lines = [line.strip().removeprefix(": ") for line in str(error).splitlines() if line.strip()]
    message = next((line for line in lines if not line.startswith("An error occurred while calling ")), "no message")
    return f"{type(error).__name__}: {message[:300].rstrip('.')}"


def cause_outside(error: BaseException) -> str | None:
    """Return a message for an error caused by the environment, however it is wrapped, or None.

    The causes are a full disk, and an object store that does not answer, refuses the credentials or gets none. These of
    an object store are often reported as something else, such as a file that is not readable.
    """
    if match := re.search("No space left on device|Disk quota exceeded", _texts(error, handled=False)):
        return (
            f"a disk is full ({match[0]}): the disk of the root, of --out, or of Spark's temporary files "
            "(spark.local.dir). Committed work is kept. Make room, then run the same command again."
        )
    text = _texts(error, handled=True)
    match = _STORE_PATH.search(text)
    path = f" {match[0][:200]}" if match else ""
    if codes := _REFUSED.findall(text):
        code = next((code for code in codes if code.isalpha()), "403")
        return (
            f"the object store refuses access{path and f' to{path}'} ({code}): the credentials have expired or lack "
            "permission. Renew them, and run the command again; committed work is kept."
        )
    if _NO_CREDENTIALS.search(text):
        return (
            f"the object store{path and f' of{path}'} needs credentials, and this process has none. Set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role."
        )
    if _UNREACHABLE.search(text):
        return (
            f"the object store{path and f' of{path}'} cannot be reached: check its endpoint, the region and the "
            "network, and run the command again; committed work is kept."
        )
    return None


def _texts(error: BaseException | None, *, handled: bool) -> str:
    """Return the messages of an exception and of those that led to it; ``handled``: including handled ones."""
    texts = []
    while error is not None:
        texts.append(str(error))
        is_hidden = error.__suppress_context__ and not handled
        error = error.__cause__ or (None if is_hidden else error.__context__)
    return "\n".join(texts)


def missing_package(error: BaseException) -> str | None:
    """Return what to install if an import failed because an extra of userrep is not installed, else None."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package not in _EXTRA_OF:
        return None
    extra = _EXTRA_OF[package]
    return f"the package {package} is not installed. Install it with `pip install 'userrep[{extra}]'`."


def explain(error: Exception) -> tuple[int, list[str]]:
    """Return the exit code of an exception, and the lines that describe it."""
    if missing := missing_package(error):
        return 2, [missing]
    if cause := cause_outside(error):
        return 1, [cause]
    if isinstance(error, UserrepError):
        return error.exit_code, error.faults if isinstance(error, UsageError) else str(error).splitlines()
    return 1, [f"{in_one_line(error)}. Committed work is kept. Use --debug for a traceback."]


class UserrepError(Exception):
    """The run failed for a reason that the user can fix. ``exit_code`` is the exit code of the command line."""

    exit_code = 1


class UsageError(UserrepError):
    """Wrong use or wrong configuration. ``faults`` has all faults of one input."""

    exit_code = 2

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


def results_of(calls: Iterable[Callable[[], Result]]) -> list[Result]:
    """Run all calls and return their results. Raises UsageError with the faults of all of them, each only once."""
    results: list[Result] = []
    faults: dict[str, None] = {}  # ordered and unique: several calls may find the same fault
    for call in calls:
        try:
            results.append(call())
        except UsageError as error:
            faults |= dict.fromkeys(error.faults)
    if faults:
        raise UsageError(list(faults))
    return results


class LogIncompleteError(UserrepError):
    """The log does not reach the as-of date yet, but is expected to. The same command succeeds later."""

    exit_code = 4


class GateRefusedError(UserrepError):
    """A gate refused to publish a snapshot or to train a space. The serving state is unchanged."""

    exit_code = 3


class PromotionRefusedError(UserrepError):
    """A consumer that follows "serving" is not ready for the space. The serving state is unchanged."""

    exit_code = 3


class RejectedShareError(UserrepError):
    """Days of the log have a larger share of malformed rows than ``events.max_rejected_share`` allows."""


class ArtifactError(UserrepError):
    """A space's files do not match their manifest: damaged, swapped, or of an unknown format."""


class AlreadyRunningError(UserrepError):
    """Another run of the same job is running on the same root. This run has changed nothing, or has stopped."""


class NeedsSparkError(Exception):
    """Tasks might not read some rows as Spark does. The rows are then left to Spark; no user sees this error."""


class SlotsError(UserrepError):
    """Spark has fewer free slots than the training has ranks."""


class DivergedError(UserrepError):
    """The training loss is not finite."""


class PeerLostError(UserrepError):
    """A rank cannot continue because another rank of the training is gone. The other rank has the cause."""


class RankFailedError(UserrepError):
    """A rank of a training failed, died or hung. The message has its number and its last message."""


class TrackingError(UserrepError):
    """A training could not be recorded with MLflow. The training itself is complete, in ``root``."""


def changed_meanwhile(table: str) -> UserrepError:
    """Return the error of a commit whose source rows another run has changed."""
    return UserrepError(f"{table}: another run has changed the same rows meanwhile. Run the command again.")
