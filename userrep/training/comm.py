"""What the training loop knows of other ranks: how many there are, and how to take a mean over them."""

from typing import Protocol

from torch import Tensor


class Comm(Protocol):
    """A group of ranks that call ``mean_`` in the same order with tensors of the same shape."""

    rank: int
    size: int

    def mean_(self, tensor: Tensor) -> None:
        """Replace the tensor by its mean over ranks, in place; the same bits on every rank."""


class LocalComm:
    """One rank: a mean over one is what it was."""

    rank = 0
    size = 1

    def mean_(self, tensor: Tensor) -> None:
        """Leave the tensor as it is."""


class HorovodComm:
    """The ranks of a Horovod job. Build it inside of a rank."""

    def __init__(self) -> None:
        import horovod.torch as hvd

        hvd.init()
        self._hvd = hvd
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()

    def mean_(self, tensor: Tensor) -> None:
        """Take the mean by one allreduce, over host memory: that is where Gloo works."""
        host = tensor.detach().cpu()
        self._hvd.allreduce_(host, op=self._hvd.Average, name="mean")
        if host is not tensor:
            tensor.copy_(host)

    def close(self) -> None:
        """Leave the job: ranks that still wait for this one stop waiting, and fail."""
        self._hvd.shutdown()
