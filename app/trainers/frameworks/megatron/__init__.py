"""MEGATRON: models of transformers, converted to Megatron-core's layout, trained and brought back.

    settings    what `framework.config` may say, and how ranks are divided
    shape       the sizes of a model, or why it cannot be converted
    weights     the weights in both layouts, and their parts
    model       Megatron's model with them; its `layers` where Megatron has none without CUDA
    trainer     the loop, with `batches`, `optimizing`, `checkpointing` and `export`

`framework` and the first three need no package of Megatron's.
"""

from .framework import FRAMEWORK

__all__ = ["FRAMEWORK"]
