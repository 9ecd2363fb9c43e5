"""What `framework.config` may set of Megatron, by its own names, and how ranks are divided."""

from dataclasses import dataclass
from typing import Final

from ...errors import TrainingRefused, shown
from ...hyperparameters import parse_hyperparameters
from ...job import Job
from .shape import ModelShape

_STRATEGIES: Final = ("", "megatron", "none")


@dataclass
class MegatronSettings:
    """Names and defaults are those of Megatron-core's classes."""

    tensor_model_parallel_size: int = 1
    pipeline_model_parallel_size: int = 1
    #: Norms and residuals divided by tokens among the ranks that divide each layer.
    sequence_parallel: bool = False
    #: The optimizer's states divided among replicas.
    use_distributed_optimizer: bool = True
    grad_reduce_in_fp32: bool = True


#: Words that stand for the sizes in the arguments of Megatron-LM's scripts.
ALIASES: Final = {
    "tensor_parallel": "tensor_model_parallel_size",
    "tensor_parallel_size": "tensor_model_parallel_size",
    "tp": "tensor_model_parallel_size",
    "tp_degree": "tensor_model_parallel_size",
    "pipeline_parallel": "pipeline_model_parallel_size",
    "pipeline_parallel_size": "pipeline_model_parallel_size",
    "pp": "pipeline_model_parallel_size",
    "pp_degree": "pipeline_model_parallel_size",
}


#: Settings whose product divides the processes.
MODEL_PARALLEL: Final = ("tensor_model_parallel_size", "pipeline_model_parallel_size")


@dataclass(frozen=True, slots=True)
class Layout:
    """How many ranks divide what: their product is `world_size`."""

    #: Ranks that divide each layer.
    tensor: int
    #: Ranks that divide the layers.
    pipeline: int
    #: Replicas of the model, which divide the records of a step.
    data: int


def megatron_settings(job: Job) -> MegatronSettings:
    """Return what the job sets. Raises TrainingRefused."""
    if job.framework.strategy.lower() not in _STRATEGIES:
        raise TrainingRefused(
            f"framework.distributed.strategy: {shown(job.framework.strategy)} is nothing that"
            " MEGATRON does; leave it empty and set tensor_model_parallel_size and"
            " pipeline_model_parallel_size in framework.config"
        )
    values: dict[str, object] = {}
    for where, given in (
        ("framework.config", job.framework.config),
        ("framework.distributed.config", job.framework.distributed_config),
    ):
        plain: dict[str, str] = {}
        for name, text in given.items():
            if plain.setdefault(ALIASES.get(name, name), text) != text:
                raise TrainingRefused(f"{where}.{name}: is set twice; keep one")
        read = parse_hyperparameters(plain, {"megatron": MegatronSettings}, where=where)
        for name, value in read["megatron"].items():
            if values.setdefault(name, value) != value:
                raise TrainingRefused(
                    f"framework.config.{name} and framework.distributed.config.{name} differ; keep"
                    " one"
                )
    settings = MegatronSettings(**values)  # type: ignore[arg-type]
    if settings.sequence_parallel and settings.tensor_model_parallel_size == 1:
        raise TrainingRefused(
            "framework.config.sequence_parallel: needs tensor_model_parallel_size 2 or more: it is"
            " among the ranks that divide each layer"
        )
    return settings


def layout(settings: MegatronSettings, world_size: int) -> Layout:
    """Return how the ranks are divided. Raises TrainingRefused where they cannot be."""
    tensor, pipeline = (
        settings.tensor_model_parallel_size,
        settings.pipeline_model_parallel_size,
    )
    data, rest = divmod(world_size, tensor * pipeline)
    if rest or not data:
        raise TrainingRefused(
            f"framework.config: tensor_model_parallel_size {tensor} times"
            f" pipeline_model_parallel_size {pipeline} is {tensor * pipeline}, which does not"
            f" divide the {world_size} processes (framework.distributed.world_size)"
        )
    return Layout(tensor, pipeline, data)


def check_fits(shape: ModelShape, ranks: Layout) -> None:
    """Raise TrainingRefused unless the ranks divide the model evenly."""
    for what, count, name, size in (
        ("heads", shape.heads, "tensor_model_parallel_size", ranks.tensor),
        ("heads of keys and values", shape.groups, "tensor_model_parallel_size", ranks.tensor),
        ("rows of an MLP", shape.intermediate, "tensor_model_parallel_size", ranks.tensor),
        ("layers", shape.layers, "pipeline_model_parallel_size", ranks.pipeline),
    ):
        if count % size:
            raise TrainingRefused(
                f"framework.config.{name}: {size} does not divide the model's {count} {what}"
            )
