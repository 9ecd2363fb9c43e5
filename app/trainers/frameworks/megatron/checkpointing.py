"""Checkpoints of Megatron: each rank writes its parts, in a form that other layouts can read."""

from pathlib import Path
from typing import Any, Final

import torch.distributed as dist
from megatron.core import dist_checkpointing

#: In a checkpoint: the folder with the ranks' parts.
FOLDER: Final = "megatron"
#: Whatever divided the optimizer's states when they were written.
_METADATA: Final = {"distrib_optim_sharding_type": "fully_reshardable"}


def save_state(folder: Path, model: Any, optimizer: Any) -> None:
    """Write weights and the optimizer's states below a checkpoint's folder. All ranks call it.

    Raises OSError.
    """
    place = folder / FOLDER
    if dist.get_rank() == 0:
        place.mkdir(parents=True)
    dist.barrier()
    dist_checkpointing.save(_state(model, optimizer), str(place), content_metadata=_METADATA)
    dist.barrier()


def _state(model: Any, optimizer: Any) -> dict[str, Any]:
    weights = model.sharded_state_dict(metadata=_METADATA)
    return {
        "model": weights,
        "optimizer": optimizer.sharded_state_dict(weights, is_loading=False, metadata=_METADATA),
    }
