"""What a model of transformers is to Megatron: its sizes, or why Megatron cannot have it.

Models that are built as Llama is are mapped: root-mean-square norms before attention and MLP,
rotary positions, grouped heads, an MLP with a gate of SiLU, no biases but those of Qwen2's
queries, keys and values. Megatron could do more; what is not listed here was not compared.
"""

from dataclasses import dataclass
from typing import Any, Final

from ...errors import TrainingRefused, listed, shown

#: `model_type` in a model's config.json.
MODEL_TYPES: Final = ("llama", "mistral", "qwen2", "qwen3")
#: Ways to scale rotary positions that change their frequencies alone, for all lengths alike.
_ROPE_TYPES: Final = ("default", "linear", "llama3")
_INSTEAD: Final = (
    "Use the framework DEEPSPEED with stage 3 or FSDP, which divide every model of transformers"
)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a model."""

    layers: int
    hidden: int
    #: Of an MLP.
    intermediate: int
    heads: int
    #: Heads of keys and values.
    groups: int
    #: Numbers of a head.
    head: int
    #: Rows of the embeddings in transformers' layout.
    vocabulary: int
    positions: int
    epsilon: float
    #: Whether the output layer is the embeddings.
    tied: bool
    #: Whether queries, keys and values have biases.
    qkv_bias: bool
    #: Whether queries and keys are normalised.
    qk_norm: bool

    def padded_vocabulary(self, tensor_parallel: int) -> int:
        """Return how many rows the embeddings have where so many ranks divide them evenly."""
        return -(-self.vocabulary // tensor_parallel) * tensor_parallel


def model_shape(config: Any, *, max_length: int, vocabulary: int = 0) -> ModelShape:
    """Return the sizes of a model by its configuration (of transformers).

    `max_length` is how many tokens a record may have; `vocabulary` is how many rows the
    embeddings have where they are not the configuration's. Raises TrainingRefused, which names
    all that stands in the way.
    """
    kind = str(getattr(config, "model_type", ""))
    if kind not in MODEL_TYPES:
        raise TrainingRefused(
            f"framework.type: MEGATRON cannot train a model of the type {shown(kind)}: only"
            f" {', '.join(MODEL_TYPES)} are converted to Megatron's layout and back. {_INSTEAD}"
        )
    if reasons := list(_obstacles(config, kind, max_length)):
        raise TrainingRefused(
            f"framework.type: MEGATRON cannot train this model of the type {kind}:"
            f" {listed(reasons)}. {_INSTEAD}"
        )
    heads = config.num_attention_heads
    return ModelShape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=heads,
        groups=getattr(config, "num_key_value_heads", None) or heads,
        head=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocabulary=vocabulary or config.vocab_size,
        positions=config.max_position_embeddings,
        epsilon=config.rms_norm_eps,
        tied=bool(config.tie_word_embeddings),
        qkv_bias=kind == "qwen2",
        qk_norm=kind == "qwen3",
    )


def _obstacles(config: Any, kind: str, max_length: int) -> "list[str]":
    """Return what of the model Megatron's layers would not compute as transformers does."""
    found = []
    if type(config).__module__.startswith("transformers_modules"):
        found.append("its code is its own (trust_remote_code)")
    if config.hidden_act != "silu":
        found.append(f"its activation is {config.hidden_act}, not silu")
    if getattr(config, "attention_bias", False):
        found.append("its attention has biases (attention_bias)")
    if getattr(config, "mlp_bias", False):
        found.append("its MLPs have biases (mlp_bias)")
    if getattr(config, "attention_dropout", 0):
        found.append("it has attention_dropout, which has to be 0")
    rope = getattr(config, "rope_parameters", None) or {}
    if (rope_type := rope.get("rope_type", "default")) not in _ROPE_TYPES:
        found.append(f"its positions are scaled by {rope_type}")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        found.append("it turns a part of each head alone (partial_rotary_factor)")
    window = getattr(config, "sliding_window", None)
    if getattr(config, "use_sliding_window", kind == "mistral") and window and max_length > window:
        found.append(
            f"its attention sees {window} tokens (sliding_window), and max_seq_length is"
            f" {max_length}"
        )
    return found
