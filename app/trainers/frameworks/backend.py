"""What ranks talk over."""

import logging
from typing import Any, Final

from ..errors import TrainingRefused, did_you_mean, shown
from ..job import Job

log: Final = logging.getLogger(__name__)

_BACKENDS: Final = ("nccl", "gloo")


def distributed_backend(job: Job) -> dict[str, Any]:
    """Return the keywords of TrainingArguments for `framework.distributed.backend`.

    `nccl`, the contract's default, is for GPUs: without them `gloo` takes its place.
    Raises TrainingRefused.
    """
    import torch

    asked = job.framework.backend.lower()
    if asked and asked not in _BACKENDS:
        raise TrainingRefused(
            f"framework.distributed.backend: {shown(asked)} is not known"
            f"{did_you_mean(asked, _BACKENDS)}; use nccl with GPUs and gloo without"
        )
    if torch.cuda.is_available():
        return {"ddp_backend": asked or "nccl"} if job.world_size > 1 else {}
    if job.world_size == 1:
        return {"use_cpu": True}
    if asked == "nccl" and job.is_main:
        log.info("The ranks talk over gloo: nccl is for GPUs, and there are none.")
    return {"use_cpu": True, "ddp_backend": "gloo"}
