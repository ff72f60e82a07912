"""The process of a rank: it trains, reports to the driver, and after a failure reports the cause and exits."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.training.test_training import losses_of, silent, task_on
from userrep.training.launch import comm, ranks
from userrep.training.launch.comm import LocalComm
from userrep.training.launch.rank_monitor import Address
from userrep.training.launch.ranks import train_rank
from userrep.training.loop import train
from userrep.training.task import TrainingTask

pytestmark = pytest.mark.fast

ADDRESS = Address("host", 1, "token")
Calls = list[tuple[str, Any]]


class Ended(BaseException):
    """Raised in place of the end of the process, with its exit code."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Run ranks in this process with fakes for the driver and the group; return the calls of both, in order."""
    calls: Calls = []

    class Connection:
        def __init__(self, address: Address, rank: int) -> None:
            calls.append(("rank", (address, rank)))

        def send(self, **message: object) -> None:
            calls.extend(message.items())

        def send_failure(self, error: BaseException) -> None:
            calls.append(("failed", error))
            if isinstance(error, ConnectionError):
                raise OSError("the driver is gone")

    class Group(LocalComm):
        name = ""

        def close(self) -> None:
            calls.append(("closed", self.name))

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(ranks, "DriverConnection", Connection)
    monkeypatch.setattr(ranks, "os", SimpleNamespace(environ=os.environ, _exit=end))
    for name in ("HorovodComm", "TorchComm"):
        monkeypatch.setattr(comm, name, type(name, (Group,), {"name": name}))
    monkeypatch.setenv("HOROVOD_RANK", "3")
    monkeypatch.setenv("RANK", "5")
    return calls


def on_ranks(folder: Path, backend: str, **more: Any) -> TrainingTask:
    return task_on(folder, backend=backend, num_workers=2, max_epochs=1, **more)


@pytest.mark.parametrize(
    ("backend", "group", "rank"), [("horovod", "HorovodComm", 3), ("torch_distributor", "TorchComm", 5)]
)
def test_a_rank_trains_in_its_launcher_s_group_and_leaves_it_after_reporting_done(
    tmp_path: Path, calls: Calls, backend: str, group: str, rank: int
) -> None:
    task = on_ranks(tmp_path, backend)
    train_rank(task, ADDRESS, None)
    assert calls[:2] == [("rank", (ADDRESS, rank)), ("facts", {"device": "CPU"})]
    assert [kind for kind, _ in calls[2:]] == ["say", "facts", "done", "closed"]
    assert calls[2][1].startswith("epoch 1/1 step 18/18 loss ")
    assert calls[3][1].keys() == {"rank", "device", "rows_per_second", "waiting_share"}
    assert calls[-1] == ("closed", group)


def test_a_rank_resumes_from_the_given_checkpoint(tmp_path: Path, calls: Calls) -> None:
    task = task_on(tmp_path, backend="horovod", num_workers=2)
    whole = train(task, LocalComm(), silent)
    calls.clear()
    train_rank(task, ADDRESS, "step-000000018")
    lines = [line for kind, line in calls if kind == "say"]
    assert [line.split(" loss")[0] for line in lines] == ["epoch 2/2 step 18/18"]
    assert losses_of(train(task, LocalComm(), silent, resume="step-000000036")) == losses_of(whole)


def test_a_failed_rank_reports_its_exception_and_exits_with_code_1(
    tmp_path: Path, calls: Calls, capfd: pytest.CaptureFixture[str]
) -> None:
    task = on_ranks(tmp_path, "horovod")
    Path(task.files["train"][2][0]).unlink()
    with pytest.raises(Ended) as ended:
        train_rank(task, ADDRESS, None)
    assert ended.value.args == (1,)
    kind, error = calls[-1]
    assert (kind, type(error)) == ("failed", FileNotFoundError)
    assert "FileNotFoundError" in capfd.readouterr().err
    assert "done" not in dict(calls)


def test_a_failed_rank_exits_even_if_the_driver_is_unreachable(
    tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def unreachable() -> None:
        raise ConnectionError("no route to the others")

    monkeypatch.setattr(comm, "TorchComm", unreachable)
    with pytest.raises(Ended) as ended:
        train_rank(on_ranks(tmp_path, "torch_distributor"), ADDRESS, None)
    assert ended.value.args == (1,)
    assert "no route to the others" in capfd.readouterr().err
