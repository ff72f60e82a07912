"""What runs in a rank: it trains, tells the driver, and a rank that fails says how and ends its process."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.training.test_training import losses_of, silent, task_on
from userrep.training.launch import comm, ranks
from userrep.training.launch.comm import LocalComm
from userrep.training.launch.lifeline import Address
from userrep.training.launch.ranks import train_rank
from userrep.training.loop import train
from userrep.training.task import TrainingTask

pytestmark = pytest.mark.fast

ADDRESS = Address("host", 1, "token")
Told = list[tuple[str, Any]]


class Ended(BaseException):
    """Stands for the end of a process, with its exit code."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Let ranks be of this process, one of a kind; return what they tell the driver and do, in order."""
    told: Told = []

    class Line:
        def __init__(self, address: Address, rank: int) -> None:
            told.append(("rank", (address, rank)))

        def tell(self, **facts: object) -> None:
            told.append(("facts", facts))

        def say(self, line: str) -> None:
            told.append(("say", line))

        def done(self) -> None:
            told.append(("done", None))

        def failed(self, error: BaseException) -> None:
            told.append(("failed", error))
            if isinstance(error, ConnectionError):
                raise OSError("the driver is gone")

    class Group(LocalComm):
        name = ""

        def close(self) -> None:
            told.append(("closed", self.name))

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(ranks, "RankLine", Line)
    monkeypatch.setattr(ranks, "os", SimpleNamespace(environ=os.environ, _exit=end))
    for name in ("HorovodComm", "TorchComm"):
        monkeypatch.setattr(comm, name, type(name, (Group,), {"name": name}))
    monkeypatch.setenv("HOROVOD_RANK", "3")
    monkeypatch.setenv("RANK", "5")
    return told


def on_ranks(folder: Path, backend: str, **more: Any) -> TrainingTask:
    return task_on(folder, backend=backend, num_workers=2, max_epochs=1, **more)


@pytest.mark.parametrize(
    ("backend", "group", "rank"), [("horovod", "HorovodComm", 3), ("torch_distributor", "TorchComm", 5)]
)
def test_a_rank_trains_in_its_launcher_s_group_and_leaves_it_after_the_driver_knows(
    tmp_path: Path, told: Told, backend: str, group: str, rank: int
) -> None:
    task = on_ranks(tmp_path, backend)
    train_rank(task, ADDRESS, None)
    assert told[:2] == [("rank", (ADDRESS, rank)), ("facts", {"device": "CPU"})]
    assert [kind for kind, _ in told[2:]] == ["say", "facts", "done", "closed"]
    assert told[2][1].startswith("epoch 1/1 step 18/18 loss ")
    assert told[3][1].keys() == {"rank", "device", "rows_per_second", "waiting_share"}
    assert told[-1] == ("closed", group)


def test_a_rank_goes_on_from_the_checkpoint_that_it_is_given(tmp_path: Path, told: Told) -> None:
    task = task_on(tmp_path, backend="horovod", num_workers=2)
    whole = train(task, LocalComm(), silent)
    told.clear()
    train_rank(task, ADDRESS, "step-000000018")
    lines = [said for kind, said in told if kind == "say"]
    assert [line.split(" loss")[0] for line in lines] == ["epoch 2/2 step 18/18"]
    assert losses_of(train(task, LocalComm(), silent, resume="step-000000036")) == losses_of(whole)


def test_a_rank_that_fails_tells_the_driver_how_and_ends_with_code_1(
    tmp_path: Path, told: Told, capfd: pytest.CaptureFixture[str]
) -> None:
    task = on_ranks(tmp_path, "horovod")
    Path(task.files["train"][2][0]).unlink()
    with pytest.raises(Ended) as ended:
        train_rank(task, ADDRESS, None)
    assert ended.value.args == (1,)
    kind, error = told[-1]
    assert (kind, type(error)) == ("failed", FileNotFoundError)
    assert "FileNotFoundError" in capfd.readouterr().err
    assert "done" not in dict(told)


def test_a_rank_whose_driver_is_gone_ends_all_the_same(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def cut_off() -> None:
        raise ConnectionError("no route to the others")

    monkeypatch.setattr(comm, "TorchComm", cut_off)
    with pytest.raises(Ended) as ended:
        train_rank(on_ranks(tmp_path, "torch_distributor"), ADDRESS, None)
    assert ended.value.args == (1,)
    assert "no route to the others" in capfd.readouterr().err
