"""What was asked of a framework, compared with what it has set up."""

import os
from collections.abc import Callable
from typing import Any

from ..errors import TrainingFailed


def check_ranks(trainer: Any) -> int:
    """Return how many ranks the run has. Raises TrainingFailed unless the trainer has as many,
    over the backend that was asked for."""
    import torch.distributed as dist

    asked = int(os.environ.get("WORLD_SIZE") or 1)
    if trainer.args.world_size != asked:
        raise TrainingFailed(
            f"{asked} ranks were asked for and {trainer.args.world_size} were set up"
        )
    wanted = trainer.args.ddp_backend
    if wanted and dist.is_available() and dist.is_initialized() and wanted != dist.get_backend():
        raise TrainingFailed(
            f"the backend {wanted} was asked for, and {dist.get_backend()} was set up"
        )
    return asked


def check_once_begun(trainer: Any, check: Callable[[Any], None]) -> None:
    """Have `check` called with the model as the framework has wrapped it, before the first step.

    Frameworks wrap the model when training begins. What it raises ends the training.
    """
    from transformers import TrainerCallback

    class Check(TrainerCallback):
        def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
            check(trainer.model_wrapped)

    trainer.add_callback(Check())
