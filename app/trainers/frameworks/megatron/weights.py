"""The weights of a model, in the layout of transformers and in Megatron's.

Megatron keeps queries, keys and values of a layer in one matrix, head group by head group (the
queries of a group, its keys, its values), and gate and up projection of an MLP in another. Ranks
that divide a layer (tensor parallel) have rows or columns of a matrix each; ranks that divide
the layers (pipeline parallel) have successive ones, numbered from 0 in each rank.

Every function is a rearrangement: numbers are copied as they are, in any dtype.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from .shape import ModelShape

if TYPE_CHECKING:
    from torch import Tensor

_EMBEDDINGS: Final = "model.embed_tokens.weight"


class Division(Enum):
    """How ranks of one tensor-parallel group divide a weight."""

    #: Each has all of it.
    NONE = "none"
    ROWS = "rows"
    COLUMNS = "columns"
    #: Rows of each half: of the gate's projection, and of the other.
    HALVES = "halves"
    #: Rows, of which the last may be padding.
    VOCABULARY = "vocabulary"


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight as Megatron has it."""

    #: In the state dict of a rank, with the number of its layer there.
    name: str
    #: Transformers' names of what it is made of, in this order.
    sources: tuple[str, ...]
    division: Division
    #: Whether another stage of the pipeline has the same weight and answers for it.
    copy: bool = False


def stage_layers(shape: ModelShape, stage: int, stages: int) -> range:
    """Return the layers of a pipeline's stage. `stages` has to divide their number."""
    each = shape.layers // stages
    return range(stage * each, (stage + 1) * each)


def stage_weights(shape: ModelShape, stage: int, stages: int) -> list[Weight]:
    """Return the weights that a rank of a pipeline's stage has, in the order of the model."""
    weights = []
    if stage == 0:
        weights.append(
            Weight("embedding.word_embeddings.weight", (_EMBEDDINGS,), Division.VOCABULARY)
        )
    for local, layer in enumerate(stage_layers(shape, stage, stages)):
        weights += _layer(shape, f"decoder.layers.{local}.", f"model.layers.{layer}.")
    if stage == stages - 1:
        weights.append(
            Weight("decoder.final_layernorm.weight", ("model.norm.weight",), Division.NONE)
        )
        if not shape.tied:
            weights.append(Weight("output_layer.weight", ("lm_head.weight",), Division.VOCABULARY))
        elif stages > 1:
            weights.append(
                Weight("output_layer.weight", (_EMBEDDINGS,), Division.VOCABULARY, copy=True)
            )
    return weights


def _layer(shape: ModelShape, ours: str, theirs: str) -> Iterable[Weight]:
    attention, mlp = f"{ours}self_attention.", f"{ours}mlp."
    projections = [f"{theirs}self_attn.{name}_proj" for name in "qkv"]

    def norm(name: str, source: str) -> Weight:
        return Weight(f"{name}.weight", (f"{theirs}{source}.weight",), Division.NONE)

    yield norm(f"{ours}input_layernorm", "input_layernorm")
    yield Weight(
        f"{attention}linear_proj.weight", (f"{theirs}self_attn.o_proj.weight",), Division.COLUMNS
    )
    for kind in ("weight", "bias") if shape.qkv_bias else ("weight",):
        yield Weight(
            f"{attention}linear_qkv.{kind}",
            tuple(f"{projection}.{kind}" for projection in projections),
            Division.ROWS,
        )
    if shape.qk_norm:
        yield norm(f"{attention}q_layernorm", "self_attn.q_norm")
        yield norm(f"{attention}k_layernorm", "self_attn.k_norm")
    yield norm(f"{ours}pre_mlp_layernorm", "post_attention_layernorm")
    yield Weight(
        f"{mlp}linear_fc1.weight",
        (f"{theirs}mlp.gate_proj.weight", f"{theirs}mlp.up_proj.weight"),
        Division.HALVES,
    )
    yield Weight(f"{mlp}linear_fc2.weight", (f"{theirs}mlp.down_proj.weight",), Division.COLUMNS)


def combined(weight: Weight, sources: Mapping[str, "Tensor"], shape: ModelShape) -> "Tensor":
    """Return a weight, undivided, of transformers' tensors."""
    import torch

    tensors = [sources[name] for name in weight.sources]
    if len(tensors) == 3:
        grouped = [each.reshape(shape.groups, -1, *each.shape[1:]) for each in tensors]
        return torch.cat(grouped, dim=1).reshape(-1, *tensors[0].shape[1:])
    return torch.cat(tensors) if len(tensors) > 1 else tensors[0]


def separated(weight: Weight, whole: "Tensor", shape: ModelShape) -> dict[str, "Tensor"]:
    """Return transformers' tensors, by name, of an undivided weight: `combined`'s inverse."""
    if len(weight.sources) == 3:
        queries = shape.heads // shape.groups * shape.head
        grouped = whole.reshape(shape.groups, -1, *whole.shape[1:])
        parts = grouped.split([queries, shape.head, shape.head], dim=1)
        tensors = [part.reshape(-1, *whole.shape[1:]) for part in parts]
    elif weight.division is Division.VOCABULARY:
        tensors = [whole[: shape.vocabulary]]
    else:
        tensors = list(whole.chunk(len(weight.sources)))
    return {name: tensor.contiguous() for name, tensor in zip(weight.sources, tensors, strict=True)}


def part(weight: Weight, whole: "Tensor", rank: int, ranks: int) -> "Tensor":
    """Return what a rank has of an undivided weight. `ranks` has to divide it, but for the rows
    of a vocabulary, which are filled up with zeros."""
    import torch

    if weight.division is Division.NONE:
        return whole
    if weight.division is Division.COLUMNS:
        return whole.chunk(ranks, dim=1)[rank].contiguous()
    if weight.division is Division.HALVES:
        return torch.cat([half.chunk(ranks)[rank] for half in whole.chunk(2)])
    if weight.division is Division.VOCABULARY and (missing := -whole.shape[0] % ranks):
        whole = torch.cat([whole, whole.new_zeros(missing, *whole.shape[1:])])
    return whole.chunk(ranks)[rank].contiguous()


def joined(weight: Weight, parts: Sequence["Tensor"]) -> "Tensor":
    """Return the undivided weight of the parts of all ranks, in their order."""
    import torch

    if weight.division is Division.NONE or len(parts) == 1:
        return parts[0]
    if weight.division is Division.COLUMNS:
        return torch.cat([*parts], dim=1)
    if weight.division is Division.HALVES:
        halves = [each.chunk(2) for each in parts]
        return torch.cat([*(half[0] for half in halves), *(half[1] for half in halves)])
    return torch.cat([*parts])
