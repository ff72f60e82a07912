"""Communication between ranks: their number, and the mean of a tensor over all of them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

import torch
from torch import Tensor

from userrep.errors import PeerLostError, first_line

_TIMEOUT = timedelta(minutes=10)  # of a collective call, after which ranks stop waiting for one that hangs


class Comm(Protocol):
    """A group of ranks. All of them must call ``mean_`` in the same order with tensors of the same shape.

    ``device``: the device this rank computes on. ``device_name``: its description for log lines.
    """

    rank: int
    size: int
    device: torch.device
    device_name: str

    def mean_(self, tensor: Tensor) -> None:
        """Replace the tensor by its mean over all ranks, in place. The result has the same bits on every rank.

        Raises
        ------
        PeerLostError
            If another rank has ended or is unreachable.
        """


class LocalComm:
    """A group of one rank, in which every mean is the tensor itself."""

    rank = 0
    size = 1

    def __init__(self) -> None:
        self.device, self.device_name = choose_device([], 0)

    def mean_(self, tensor: Tensor) -> None:
        """Leave the tensor unchanged."""


class HorovodComm:
    """The ranks of a Horovod job. Create it inside a rank's process."""

    def __init__(self) -> None:
        import horovod.torch as hvd
        from horovod.common.exceptions import HorovodInternalError
        from horovod.spark.task import get_available_devices

        hvd.init()
        self._hvd, self._peer_error = hvd, HorovodInternalError
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        # This process is a child of the Spark task and has no TaskContext. Horovod passes the GPU addresses on.
        assigned = list(get_available_devices())
        self.device, self.device_name = choose_device(assigned, int(assigned[0]) if assigned else hvd.local_rank())
        self._reduce_on = self.device if self.device.type == "cuda" and hvd.nccl_built() else torch.device("cpu")

    def mean_(self, tensor: Tensor) -> None:
        """Take the mean with one allreduce: in GPU memory with NCCL, in host memory with Gloo."""
        with _moved(tensor, self._reduce_on) as moved:
            try:
                self._hvd.allreduce_(moved, op=self._hvd.Average, name="mean")
            except self._peer_error as error:
                raise PeerLostError(str(error)) from None

    def close(self) -> None:
        """Leave the job. Ranks that still wait for this one fail."""
        self._hvd.shutdown()


class TorchComm:
    """The ranks of a torch.distributed job, read from its environment variables. Create it inside a rank's process."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self._dist = dist
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        self.device, self.device_name = choose_device(visible, int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo", timeout=_TIMEOUT)

    def mean_(self, tensor: Tensor) -> None:
        """Take the mean with one allreduce: NCCL on GPUs, Gloo on CPUs."""
        with _moved(tensor, self.device) as moved:
            try:
                self._dist.all_reduce(moved)
            except RuntimeError as error:  # Gloo and NCCL raise nothing more specific for a lost peer
                raise PeerLostError(first_line(error)) from None
            moved.div_(self.size)

    def close(self) -> None:
        """Leave the group."""
        self._dist.destroy_process_group()


@contextmanager
def _moved(tensor: Tensor, device: torch.device) -> Iterator[Tensor]:
    """Provide the tensor on a device, and copy the result back on exit. No copy if it is on that device already."""
    moved = tensor.detach().to(device)
    yield moved
    if moved.data_ptr() != tensor.data_ptr():
        tensor.copy_(moved)


def choose_device(assigned: Sequence[str], index: int) -> tuple[torch.device, str]:
    """Choose GPU ``index`` if torch has CUDA, else the CPU.

    The index wraps around, since a container may show fewer GPUs than Spark's addresses count.

    Returns
    -------
    The device, and its description with the GPU addresses that Spark ``assigned``.
    """
    by_spark = f", Spark assigned GPU {', '.join(assigned)}" if assigned else ""
    if not torch.cuda.is_available():
        return torch.device("cpu"), "CPU" + (f"{by_spark}, but torch finds no CUDA" if assigned else "")
    device = torch.device("cuda", index % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device, f"{torch.cuda.get_device_name(device)} (cuda:{device.index}{by_spark})"
