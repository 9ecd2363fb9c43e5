"""What the machine has to have."""

from importlib.util import find_spec

from ...errors import TrainingRefused


def check_machine() -> None:
    """Raise TrainingRefused unless there are GPUs: Megatron-core asks CUDA for its devices
    wherever it makes a tensor, and its collectives are nccl's."""
    import torch

    if not torch.cuda.is_available():
        raise TrainingRefused(
            "framework.type: MEGATRON needs NVIDIA GPUs, and this machine has none, or the job"
            " asked for none (resource_config.gpu_count). Use DEEPSPEED with stage 3 or FSDP, which"
            " divide a model among processes without GPUs as well"
        )


def check_package() -> None:
    """Raise TrainingRefused unless the environment has megatron-core."""
    if find_spec("megatron") is None or find_spec("megatron.core") is None:
        raise TrainingRefused(
            "framework.type: MEGATRON needs the package megatron-core in the trainers' environment;"
            " its operator adds it by: scripts/venv train --with-megatron"
        )
