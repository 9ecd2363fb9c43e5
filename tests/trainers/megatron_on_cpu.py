"""Starts the trainers with Megatron-core on CPUs, which it was not made for: tests alone use it.

    SCAIMIND_TEST_PROGRAM=<folder with scaimind_trainers> python megatron_on_cpu.py

Megatron-core names the device `cuda` wherever it makes a tensor. Here that name means the CPU, and
the trainers' look at the machine is left out; the rest is what runs on GPUs: Megatron's layers,
its groups of ranks (over gloo), schedules, optimizer and checkpoints. What is not tried: CUDA's
kernels, streams and nccl.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _Cpu(TorchFunctionMode):  # type: ignore[misc]
    """Makes tensors on the CPU that are asked for on a GPU."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if str(kwargs.get("device", "")).startswith("cuda"):
            kwargs["device"] = "cpu"
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.type and len(args) == 1 and not kwargs:
            # Megatron's optimizer tells what it may train by this name.
            return func(*args).replace("torch.", "torch.cuda.")
        return func(*args, **kwargs)


def megatron_on_cpus() -> TorchFunctionMode:
    """Return the context in which Megatron-core runs on CPUs; the first of its kind stays."""
    torch.cuda.current_device = lambda: "cpu"
    torch.cuda.synchronize = lambda *_: None
    # Nothing is drawn: the models have no dropout. Each is its own function, since torch keeps a
    # rule for each.
    torch.cuda.manual_seed = lambda _: None
    torch.cuda.get_rng_state = lambda *_, **__: torch.zeros(0)
    torch.cuda.random.get_rng_state = lambda *_, **__: torch.zeros(0)
    from megatron.core.tensor_parallel import random

    random._set_cuda_rng_state = lambda *_, **__: None
    return _Cpu()


def main() -> int:
    """Train the job of the environment."""
    sys.path.insert(0, os.environ["SCAIMIND_TEST_PROGRAM"])
    from scaimind_trainers.__main__ import main as train  # type: ignore[import-not-found]
    from scaimind_trainers.frameworks.megatron import framework  # type: ignore[import-not-found]

    framework.check_machine = lambda: None
    with megatron_on_cpus():
        return int(train())


if __name__ == "__main__":
    sys.exit(main())
