"""Checkpoints of Megatron: each rank writes its parts, in a form that other layouts can read."""

from pathlib import Path
from typing import Any, Final

import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies import filesystem_async

from .optimizing import begin_states, load_optimizer

#: In a checkpoint: the folder with the ranks' parts.
FOLDER: Final = "megatron"
#: Whatever divided the optimizer's states when they were written.
_METADATA: Final = {"distrib_optim_sharding_type": "fully_reshardable"}


def save_state(folder: Path, model: Any, optimizer: Any) -> None:
    """Write weights and the optimizer's states below a checkpoint's folder. All ranks call it.

    Raises OSError.
    """
    place = folder / FOLDER
    # Each node may have a disk of its own.
    place.mkdir(parents=True, exist_ok=True)
    dist.barrier()
    dist_checkpointing.save(
        _state(model, optimizer, loading=False), str(place), content_metadata=_METADATA
    )
    _end_manager()
    dist.barrier()


def _end_manager() -> None:
    """End the process that Megatron's writers report to; it would outlive a run that ends by
    `os._exit`."""
    queue, filesystem_async._results_queue = filesystem_async._results_queue, None
    if queue is not None:
        queue._manager.shutdown()


def load_state(folder: Path, model: Any, optimizer: Any) -> None:
    """Read what `save_state` wrote, with this or another number of ranks. All ranks call it."""
    begin_states(optimizer)
    state = dist_checkpointing.load(_state(model, optimizer, loading=True), str(folder / FOLDER))
    model.load_state_dict(state["model"])
    load_optimizer(optimizer, state["optimizer"])


def _state(model: Any, optimizer: Any, *, loading: bool) -> dict[str, Any]:
    weights = model.sharded_state_dict(metadata=_METADATA)
    return {
        "model": weights,
        "optimizer": optimizer.sharded_state_dict(weights, is_loading=loading, metadata=_METADATA),
    }
