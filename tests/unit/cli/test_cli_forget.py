"""``userrep forget``: what it reads, prints and refuses. On a root without rows of users it needs no Spark."""

import json
from pathlib import Path

import pytest

from tests.support.command_line import Userrep, config_file
from userrep.cli import forget as cli_forget
from userrep.erasure.request_states import newest_requests
from userrep.store.file_tables import FileTables
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return config_file(tmp_path)


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tables:
    """Tables without a session, which the command works on."""
    tables = FileTables(None, str(tmp_path / "root"))
    monkeypatch.setattr(cli_forget, "tables_of", lambda *_, **__: tables)
    return tables


def ids_file(folder: Path, *ids: str) -> Path:
    path = folder / "ids.txt"
    path.write_text("\n".join(ids))
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory. Name a text file with one user id per line."),
        (b"\n \n", "no user ids in the file. Write one per line."),
        (b"u1\n\xff", "not UTF-8 text. Write one user id per line."),
    ],
)
def test_a_file_without_ids_is_refused_before_spark_starts(
    userrep: Userrep, no_spark: None, config: Path, tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "ids.txt"
    if content is not None:
        file.write_bytes(content)
    answer = userrep("forget", "--users", file, "--config", config, "--json")
    assert (answer.code, answer.faults) == (2, [f"--users {file}: {said}"])
    assert json.loads(answer.out) == {"exit_code": 2, "faults": answer.faults}
    assert not (tmp_path / "root").exists()


def test_without_users_and_without_open_requests_nothing_is_done(
    userrep: Userrep, config: Path, tables: Tables
) -> None:
    answer = userrep("forget", "--config", config)
    assert answer == (0, "nothing to do: no request is open\n", "")
    assert json.loads(userrep("forget", "--config", config, "--json").out)["is_idle"] is True


def test_ids_may_be_a_column_of_a_csv_file(userrep: Userrep, config: Path, tables: Tables, tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_text("user_id,reason\n17,gdpr\nbob-4,gdpr\n")
    assert userrep("forget", "--users", file, "--config", config).code == 0
    assert newest_requests(tables)[0].num_users == 2
    file.write_text("17,gdpr\n")
    answer = userrep("forget", "--users", file, "--config", config)
    assert (answer.code, "no column user_id; columns found: 17, gdpr" in answer.faults[0]) == (2, True)


def test_a_request_is_recorded_once_and_its_receipt_holds_no_id(
    userrep: Userrep, config: Path, tables: Tables, tmp_path: Path
) -> None:
    command = ("forget", "--users", ids_file(tmp_path, "ada-17", "bob-4", "ada-17", ""), "--config", config)
    first = userrep(*command)
    (request,) = newest_requests(tables)
    assert (request.num_users, request.state) == (2, "deleted")
    assert (first.code, first.out) == (0, f"request {request.request_id}: 2 users, 0 of them with rows\n")
    again = userrep(*command)
    assert again.out == f"request {request.request_id}: 2 users, 0 of them with rows, 2 already forgotten\n"
    assert [row.request_id for row in newest_requests(tables)] == [request.request_id]
    assert "user_embeddings: 0 rows" in first.err
    for text in (first.out, first.err, request.receipt):
        assert not [user for user in ("ada-17", "bob-4") if user in text]


def test_a_request_is_done_only_with_now_or_when_older_versions_are_due(
    userrep: Userrep, config: Path, tables: Tables, tmp_path: Path
) -> None:
    userrep("forget", "--users", ids_file(tmp_path, "u1"), "--config", config)
    later = json.loads(userrep("forget", "--config", config, "--json").out)
    assert (later["num_done"], newest_requests(tables)[0].state) == (0, "deleted")
    assert later["kept_until"] is not None
    now = json.loads(userrep("forget", "--now", "--config", config, "--json").out)
    assert (now["num_done"], newest_requests(tables)[0].state) == (1, "done")
    assert now["kept_until"] is None
