"""How many processes a run has, and how each finds its place among them.

A run over several nodes has a process on each of them, as with Slurm's `srun`
or a PyTorchJob, so that a script written for those runs here, also over virtual
nodes; `framework.distributed.world_size` asks for more, spread evenly. Each
finds the variables that `torch.distributed` reads; where rank 0 listens is the
engine's. A single process gets none of them: frameworks take them as an order
to set up a group, and it may start its own with `torchrun`. The ranks share the
job's log, each line with its rank. A rank that fails ends the others, which
would wait for it forever.
"""

from app.coordinator.engines.engine import RankSpec
from app.coordinator.jobs.model import JobRecord


def ranks_of(job: JobRecord) -> tuple[RankSpec, ...]:
    """Return the ranks of a job's run, by number."""
    nodes = len(job.placement)
    asked = job.submission.training_config.framework.distributed.world_size
    size = asked or nodes
    local_size = max(size // nodes, 1)
    if size == 1:
        return (RankSpec(job.placement[0].node_id, job.placement[0].gpus, {}),)
    return tuple(
        RankSpec(
            allocation.node_id,
            allocation.gpus,
            {
                "RANK": str(node_rank * local_size + local_rank),
                "WORLD_SIZE": str(nodes * local_size),
                "LOCAL_RANK": str(local_rank),
                "LOCAL_WORLD_SIZE": str(local_size),
                "NODE_RANK": str(node_rank),
            },
        )
        for node_rank, allocation in enumerate(job.placement)
        for local_rank in range(local_size)
    )
