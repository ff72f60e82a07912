"""Groups of ranks: the device of a rank, and means over ranks."""

import socket
from collections.abc import Iterator

import pytest
import torch

from userrep.errors import PeerLostError
from userrep.training.launch.comm import LocalComm, TorchComm, _moved, choose_device

pytestmark = pytest.mark.fast


def test_a_rank_takes_the_gpu_that_spark_assigned_or_the_cpu_and_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device([], 0) == (torch.device("cpu"), "CPU")
    assert choose_device(["3"], 3) == (torch.device("cpu"), "CPU, Spark assigned GPU 3, but torch finds no CUDA")
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    assert choose_device(["3"], 3) == (torch.device("cuda", 3), "H100 (cuda:3, Spark assigned GPU 3)")
    assert choose_device(["6"], 6)[0] == torch.device("cuda", 2)  # a container that shows four
    assert chosen == [torch.device("cuda", 3), torch.device("cuda", 2)]


def test_the_mean_over_one_rank_is_the_tensor_itself() -> None:
    comm, tensor = LocalComm(), torch.tensor([1.0, float("nan")])
    comm.mean_(tensor)
    assert (comm.rank, comm.size, comm.device, comm.device_name) == (0, 1, torch.device("cpu"), "CPU")
    assert tensor[0] == 1
    assert tensor[1].isnan()


def test_changes_of_a_moved_tensor_reach_the_original() -> None:
    tensor = torch.ones(3, requires_grad=True)
    with _moved(tensor, torch.device("cpu")) as moved:
        assert moved.data_ptr() == tensor.data_ptr()  # where it is already, it is not copied
        moved.mul_(5)
    assert tensor.tolist() == [5, 5, 5]

    class Elsewhere(torch.Tensor):
        """A tensor that behaves as if it were on another device."""

        def detach(self) -> torch.Tensor:
            return super().detach().as_subclass(torch.Tensor).clone()

    away = torch.ones(3).as_subclass(Elsewhere)
    with _moved(away, torch.device("cpu")) as moved:
        moved.mul_(7)
        assert away.tolist() == [1, 1, 1]
    assert away.tolist() == [7, 7, 7]


@pytest.fixture
def comm(monkeypatch: pytest.MonkeyPatch) -> Iterator[TorchComm]:
    """Create a group of one rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    facts = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "0"}
    for name, value in facts.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    comm = TorchComm()
    yield comm
    comm.close()


def test_a_sum_over_a_torch_group_is_divided_by_its_size(comm: TorchComm, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (comm.rank, comm.size, comm.device_name) == (0, 1, "CPU")
    tensor = torch.tensor([2.0, 4.0])
    comm.mean_(tensor)
    assert tensor.tolist() == [2, 4]
    comm.size = 4  # as if the sum were that of four ranks
    comm.mean_(tensor)
    assert tensor.tolist() == [0.5, 1]


def test_a_lost_peer_raises_a_one_line_error(comm: TorchComm, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_reduce(tensor: torch.Tensor) -> None:
        raise RuntimeError("Connection closed by peer [10.0.0.7]:999\nException raised from ...\nframe #0")

    monkeypatch.setattr(comm._dist, "all_reduce", all_reduce)
    with pytest.raises(PeerLostError, match=r"^Connection closed by peer \[10\.0\.0\.7\]:999$"):
        comm.mean_(torch.ones(1))
