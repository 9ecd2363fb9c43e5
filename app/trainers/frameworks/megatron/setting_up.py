"""Makes a run's trainer by Megatron, and looks at what it is made of."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from trl import SFTConfig, pack_dataset

from ...errors import TrainingRefused
from ...job import Job
from ...run import Run
from .export import Exported
from .model import (
    build_model,
    check_weights,
    device,
    load_weights,
    set_up_groups,
    transformer_config,
)
from .optimizing import check_arguments
from .settings import check_fits, layout, megatron_settings
from .shape import model_shape
from .trainer import MegatronTrainer

log: Final = logging.getLogger(__name__)


@dataclass
class MegatronArguments(SFTConfig):
    """SFTConfig, whose processes are what divides the records of a step: replicas."""

    replicas: int = 1

    @property
    def world_size(self) -> int:
        """Replicas of the model: ranks that divide one see the same records."""
        return self.replicas


@dataclass(frozen=True, slots=True)
class _Source:
    """What all ranks need to know of the model that rank 0 has loaded."""

    config: Any
    #: Of the rotary positions.
    frequencies: torch.Tensor
    #: Rows of the embeddings.
    vocabulary: int
    dtype: torch.dtype
    #: How it generates.
    generation: Any


def build_trainer(
    run: Run, *, arguments: Mapping[str, Any], training: Any, validation: Any
) -> MegatronTrainer:
    """Return the trainer of a supervised run on tokens. Raises TrainingRefused."""
    settings = megatron_settings(run.job)
    ranks = layout(settings, run.job.world_size)
    args = MegatronArguments(**arguments, replicas=ranks.data)
    check_arguments(args)
    _begin_group(args, run.job)
    loaded = run.load_model() if run.job.is_main else None
    source = _shared(loaded)
    shape = model_shape(source.config, max_length=run.max_length, vocabulary=source.vocabulary)
    check_fits(shape, ranks)
    if source.dtype is torch.float16:
        raise TrainingRefused(
            "training_config.base_model.dtype: MEGATRON trains in bfloat16 or float32; the model is"
            " in float16. Set one of them"
        )
    dtype = torch.bfloat16 if args.bf16 or source.dtype is torch.bfloat16 else torch.float32
    set_up_groups(ranks, args.seed)
    config = transformer_config(
        shape, settings, dtype=dtype, recompute=bool(args.gradient_checkpointing)
    )
    model = build_model(shape, config, ranks, source.frequencies).to(device())
    check_weights(model, shape, ranks)
    load_weights(model, shape, ranks, loaded.state_dict() if loaded is not None else None)
    del loaded
    if run.job.is_main:
        log.info(
            "Megatron: %d rank(s) divide each layer, %d stage(s) divide the layers, %d replica(s)."
            " What is said of parameters and memory is of the first rank's part.",
            *(ranks.tensor, ranks.pipeline, ranks.data),
        )
    return MegatronTrainer(
        args=args,
        model=model,
        shape=shape,
        ranks=ranks,
        settings=settings,
        dtype=dtype,
        train_dataset=_packed(training, args, args.packing),
        eval_dataset=_packed(
            validation, args, args.packing if args.eval_packing is None else args.eval_packing
        ),
        processing_class=run.tokenizer,
        callbacks=[*run.callbacks],
        source=Exported(source.config, source.generation),
    )


def _begin_group(args: MegatronArguments, job: Job) -> None:
    """Have torch's process group, which the arguments set up over several ranks."""
    backend = args.ddp_backend or ("nccl" if args.device.type == "cuda" else "gloo")
    if not dist.is_initialized():
        dist.init_process_group(backend, rank=job.rank, world_size=job.world_size)


def _shared(model: Any) -> _Source:
    """Return in all ranks what rank 0 has loaded; the others give None."""
    found = None
    if model is not None:
        found = _Source(
            config=model.config,
            frequencies=model.model.rotary_emb.inv_freq.detach().cpu(),
            vocabulary=model.get_input_embeddings().num_embeddings,
            dtype=model.dtype,
            generation=model.generation_config,
        )
    box = [found]
    dist.broadcast_object_list(box, src=0)
    assert box[0] is not None
    return box[0]


def _packed(records: Any, args: MegatronArguments, packing: bool) -> Any:
    """Return records joined to full sequences, as trl joins them; the same in all ranks."""
    if records is None or not packing:
        return records
    return pack_dataset(records, args.max_length, args.packing_strategy)


def differences(trainer: MegatronTrainer) -> list[str]:
    """Return what of the set-up is not what was asked for."""
    asked = trainer.ranks
    set_up = {
        "tensor_model_parallel_size": (
            asked.tensor,
            parallel_state.get_tensor_model_parallel_world_size(),
        ),
        "pipeline_model_parallel_size": (
            asked.pipeline,
            parallel_state.get_pipeline_model_parallel_world_size(),
        ),
        "replicas": (asked.data, parallel_state.get_data_parallel_world_size()),
        "layers of a stage": (
            trainer.shape.layers // asked.pipeline,
            len(trainer.model.decoder.layers),
        ),
        "rows of an MLP's second half": (
            trainer.shape.intermediate // asked.tensor,
            trainer.model.decoder.layers[0].mlp.linear_fc2.weight.shape[1],
        ),
        "sequence_parallel": (
            trainer.settings.sequence_parallel,
            trainer.model.config.sequence_parallel,
        ),
        "use_distributed_optimizer": (
            trainer.settings.use_distributed_optimizer,
            all(isinstance(each, DistributedOptimizer) for each in _parts(trainer.optimizer)),
        ),
        "DistributedDataParallel": (True, isinstance(trainer.wrapped, DistributedDataParallel)),
    }
    wanted_backend = trainer.args.ddp_backend
    if wanted_backend:
        set_up["backend"] = (wanted_backend, dist.get_backend())
    return [
        f"{name} is {found}, and {wanted} was asked for"
        for name, (wanted, found) in set_up.items()
        if wanted != found
    ]


def _parts(optimizer: Any) -> list[Any]:
    return list(getattr(optimizer, "chained_optimizers", [optimizer]))
