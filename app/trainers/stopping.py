"""Being asked to leave: SIGTERM during training is answered by a checkpoint, else at once."""

import signal
from types import FrameType

from .errors import StopRequested


class StopSignal:
    """Whether the process was asked to leave. Made once, in the main thread."""

    def __init__(self) -> None:
        self.requested = False
        #: Set while there is something to save, so that the training loop looks at `requested`.
        self.deferred = False

    def install(self) -> None:
        """Take SIGTERM from now on."""
        signal.signal(signal.SIGTERM, self._requested)

    def _requested(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if not self.deferred:
            raise StopRequested


def agreed(requested: bool, group: object | None) -> bool:
    """Return whether any rank was asked to leave; each rank calls this at the same place.

    `group` is a process group that carries tensors of the CPU, None for a single process.
    """
    if group is None:
        return requested
    import torch
    import torch.distributed as dist

    flag = torch.tensor([int(requested)], dtype=torch.int32)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=group)
    return bool(flag.item())
