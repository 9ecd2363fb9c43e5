"""The model as Megatron-core has it: a GPTModel with the weights of a model of transformers."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules

from ...errors import TrainingFailed
from .layers import CoreAttention, RMSNorm
from .settings import Layout, MegatronSettings
from .shape import ModelShape
from .weights import Division, Weight, combined, joined, part, separated, stage_weights

#: What a state dict of Megatron holds beside weights.
_EXTRA: Final = "_extra_state"


def device() -> torch.device:
    """Return where this rank computes."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def set_up_groups(ranks: Layout, seed: int) -> None:
    """Make the process groups of Megatron, and seed its numbers; torch's own group is there."""
    parallel_state.initialize_model_parallel(
        ranks.tensor, ranks.pipeline, create_gloo_process_groups=False
    )
    model_parallel_cuda_manual_seed(seed)


def transformer_config(
    shape: ModelShape, settings: MegatronSettings, *, dtype: torch.dtype, recompute: bool
) -> TransformerConfig:
    """Return Megatron's configuration of a model."""
    half = dtype is torch.bfloat16
    return TransformerConfig(
        num_layers=shape.layers,
        hidden_size=shape.hidden,
        ffn_hidden_size=shape.intermediate,
        num_attention_heads=shape.heads,
        num_query_groups=shape.groups,
        kv_channels=shape.head,
        normalization="RMSNorm",
        layernorm_epsilon=shape.epsilon,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        add_qkv_bias=shape.qkv_bias,
        qk_layernorm=shape.qk_norm,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=settings.tensor_model_parallel_size,
        pipeline_model_parallel_size=settings.pipeline_model_parallel_size,
        sequence_parallel=settings.sequence_parallel,
        params_dtype=dtype,
        bf16=half,
        pipeline_dtype=dtype,
        autocast_dtype=dtype,
        # The weights come from a model: none is to be drawn.
        perform_initialization=False,
        use_cpu_initialization=True,
        # A step's loss is the mean of its tokens, whatever records they are of.
        calculate_per_token_loss=True,
        # Fused kernels are of packages that are not needed.
        masked_softmax_fusion=False,
        bias_dropout_fusion=False,
        bias_activation_fusion=False,
        apply_rope_fusion=False,
        gradient_accumulation_fusion=False,
        recompute_granularity="full" if recompute else None,
        recompute_method="uniform" if recompute else None,
        recompute_num_layers=1 if recompute else None,
    )


def build_model(
    shape: ModelShape, config: TransformerConfig, ranks: Layout, frequencies: torch.Tensor
) -> GPTModel:
    """Return this rank's part of a model, without its weights, on the CPU.

    `frequencies` are those of the rotary positions, as transformers computes them.
    """
    layer = get_gpt_layer_local_spec(normalization="RMSNorm", qk_layernorm=shape.qk_norm)
    attention = layer.submodules.self_attention.submodules
    attention.core_attention = CoreAttention
    layer.submodules.input_layernorm = layer.submodules.pre_mlp_layernorm = RMSNorm
    if shape.qk_norm:
        attention.q_layernorm = attention.k_layernorm = RMSNorm
    spec = TransformerBlockSubmodules([layer] * (shape.layers // ranks.pipeline), RMSNorm)
    model = GPTModel(
        config,
        spec,
        vocab_size=shape.padded_vocabulary(ranks.tensor),
        max_sequence_length=shape.positions,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        position_embedding_type="rope",
        share_embeddings_and_output_weights=shape.tied,
    )
    model.rotary_pos_emb.inv_freq = frequencies.detach().float().cpu()
    _mark_divided(model, shape, ranks)
    return model


def _mark_divided(model: GPTModel, shape: ModelShape, ranks: Layout) -> None:
    """Have Megatron know which parameters ranks divide, so that the norm of gradients is of all.

    It marks them itself only where it also draws their first values.
    """
    parameters = dict(model.named_parameters())
    for weight in own_weights(shape, ranks):
        if weight.division is not Division.NONE and weight.name in parameters:
            parameter = parameters[weight.name]
            dimension = int(weight.division is Division.COLUMNS)
            for name in ("tensor_model_parallel", "partition_dim", "partition_stride"):
                if hasattr(parameter, name):
                    delattr(parameter, name)
            set_tensor_model_parallel_attributes(parameter, True, dimension, 1)


def own_weights(shape: ModelShape, ranks: Layout) -> list[Weight]:
    """Return the weights of this rank's stage."""
    return stage_weights(shape, parallel_state.get_pipeline_model_parallel_rank(), ranks.pipeline)


def check_weights(model: GPTModel, shape: ModelShape, ranks: Layout) -> None:
    """Raise TrainingFailed unless Megatron's weights are those that this program knows."""
    there = {name for name, value in model.state_dict().items() if _EXTRA not in name}
    known = {weight.name for weight in own_weights(shape, ranks)}
    if there != known:
        differing = sorted(there ^ known)
        raise TrainingFailed(
            f"Megatron-core has set up a model with other weights than were asked for, such as"
            f" {differing[0]}; this version of megatron-core is not one of requirements/"
        )


def load_weights(
    model: GPTModel,
    shape: ModelShape,
    ranks: Layout,
    source: Mapping[str, torch.Tensor] | None,
) -> None:
    """Fill a model with the weights of a model of transformers.

    All ranks call it; rank 0 has the `source`, and hands one weight after the other on, so that
    no other process ever holds the whole model.
    """
    own = {weight.name: weight for weight in own_weights(shape, ranks)}
    state = dict(model.state_dict())
    rank = parallel_state.get_tensor_model_parallel_rank()
    for stage in range(ranks.pipeline):
        mine = stage == parallel_state.get_pipeline_model_parallel_rank()
        for weight in stage_weights(shape, stage, ranks.pipeline):
            whole = _from_main(combined(weight, source, shape) if source is not None else None)
            if not mine:
                continue
            target = state[weight.name]
            own.pop(weight.name)
            piece = part(weight, whole, rank, ranks.tensor)
            if piece.shape != target.shape:
                raise TrainingFailed(
                    f"{weight.name} has the shape {tuple(target.shape)} in Megatron and"
                    f" {tuple(piece.shape)} in the model"
                )
            with torch.no_grad():
                target.copy_(piece)
    assert not own


def _from_main(tensor: torch.Tensor | None) -> torch.Tensor:
    """Return rank 0's tensor in all ranks, on this rank's device."""
    if dist.get_world_size() == 1:
        assert tensor is not None
        return tensor
    described = [None if tensor is None else (tuple(tensor.shape), tensor.dtype)]
    dist.broadcast_object_list(described, src=0)
    assert described[0] is not None
    size, dtype = described[0]
    moved = (
        torch.empty(size, dtype=dtype, device=device())
        if tensor is None
        else tensor.to(device()).contiguous()
    )
    dist.broadcast(moved, src=0)
    return moved


def gathered_weights(
    model: GPTModel, shape: ModelShape, ranks: Layout
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the tensors of the model in transformers' layout, a few at a time, on the CPU of
    rank 0; in other ranks empty ones. All ranks have to go through it together."""
    state = model.state_dict()
    stage_of_this = parallel_state.get_pipeline_model_parallel_rank()
    first_replica = parallel_state.get_data_parallel_rank() == 0
    for stage in range(ranks.pipeline):
        for weight in stage_weights(shape, stage, ranks.pipeline):
            if weight.copy:
                continue
            whole = None
            if stage == stage_of_this and first_replica:
                whole = _joined(weight, state[weight.name], ranks)
            whole = _to_main(whole, stage)
            yield separated(weight, whole.cpu(), shape) if whole is not None else {}


def _joined(weight: Weight, own: torch.Tensor, ranks: Layout) -> torch.Tensor:
    """Return the undivided weight, in all ranks of a tensor-parallel group."""
    own = own.detach().contiguous()
    if ranks.tensor == 1:
        return own
    parts = [torch.empty_like(own) for _ in range(ranks.tensor)]
    dist.all_gather(parts, own, group=parallel_state.get_tensor_model_parallel_group())
    return joined(weight, parts)


def _to_main(whole: torch.Tensor | None, stage: int) -> torch.Tensor | None:
    """Bring a weight of a stage's first rank to rank 0; None elsewhere."""
    source = _first_rank(stage)
    if source == 0:
        return whole if dist.get_rank() == 0 else None
    if dist.get_rank() == source:
        assert whole is not None
        dist.send_object_list([(tuple(whole.shape), whole.dtype)], dst=0)
        dist.send(whole.to(device()), dst=0)
    elif dist.get_rank() == 0:
        described: list[Any] = [None]
        dist.recv_object_list(described, src=source)
        received = torch.empty(described[0][0], dtype=described[0][1], device=device())
        dist.recv(received, src=source)
        return received
    return None


def _first_rank(stage: int) -> int:
    """Return the first rank of a stage: that of rank 0's pipeline or any, by Megatron's order."""
    world, stages = dist.get_world_size(), parallel_state.get_pipeline_model_parallel_world_size()
    # Megatron's order is tensor, data, pipeline: each stage has successive ranks.
    return stage * (world // stages)
