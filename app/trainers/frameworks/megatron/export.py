"""A model of Megatron's in the layout of transformers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from .model import gathered_weights
from .settings import Layout
from .shape import ModelShape


@dataclass(frozen=True, slots=True)
class Exported:
    """What transformers needs to know of the model besides its weights: its configurations."""

    config: Any
    generation: Any


def save_pretrained(
    model: Any, shape: ModelShape, ranks: Layout, source: Exported, folder: Path
) -> None:
    """Write a model as transformers does. All ranks call it; rank 0 writes. Raises OSError."""
    tensors: dict[str, torch.Tensor] = {}
    for some in gathered_weights(model, shape, ranks):
        tensors |= some
    if dist.get_rank() == 0:
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            dtype = next(iter(tensors.values())).dtype
            whole = AutoModelForCausalLM.from_config(source.config, dtype=dtype)
        whole.generation_config = source.generation
        whole.save_pretrained(str(folder), state_dict=tensors)
    dist.barrier()
