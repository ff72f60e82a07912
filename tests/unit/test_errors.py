"""Messages of errors that userrep did not raise itself: one line, the cause, and what to do about it."""

from itertools import pairwise

import pytest

from userrep.errors import (
    UsageError,
    UserrepError,
    cause_outside,
    did_you_mean,
    explain,
    first_line,
    in_line,
    in_one_line,
    plural,
    results_of,
    shortened,
)

pytestmark = pytest.mark.fast

WORKER = """An error occurred while calling o58.collect.
: org.apache.spark.SparkException: Job aborted
  Traceback (most recent call last):
    File "worker.py", line 1, in main
{deeper}userrep.errors.UserrepError: table tiles is torn.

\tat org.apache.spark.X
"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("spaces and é stay", "spaces and é stay"),
        ("a\nb", "'a\\nb'"),
        ("\u202ehidden", "'\\u202ehidden'"),
        ("x" * 81, "x" * 80),
        ("\n" * 81, "'" + "\\n" * 80 + "'"),
    ],
)
def test_text_from_outside_is_shown_within_a_line(text: str, shown: str) -> None:
    assert in_line(text) == shown


def test_long_lists_are_shortened_with_the_number_of_what_is_left_out() -> None:
    assert shortened(["a", "b"], most=2, noun="day") == "a, b"
    assert shortened([*"abc"], most=2, noun="day", separator="; ") == "a; b and 1 more day"
    assert shortened(range(1012)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1,002 more"


def test_the_first_line_of_a_message_is_short_and_never_empty() -> None:
    assert first_line(ValueError("  no such file.\nmore")) == "no such file"
    assert first_line(OSError()) == "OSError"
    assert len(first_line(ValueError("x" * 300))) == 200


def test_a_number_takes_a_plural_unless_it_is_one() -> None:
    assert [plural(number, "day") for number in (0, 1, 1_200)] == ["0 days", "1 day", "1,200 days"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("bad value."), "ValueError: bad value"),
        (ValueError("first\nsecond"), "ValueError: first"),
        (ValueError(" \n  \n"), "ValueError: no message"),
        (KeyError(), "KeyError: no message"),
        (
            RuntimeError("An error occurred while calling o58.sql.\n: java.io.IOException: disk full\n\tat X"),
            "RuntimeError: java.io.IOException: disk full",
        ),
        (ValueError("y" * 400), f"ValueError: {'y' * 300}"),
    ],
)
def test_the_first_line_with_content_summarizes_an_error(error: Exception, said: str) -> None:
    assert in_one_line(error) == said


def test_an_error_of_a_worker_is_that_of_its_last_traceback_without_what_wraps_it() -> None:
    once = WORKER.format(deeper="")
    assert in_one_line(RuntimeError(once)) == "UserrepError: table tiles is torn"
    first = 'ValueError: the cause\n\n  Traceback (most recent call last):\n    File "worker.py", line 9\n'
    assert in_one_line(RuntimeError(WORKER.format(deeper=first))) == "UserrepError: table tiles is torn"


MICRO_BATCH = """An exception was raised by the Python Proxy. Return Message: Traceback (most recent call last):
  File "a.py", line 1, in call
    raise e
py4j.protocol.Py4JJavaError: An error occurred while calling o7.collect.
: org.apache.spark.SparkException: [FAILED_READ_FILE] a.parquet.
\tat org.apache.spark.X
"""


def test_an_error_of_a_micro_batch_is_that_of_java_below_its_traceback() -> None:
    assert in_one_line(RuntimeError(MICRO_BATCH)) == "org.apache.spark.SparkException: [FAILED_READ_FILE] a.parquet"


def chain(*wrapped: BaseException, cause: bool) -> BaseException:
    """Return the last of these errors, each raised from the one before or while it was handled."""
    for inner, outer in pairwise(wrapped):
        if cause:
            outer.__cause__ = inner
        else:
            outer.__context__ = inner
    return wrapped[-1]


@pytest.mark.parametrize("cause", [True, False])
@pytest.mark.parametrize("message", ["[Errno 28] No space left on device", "write: Disk quota exceeded (122)"])
def test_a_full_disk_is_found_however_deep_the_error_is_wrapped(message: str, cause: bool) -> None:
    error = chain(OSError(message), ValueError("not written"), UserrepError("table is not readable"), cause=cause)
    said = cause_outside(error)
    assert said is not None
    found = "Disk quota exceeded" if "quota" in message else "No space left on device"
    assert said.startswith(f"a disk is full ({found}): ")
    assert said.endswith("Make room, then run the same command again.")


def test_an_error_that_was_handled_on_purpose_is_no_cause() -> None:
    full, raised = OSError("No space left on device"), UsageError("root: no such folder.")
    raised.__context__, raised.__suppress_context__ = full, True
    assert cause_outside(raised) is None
    raised.__suppress_context__ = False
    assert cause_outside(raised) is not None


@pytest.mark.parametrize(
    ("message", "place", "code"),
    [
        ("ExpiredToken: for s3a://bucket/root/tables: no", " to s3a://bucket/root/tables", "ExpiredToken"),
        ("AWS Error ACCESS_DENIED during HeadObject for path bucket/key operation", " to bucket/key", "403"),
        ("HEAD (Service: S3, Status Code: 403, Request ID: X)", "", "403"),
        ("Status Code: 401; then SignatureDoesNotMatch at (s3://b/k)", " to s3://b/k", "SignatureDoesNotMatch"),
        ("Client error: the client lacked valid authentication credentials", "", "403"),
    ],
)
def test_a_store_that_refuses_access_is_named_with_its_code(message: str, place: str, code: str) -> None:
    error = chain(OSError(message), UserrepError("table registry is not readable."), cause=True)
    assert cause_outside(error) == (
        f"the object store refuses access{place} ({code}): the credentials have expired or lack permission. Renew "
        "them, and run the command again; committed work is kept."
    )


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ("Kernel error -> Operation not supported\n  \x1b[31m↳\x1b[0m an error occurred while loading credentials", ""),
        ("s3a://b/k: NoAuthWithAWSException: No AWS Credentials provided by", " of s3a://b/k"),
    ],
)
def test_missing_credentials_are_named_with_their_variables(message: str, place: str) -> None:
    said = cause_outside(chain(OSError(message), UserrepError("table registry is not readable."), cause=True))
    assert said is not None
    assert said.startswith(f"the object store{place} needs credentials, and this process has none. Set AWS_ACCESS_KEY")


DELTA_RS = """Kernel error -> Generic S3 error
   \x1b[31m↳\x1b[0m Error performing GET http://127.0.0.1:9/bucket/t/_delta_log/_last_checkpoint in 3.8ms - HTTP error
    \x1b[31m↳\x1b[0m error sending request
     \x1b[31m↳\x1b[0m client error (Connect)
      \x1b[31m↳\x1b[0m dns error
"""


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7, Could not connect to server", ""),
        (
            "for path bucket/key: AWS Error NETWORK_CONNECTION: curlCode: 6, Could not resolve hostname",
            " of bucket/key",
        ),
        (DELTA_RS, ""),
        (
            "java.net.ConnectException: getFileStatus on s3a://b/k: software.amazon.awssdk.core.exception."
            "SdkClientException: Unable to execute HTTP request: Connect to localhost:9 failed: Connection refused",
            " of s3a://b/k",
        ),
        ("java.net.UnknownHostException: open on s3a://b/k: SdkClientException: UnknownHostException", " of s3a://b/k"),
    ],
)
def test_a_store_that_does_not_answer_is_named_with_its_cure(message: str, place: str) -> None:
    error = chain(OSError(message), UserrepError("table registry is not readable."), cause=True)
    said = (
        f"the object store{place} cannot be reached: check its endpoint, the region and the network, and "
        "run the command again; committed work is kept."
    )
    assert explain(error) == (1, [said])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "message",
    [
        "Error 111 connecting to cache:6379. Connection refused.",
        "Error -2 connecting to cache:6379. Name or service not known.",
        "Connection to node -1 (broker/10.0.0.1:9092) could not be established. Connection refused",
        "org.apache.kafka.common.config.ConfigException: No resolvable bootstrap urls given in bootstrap.servers",
        "<urlopen error [Errno 111] Connection refused>",
        "An error occurred while trying to connect to the Java server (127.0.0.1:41235): Connection refused",
        "checkpoint s3a://bucket/streams: writing\nredis: Connection refused",
    ],
)
def test_another_service_that_does_not_answer_is_not_called_an_object_store(message: str) -> None:
    assert cause_outside(OSError(message)) is None


@pytest.mark.parametrize(
    ("name", "said"), [("modle", "did you mean model?"), ("zzz", "choose one"), ("", "choose one")]
)
def test_the_nearest_known_name_is_proposed(name: str, said: str) -> None:
    assert did_you_mean(name, ["model", "root"], "choose one") == said


@pytest.mark.parametrize("message", ["Status Code: 404", "No such file s3://bucket/key", "No space", "access token"])
def test_other_errors_have_no_cause_outside(message: str) -> None:
    assert cause_outside(OSError(message)) is None


def test_a_usage_error_holds_each_fault_and_shows_a_line_for_each() -> None:
    error = UsageError(["a is wrong.", "b is wrong."])
    assert (error.faults, str(error), error.exit_code) == (
        ["a is wrong.", "b is wrong."],
        "a is wrong.\nb is wrong.",
        2,
    )
    assert UsageError("one").faults == ["one"]


def test_all_calls_are_made_and_their_faults_are_raised_together_each_once() -> None:
    made: list[str] = []

    def refuses(*faults: str) -> None:
        made.extend(faults)
        raise UsageError(faults)

    assert results_of([lambda: 1, lambda: 2]) == [1, 2]
    with pytest.raises(UsageError) as refused:
        results_of([lambda: refuses("a", "b"), lambda: None, lambda: refuses("b", "c")])
    assert (made, refused.value.faults) == (["a", "b", "b", "c"], ["a", "b", "c"])
    with pytest.raises(ZeroDivisionError):  # not a fault, so it is raised at once
        results_of([lambda: 1 / 0, lambda: refuses("d")])
    assert "d" not in made


@pytest.mark.parametrize(
    ("module", "extra"),
    [("pyspark", "spark"), ("torch.nn", "train"), ("mlflow", "tracking"), ("matplotlib.figure", "evaluate")],
)
def test_a_missing_package_is_wrong_use_and_names_the_extra(module: str, extra: str) -> None:
    error = ModuleNotFoundError(f"No module named {module!r}", name=module)
    package = module.partition(".")[0]
    line = f"the package {package} is not installed. Install it with `pip install 'userrep[{extra}]'`."
    assert explain(error) == (2, [line])


def test_a_missing_module_of_no_extra_is_an_unexpected_error() -> None:
    code, lines = explain(ModuleNotFoundError("No module named 'antigravity2'", name="antigravity2"))
    assert code == 1
    assert lines[0].startswith("ModuleNotFoundError: No module named 'antigravity2'. Committed work is kept.")
