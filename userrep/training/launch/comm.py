"""What the training loop knows of other ranks: how many there are, and how to take a mean over them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

import torch
from torch import Tensor

from userrep.errors import PeerLostError

_PATIENCE = timedelta(minutes=10)  # a rank that hangs is found much earlier, by its silence


class Comm(Protocol):
    """A group of ranks that call ``mean_`` in the same order with tensors of the same shape.

    ``device``: where this rank computes; ``place`` says it in words.
    """

    rank: int
    size: int
    device: torch.device
    place: str

    def mean_(self, tensor: Tensor) -> None:
        """Replace the tensor by its mean over ranks, in place; the same bits on every rank.

        Raises
        ------
        PeerLostError
            If another rank is gone.
        """

    def close(self) -> None:
        """Leave the group."""


class LocalComm:
    """One rank: a mean over one is what it was."""

    rank = 0
    size = 1

    def __init__(self) -> None:
        self.device, self.place = chosen_device([], 0)

    def mean_(self, tensor: Tensor) -> None:
        """Leave the tensor as it is."""

    def close(self) -> None:
        """Nobody waits for this rank."""


class HorovodComm:
    """The ranks of a Horovod job. Build it inside of a rank."""

    def __init__(self) -> None:
        import horovod.torch as hvd
        from horovod.common.exceptions import HorovodInternalError
        from horovod.spark.task import get_available_devices

        hvd.init()
        self._hvd, self._lost = hvd, HorovodInternalError
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        # The function runs in a child of the Spark task, without its context: Horovod hands the addresses on.
        assigned = list(get_available_devices())
        self.device, self.place = chosen_device(assigned, int(assigned[0]) if assigned else hvd.local_rank())
        self._over = self.device if self.device.type == "cuda" and hvd.nccl_built() else torch.device("cpu")

    def mean_(self, tensor: Tensor) -> None:
        """Take the mean by one allreduce: over GPU memory with NCCL, over host memory with Gloo."""
        with _moved(tensor, self._over) as moved:
            try:
                self._hvd.allreduce_(moved, op=self._hvd.Average, name="mean")
            except self._lost as error:
                raise PeerLostError(str(error)) from None

    def close(self) -> None:
        """Leave the job: ranks that still wait for this one stop waiting, and fail."""
        self._hvd.shutdown()


class TorchComm:
    """The ranks of a torch.distributed job, as the environment describes it. Build it inside of a rank."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self._dist = dist
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        self.device, self.place = chosen_device(visible, int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo", timeout=_PATIENCE)

    def mean_(self, tensor: Tensor) -> None:
        """Take the mean by one allreduce, with NCCL over GPUs, with Gloo over CPUs."""
        with _moved(tensor, self.device) as moved:
            try:
                self._dist.all_reduce(moved)
            except RuntimeError as error:  # all that Gloo and NCCL raise when a peer is gone
                raise PeerLostError(str(error).splitlines()[0]) from None
            moved.div_(self.size)

    def close(self) -> None:
        """Leave the group."""
        self._dist.destroy_process_group()


@contextmanager
def _moved(tensor: Tensor, device: torch.device) -> Iterator[Tensor]:
    """Give a tensor on a device, itself where it is there already, and bring what was made of it back."""
    moved = tensor.detach().to(device)
    yield moved
    if moved.data_ptr() != tensor.data_ptr():
        tensor.copy_(moved)


def chosen_device(assigned: Sequence[str], index: int) -> tuple[torch.device, str]:
    """Choose GPU ``index`` where torch has CUDA, else the CPU; say which, and what Spark had ``assigned``.

    A container may show fewer GPUs than the addresses count: then the index wraps around.
    """
    told = f", Spark assigned GPU {', '.join(assigned)}" if assigned else ""
    if not torch.cuda.is_available():
        return torch.device("cpu"), "CPU" + (f"{told}, but torch finds no CUDA" if assigned else "")
    device = torch.device("cuda", index % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device, f"{torch.cuda.get_device_name(device)} (cuda:{device.index}{told})"
