"""Parts of a layer that Megatron leaves to Transformer Engine or Apex, by torch's own kernels.

So neither package is needed. The attention that Megatron has without them keeps the scores of all
pairs of tokens; its norm cannot be used where norms are divided by tokens.
"""

import math
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention


class CoreAttention(torch.nn.Module):
    """What Megatron's specification of a layer takes as `core_attention`."""

    def __init__(
        self, config: Any, *_args: Any, softmax_scale: float | None = None, **_keywords: Any
    ) -> None:
        """Megatron also says the layer's number and groups of ranks: all heads are alike, and a
        rank computes its own."""
        super().__init__()
        self._scale = softmax_scale or 1 / math.sqrt(config.kv_channels)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **_keywords: Any,
    ) -> torch.Tensor:
        """Return the sum of values for each token: [tokens, records, heads * head].

        Queries, keys and values are [tokens, records, heads, head]. `attention_mask` is true
        where a token sees another one, [records, 1, tokens, tokens]; None is causal.
        """
        q, k, v = (each.permute(1, 2, 0, 3) for each in (query, key, value))
        context = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=attention_mask,
            is_causal=attention_mask is None,
            scale=self._scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return context.permute(2, 0, 1, 3).flatten(2)


class RMSNorm(torch.nn.RMSNorm):
    """What Megatron's specification of a layer takes as a norm."""

    def __init__(self, config: Any, hidden_size: int, eps: float, **_keywords: Any) -> None:
        """Its weights are whole in each rank."""
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        # Where a rank has a part of the tokens, Megatron sums the gradients of what has this.
        self.weight.sequence_parallel = config.sequence_parallel
