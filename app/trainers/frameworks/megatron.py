"""MEGATRON: refused where it cannot run."""

from collections.abc import Mapping
from typing import Any, Final

from ..errors import TrainingRefused
from ..job import Job


class _Megatron:
    """Megatron-core's tensor and pipeline parallelism: for NVIDIA GPUs alone."""

    def arguments(self, job: Job) -> Mapping[str, Any]:
        """Raise TrainingRefused with the reason."""
        import torch

        if not torch.cuda.is_available():
            raise TrainingRefused(
                "framework.type: MEGATRON needs NVIDIA GPUs, and this machine has none: its kernels"
                " run on CUDA alone. Use HF_TRAINER, DEEPSPEED or FSDP"
            )
        raise TrainingRefused("framework.type: MEGATRON")

    def verify(self, trainer: Any) -> None:
        """Never called: `arguments` refuses."""


FRAMEWORK: Final = _Megatron()
