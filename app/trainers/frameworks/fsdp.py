"""FSDP: parameters, gradients and optimizer states sharded over the ranks (FSDP2, `fully_shard`).

accelerate looks at FSDP only on accelerators: on CPUs it sets up plain DDP and says nothing.
Its own FSDP2 works there over gloo, so its state is told; whether the parameters really are
sharded is checked before the first step, on every machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ..errors import TrainingFailed, TrainingRefused, shown
from ..hyperparameters import parse_hyperparameters
from ..job import Job
from .backend import distributed_backend
from .checking import check_once_begun, check_ranks

if TYPE_CHECKING:
    from ..run import Run

#: Strategies, and whether parameters are gathered anew for the backward pass.
_STRATEGIES: Final = {
    "": None,
    "fsdp": None,
    "fsdp2": None,
    "full_shard": True,
    "shard_grad_op": False,
}


@dataclass
class FsdpSettings:
    """What `framework.config` may set, by the names of transformers' `fsdp_config`."""

    version: int = 2
    reshard_after_forward: bool | None = None
    cpu_offload: bool = False
    auto_wrap_policy: Literal["TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP"] = (
        "TRANSFORMER_BASED_WRAP"
    )
    transformer_layer_cls_to_wrap: list[str] | None = None
    min_num_params: int = 0
    activation_checkpointing: bool = False
    cpu_ram_efficient_loading: bool = False


class _Fsdp:
    """A shard of the model in each rank."""

    def arguments(self, job: Job) -> Mapping[str, Any]:
        """Return the settings of FSDP2."""
        config = fsdp_config(job)
        backend = distributed_backend(job)
        if backend.get("use_cpu"):
            if config.get("cpu_offload"):
                raise TrainingRefused("framework.config.cpu_offload: needs GPUs")
            _shard_on_cpus()
        return {"fsdp": True, "fsdp_config": config, **backend}

    def replicas(self, job: Job) -> int:
        """Return the number of processes: each has records of its own."""
        return job.world_size

    def trainer(self, run: "Run", **_: Any) -> None:
        """Return none: trl's trainers do it."""

    def resumed(self, job: Job, checkpoint: Path) -> Path:
        """Return the checkpoint: it is whole, whatever ranks there are."""
        return checkpoint

    def verify(self, trainer: Any) -> None:
        """Compare the ranks now, and once the model is wrapped, whether it is sharded."""
        check_ranks(trainer)
        kind = str(trainer.accelerator.distributed_type.value)
        if kind != "FSDP":
            raise TrainingFailed(f"FSDP was asked for, and {kind} was set up")
        check_once_begun(trainer, _check_sharded)


def fsdp_config(job: Job) -> dict[str, Any]:
    """Return transformers' `fsdp_config` of a job. Raises TrainingRefused."""
    if job.world_size < 2:
        raise TrainingRefused(
            "framework.type: FSDP shards the model over ranks and there is one; set"
            " framework.distributed.world_size to 2 or more"
        )
    strategy = job.framework.strategy.lower()
    if strategy not in _STRATEGIES:
        raise TrainingRefused(
            f"framework.distributed.strategy: {shown(job.framework.strategy)} is nothing that FSDP2"
            " does; use full_shard or shard_grad_op"
        )
    config: dict[str, Any] = {}
    for where, given in (
        ("framework.config", job.framework.config),
        ("framework.distributed.config", job.framework.distributed_config),
    ):
        # accelerate's names have a prefix.
        plain = {name.removeprefix("fsdp_"): value for name, value in given.items()}
        read = parse_hyperparameters(plain, {"fsdp": FsdpSettings}, where=where)["fsdp"]
        for name, value in read.items():
            if config.setdefault(name, value) != value:
                raise TrainingRefused(
                    f"framework.config.{name} and framework.distributed.config.{name} differ; keep"
                    " one"
                )
    if config.setdefault("version", 2) != 2:
        raise TrainingRefused("framework.config.version: must be 2; FSDP1 is deprecated")
    if (reshard := _STRATEGIES[strategy]) is not None and (
        config.setdefault("reshard_after_forward", reshard) != reshard
    ):
        raise TrainingRefused(
            f"framework.config.reshard_after_forward: contradicts the strategy {strategy}"
        )
    # A checkpoint has to be readable with another world_size, and by transformers.
    config["state_dict_type"] = "FULL_STATE_DICT"
    return config


def _shard_on_cpus() -> None:
    """Have accelerate use its FSDP plugin on CPUs as it does on accelerators."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    set_up = AcceleratorState.__init__

    def set_up_sharding(state: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        set_up(state, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is None or state.distributed_type != DistributedType.MULTI_CPU:
            return
        if state._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(state._mixed_precision)
        state.fsdp_plugin = fsdp_plugin
        state.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    if set_up.__name__ != set_up_sharding.__name__:
        AcceleratorState.__init__ = set_up_sharding


def _check_sharded(wrapped: Any) -> None:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    whole = [name for name, each in wrapped.named_parameters() if not isinstance(each, DTensor)]
    if not isinstance(wrapped, FSDPModule) or whole:
        which = f", where {whole[0]} is whole on each rank" if whole else ""
        raise TrainingFailed(f"FSDP was asked for, and {type(wrapped).__name__} was set up{which}")


FRAMEWORK: Final = _Fsdp()
