"""How many processes a run has, and what each is told of the others.

A run over several nodes has a process on each of them, as with Slurm's `srun`
or a PyTorchJob; `framework.distributed.world_size` asks for more of them, spread
evenly. Each finds the variables that `torch.distributed` reads. A single
process is told nothing of ranks: it may start its own with `torchrun`.
"""

import socket
from dataclasses import dataclass

from app.coordinator.jobs.model import JobRecord


@dataclass(frozen=True, slots=True)
class RankPlace:
    """Where a rank runs, and what it is told."""

    node_id: str
    #: GPUs of its node that the job holds; all ranks of a node share them.
    gpus: tuple[int, ...]
    environment: dict[str, str]


def places_of(job: JobRecord) -> list[RankPlace]:
    """The ranks of a job's run, by number."""
    nodes = len(job.placement)
    asked = job.submission.training_config.framework.distributed.world_size
    size = asked or nodes
    local_size = max(size // nodes, 1)
    if size == 1:
        return [RankPlace(job.placement[0].node_id, job.placement[0].gpus, {})]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    return [
        RankPlace(
            allocation.node_id,
            allocation.gpus,
            {
                "RANK": str(node_rank * local_size + local_rank),
                "WORLD_SIZE": str(nodes * local_size),
                "LOCAL_RANK": str(local_rank),
                "LOCAL_WORLD_SIZE": str(local_size),
                "NODE_RANK": str(node_rank),
                **meeting,
            },
        )
        for node_rank, allocation in enumerate(job.placement)
        for local_rank in range(local_size)
    ]


def _free_port() -> int:
    """A port on which rank 0 can listen: nobody did a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
