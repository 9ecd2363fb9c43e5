"""DEEPSPEED: ZeRO stages 1 to 3 over the ranks, through the Trainer's own integration.

The optimizer is the Trainer's, so that `optim` and the adapters' parameters are what they are
with other frameworks. On CPUs DeepSpeed would compile a shared-memory collective first, for
minutes: it is told to use gloo instead.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ..arguments import writing_directory
from ..errors import TrainingFailed, TrainingRefused, shown
from ..hyperparameters import parse_hyperparameters
from ..job import Job
from .backend import distributed_backend
from .checking import check_once_begun, check_ranks
from .resuming import other_ranks

if TYPE_CHECKING:
    from ..run import Run

_STAGES: Final = (1, 2, 3)
_STRATEGIES: Final = {
    "": None,
    "deepspeed": None,
    **{name.format(stage): stage for stage in _STAGES for name in ("zero{}", "zero_{}", "zero-{}")},
}
#: Keys of a DeepSpeed configuration that follow from the job's other fields.
_OTHERS: Final = {
    "train_batch_size": "data_config.batch_size",
    "train_micro_batch_size_per_gpu": "data_config.batch_size",
    "gradient_accumulation_steps": "data_config.gradient_accumulation_steps",
    "gradient_clipping": "hyperparameters.max_grad_norm",
    "optimizer": "hyperparameters.optim and learning_rate",
    "scheduler": "hyperparameters.lr_scheduler_type",
    "fp16": "hyperparameters.fp16",
    "bf16": "hyperparameters.bf16",
    "tensorboard": "the job's metrics",
    "wandb": "the job's metrics",
    "csv_monitor": "the job's metrics",
    "comet": "the job's metrics",
    "checkpoint": "output_config",
    "elasticity": "framework.distributed.world_size",
    "autotuning": "data_config.batch_size",
}
_ZERO: Final = "zero_optimization"
_RESUMED: Final = "resumed"


@dataclass
class ZeroSettings:
    """What `framework.config` may set; what is None is DeepSpeed's own default."""

    stage: int | None = None
    zero_stage: int | None = None
    offload_optimizer: Literal["none", "cpu"] = "none"
    offload_param: Literal["none", "cpu"] = "none"
    overlap_comm: bool | None = None
    contiguous_gradients: bool | None = None
    round_robin_gradients: bool | None = None
    reduce_bucket_size: int | None = None
    allgather_bucket_size: int | None = None
    sub_group_size: int | None = None
    stage3_prefetch_bucket_size: int | None = None
    stage3_param_persistence_threshold: int | None = None
    stage3_max_live_parameters: int | None = None
    stage3_max_reuse_distance: int | None = None
    #: A whole configuration of DeepSpeed, as JSON; the names above come on top of it.
    deepspeed_config: dict[str, Any] | None = None


class _DeepSpeed:
    """Optimizer states, gradients and parameters divided among the ranks."""

    def arguments(self, job: Job) -> Mapping[str, Any]:
        """Return the configuration of DeepSpeed."""
        config = zero_config(job)
        _import_deepspeed()
        if job.world_size == 1 and "RANK" not in os.environ:
            # DeepSpeed sets up a process group for one process, too; port 0 is any free one.
            os.environ.update(
                RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0"
            )
        return {"deepspeed": config, **distributed_backend(job)}

    def replicas(self, job: Job) -> int:
        """Return the number of processes: each has records of its own."""
        return job.world_size

    def trainer(self, run: "Run", **_: Any) -> None:
        """Return none: trl's trainers do it."""

    def resumed(self, job: Job, checkpoint: Path) -> Path:
        """Return the checkpoint, of another number of ranks a copy that is divided anew."""
        if not other_ranks(checkpoint, job.world_size):
            return checkpoint
        import torch.distributed as dist

        from .universal import universal_checkpoint

        # Beside the checkpoints, where all ranks of the disk see it; the next run removes it.
        folder = writing_directory(job) / _RESUMED
        if job.is_main_of_disk:
            universal_checkpoint(checkpoint, folder)
        dist.barrier()
        return folder

    def verify(self, trainer: Any) -> None:
        """Compare the ZeRO stage and the ranks, now and once DeepSpeed's engine is there."""
        kind = str(trainer.accelerator.distributed_type.value)
        if kind != "DEEPSPEED":
            raise TrainingFailed(f"DEEPSPEED was asked for, and {kind} was set up")
        asked = trainer.args.deepspeed[_ZERO]["stage"]
        check_ranks(trainer)

        def check(wrapped: Any) -> None:
            stage = getattr(wrapped, "zero_optimization_stage", lambda: None)()
            if stage != asked:
                raise TrainingFailed(
                    f"ZeRO stage {asked} was asked for, and DeepSpeed has set up"
                    f" {type(wrapped).__name__} with stage {stage}"
                )

        check_once_begun(trainer, check)


def zero_config(job: Job) -> dict[str, Any]:
    """Return DeepSpeed's configuration of a job. Raises TrainingRefused."""
    settings = _settings(job)
    config = dict(settings.deepspeed_config or {})
    for key, instead in _OTHERS.items():
        if config.get(key, "auto") != "auto":
            raise TrainingRefused(
                f"framework.config.deepspeed_config.{key}: it follows from {instead}; leave it out"
            )
    given = config.get(_ZERO, {})
    if not isinstance(given, dict):
        raise TrainingRefused(f"framework.config.deepspeed_config.{_ZERO}: must be an object")
    zero = {**given, "stage": _stage(job, settings, given.get("stage"))}
    if zero["stage"] < 3 and settings.offload_param != "none":
        raise TrainingRefused("framework.config.offload_param: needs stage 3")
    for part in ("offload_optimizer", "offload_param"):
        if (device := getattr(settings, part)) != "none":
            zero[part] = {"device": device}
    for name, value in vars(settings).items():
        if value is not None and name not in (
            *("stage", "zero_stage", "deepspeed_config", "offload_optimizer", "offload_param"),
        ):
            zero[name] = value
    if zero["stage"] == 3:
        # Without it a checkpoint's model would be the shapes of the parameters alone.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        **config,
        _ZERO: zero,
        "checkpoint": {"load_universal": other_ranks(job.resume_from, job.world_size)},
    }


def _settings(job: Job) -> ZeroSettings:
    both = dict(job.framework.config)
    for name, value in job.framework.distributed_config.items():
        if both.setdefault(name, value) != value:
            raise TrainingRefused(
                f"framework.config.{name} and framework.distributed.config.{name} differ; keep one"
            )
    groups = {"zero": ZeroSettings}
    return ZeroSettings(**parse_hyperparameters(both, groups, where="framework.config")["zero"])


def _stage(job: Job, settings: ZeroSettings, in_config: object) -> int:
    """Return the stage that all places agree on; 2 if none says."""
    strategy = job.framework.strategy.lower()
    if strategy not in _STRATEGIES:
        raise TrainingRefused(
            f"framework.distributed.strategy: {shown(job.framework.strategy)} is nothing that"
            " DEEPSPEED does; use zero1, zero2 or zero3"
        )
    given = {
        stage
        for stage in (settings.stage, settings.zero_stage, in_config, _STRATEGIES[strategy])
        if stage is not None
    }
    if len(given) > 1:
        raise TrainingRefused(
            f"framework.config: the ZeRO stages {', '.join(sorted(map(str, given)))} are named;"
            " keep one"
        )
    stage = given.pop() if given else 2
    if isinstance(stage, bool) or stage not in _STAGES:
        raise TrainingRefused(
            f"framework.config.stage: {shown(str(stage))} is no ZeRO stage; use 1, 2 or 3"
        )
    assert isinstance(stage, int)
    return stage


def _import_deepspeed() -> None:
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed
    except ImportError as error:
        raise TrainingRefused(
            f"framework.type: DEEPSPEED needs the package deepspeed in the trainers' environment"
            f" ({error})"
        ) from None
    if not torch.cuda.is_available():
        # DeepSpeed keeps edits to this table. Without the operation it uses torch's gloo.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


FRAMEWORK: Final = _DeepSpeed()
