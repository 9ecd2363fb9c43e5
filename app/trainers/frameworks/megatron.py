"""MEGATRON: refused, with the reason that holds on this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import TrainingRefused
from ..job import Job

_INSTEAD: Final = (
    "Use DEEPSPEED with stage 3 or FSDP, which divide a model among GPUs as well, or a script of"
    " your own (CUSTOM)"
)


class _Megatron:
    """Megatron-core trains models in a layout of its own, by kernels that run on CUDA alone."""

    def arguments(self, job: Job) -> Mapping[str, Any]:
        """Raise TrainingRefused."""
        import torch

        if not torch.cuda.is_available():
            raise TrainingRefused(
                "framework.type: MEGATRON needs NVIDIA GPUs, and this machine has none: its kernels"
                f" run on CUDA alone. {_INSTEAD}"
            )
        raise TrainingRefused(
            "framework.type: MEGATRON is not carried out by these trainers: they do not convert"
            f" models of transformers to Megatron's layout and back. {_INSTEAD}"
        )

    def resumed(self, job: Job, checkpoint: Path) -> Path:
        """Return the checkpoint: no run comes that far."""
        return checkpoint

    def verify(self, trainer: Any) -> None:
        """Do nothing: no run comes that far."""


FRAMEWORK: Final = _Megatron()
