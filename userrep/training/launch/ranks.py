"""What runs in each rank of a distributed training, whatever launched it."""

import os
import sys
import traceback
from contextlib import suppress

from userrep.training.launch.lifeline import Address, RankLine
from userrep.training.task import TrainingTask

RANK_OF = {"horovod": "HOROVOD_RANK", "torch_distributor": "RANK"}  # the variable that each launcher sets


def train_rank(task: TrainingTask, address: Address, resume: str | None) -> None:
    """Train as one rank; the driver hears of progress and of the end by the lifeline, and reads the last checkpoint.

    A rank that fails says how and ends at once: launchers know an exit code, and their clean-up may wait for others.
    """
    backend = task.training.backend
    line = RankLine(address, int(os.environ[RANK_OF[backend]]))
    try:
        from userrep.training.launch.comm import HorovodComm, TorchComm
        from userrep.training.loop import train

        comm = HorovodComm() if backend == "horovod" else TorchComm()
        line.tell(device=comm.place)
        result = train(task, comm, line.say, resume=resume)
        line.tell(**result.ranks[0])
        line.done()
        comm.close()
    except BaseException as error:
        with suppress(OSError):  # the driver is gone
            line.failed(error)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
