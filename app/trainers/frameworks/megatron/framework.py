"""MEGATRON: layers divided among ranks (tensor parallel), or among stages (pipeline parallel).

The training types that learn from tokens are carried out by a loop of Megatron-core's parts; the
rest of a run is that of every framework.
"""

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...errors import TrainingFailed, TrainingRefused, listed, shown
from ...hyperparameters import parse_hyperparameters
from ...job import Job
from ...model import load_config
from ..backend import distributed_backend
from .machine import check_machine, check_package
from .settings import check_fits, layout, megatron_settings
from .shape import model_shape

if TYPE_CHECKING:
    from ...run import Run

TRAINING_TYPES: Final = ("CONTINUED_PRETRAIN", "FULL_FINETUNE", "SFT")
#: Hyperparameters that the loop heeds.
HEEDED: Final = frozenset(
    {
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "assistant_only_loss",
        "bf16",
        "completion_only_loss",
        "data_seed",
        "eval_on_start",
        "eval_packing",
        "eval_steps",
        "eval_strategy",
        "gradient_accumulation_steps",
        "gradient_checkpointing",
        "learning_rate",
        "logging_first_step",
        "logging_steps",
        "logging_strategy",
        "lr_scheduler_kwargs",
        "lr_scheduler_type",
        "max_grad_norm",
        "max_length",
        "max_steps",
        "num_train_epochs",
        "optim",
        "packing",
        "packing_strategy",
        "pad_to_multiple_of",
        "per_device_eval_batch_size",
        "per_device_train_batch_size",
        "save_steps",
        "save_strategy",
        "seed",
        "warmup_steps",
        "weight_decay",
    }
)


class _Megatron:
    """Megatron-core: a part of each layer, or some of the layers, in each rank."""

    def arguments(self, job: Job) -> Mapping[str, Any]:
        """Return what torch's process group needs, once the job and the machine are looked at."""
        if job.training_type not in TRAINING_TYPES:
            raise TrainingRefused(
                f"framework.type: MEGATRON does not do {job.training_type}, only"
                f" {', '.join(TRAINING_TYPES)}; use HF_TRAINER, DEEPSPEED or FSDP"
            )
        ranks = layout(megatron_settings(job), job.world_size)
        _check_hyperparameters(job)
        config = load_config(job.base_model)
        length = job.data.max_seq_length or getattr(config, "max_position_embeddings", 0)
        check_fits(model_shape(config, max_length=length), ranks)
        check_machine()
        check_package()
        # Megatron's order of kernels on a GPU, so that collectives overlap with them.
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
        if job.world_size == 1 and "RANK" not in os.environ:
            # Megatron divides among ranks of a process group, also where there is one.
            os.environ.update(
                RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0"
            )
        return distributed_backend(job)

    def replicas(self, job: Job) -> int:
        """Return how many replicas of the model there are: each takes several ranks."""
        return layout(megatron_settings(job), job.world_size).data

    def trainer(
        self, run: "Run", *, arguments: Mapping[str, Any], training: Any, validation: Any
    ) -> Any:
        """Return the loop of Megatron's parts."""
        from .setting_up import build_trainer

        return build_trainer(run, arguments=arguments, training=training, validation=validation)

    def resumed(self, job: Job, checkpoint: Path) -> Path:
        """Return the checkpoint: its parts are read by any number of ranks."""
        from .checkpointing import FOLDER

        if not (checkpoint / FOLDER).is_dir():
            raise TrainingRefused(
                f"the checkpoint {shown(checkpoint.name)} cannot be resumed: another framework than"
                " MEGATRON wrote it. To train on from its weights name it as the base model instead"
            )
        return checkpoint

    def verify(self, trainer: Any) -> None:
        """Compare the groups of ranks, the parts of the model and the optimizer."""
        from .setting_up import differences

        if found := differences(trainer):
            raise TrainingFailed(f"MEGATRON has set up something else: {listed(found)}")


def _check_hyperparameters(job: Job) -> None:
    """Raise TrainingRefused for one that the loop would not heed."""
    from trl import SFTConfig

    given = parse_hyperparameters(job.hyperparameters, {"arguments": SFTConfig})["arguments"]
    defaults = {field.name: field.default for field in fields(SFTConfig)}
    unheeded = [name for name in given if name not in HEEDED and given[name] != defaults.get(name)]
    if unheeded:
        raise TrainingRefused(
            f"training_config.hyperparameters: MEGATRON does not heed {listed(sorted(unheeded))};"
            " leave out what it does not, or use HF_TRAINER, DEEPSPEED or FSDP"
        )


FRAMEWORK: Final = _Megatron()
