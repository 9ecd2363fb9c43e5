"""HF_TRAINER: the Trainer's own ways: one process, or DistributedDataParallel over the ranks."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import TrainingFailed, TrainingRefused, listed, shown
from ..hyperparameters import parse_hyperparameters
from ..job import Job
from .backend import distributed_backend
from .checking import check_once_begun, check_ranks

if TYPE_CHECKING:
    from ..run import Run

_STRATEGIES: Final = ("", "ddp", "none")
#: What `framework.distributed.config` may set.
_DISTRIBUTED: Final = (
    "ddp_find_unused_parameters",
    "ddp_bucket_cap_mb",
    "ddp_broadcast_buffers",
    "ddp_static_graph",
    "ddp_timeout",
)


class _HfTrainer:
    """One process, or one replica of the model in each rank."""

    def arguments(self, job: Job) -> Mapping[str, Any]:
        """Return the settings of DistributedDataParallel and of `framework.config`."""
        from transformers import TrainingArguments

        asked = job.framework
        if asked.strategy.lower() not in _STRATEGIES:
            raise TrainingRefused(
                f"framework.distributed.strategy: {shown(asked.strategy)} is nothing that"
                " HF_TRAINER does; use ddp, or the framework DEEPSPEED or FSDP"
            )
        unknown = [name for name in asked.distributed_config if name not in _DISTRIBUTED]
        if unknown:
            raise TrainingRefused(
                f"framework.distributed.config: {listed(unknown)} cannot be set; HF_TRAINER has"
                f" {', '.join(_DISTRIBUTED)}"
            )
        groups = {"arguments": TrainingArguments}
        own = parse_hyperparameters(asked.config, groups, where="framework.config")
        distributed = parse_hyperparameters(
            asked.distributed_config, groups, where="framework.distributed.config"
        )
        return {
            **own["arguments"],
            **distributed["arguments"],
            **distributed_backend(job),
        }

    def replicas(self, job: Job) -> int:
        """Return the number of processes: each has records of its own."""
        return job.world_size

    def trainer(self, run: "Run", **_: Any) -> None:
        """Return none: trl's trainers do it."""

    def resumed(self, job: Job, checkpoint: Path) -> Path:
        """Return the checkpoint: it is whole, whatever ranks there are."""
        return checkpoint

    def verify(self, trainer: Any) -> None:
        """Raise TrainingFailed unless there are as many replicas as ranks."""
        asked = check_ranks(trainer)
        kind = str(trainer.accelerator.distributed_type.value)
        if kind not in (("NO",) if asked == 1 else ("MULTI_CPU", "MULTI_GPU")):
            raise TrainingFailed(
                f"HF_TRAINER with {asked} rank(s) was asked for, and {kind} was set up"
            )
        if (gpus := trainer.args.n_gpu) > 1:
            raise TrainingFailed(
                f"one process holds {gpus} GPUs, which the Trainer would use by DataParallel; set"
                f" framework.distributed.world_size to {gpus}"
            )

        def check(wrapped: Any) -> None:
            from torch.nn.parallel import DistributedDataParallel

            if isinstance(wrapped, DistributedDataParallel) != (asked > 1):
                raise TrainingFailed(
                    f"HF_TRAINER with {asked} rank(s) was asked for, and"
                    f" {type(wrapped).__name__} was set up"
                )

        check_once_begun(trainer, check)


FRAMEWORK: Final = _HfTrainer()
