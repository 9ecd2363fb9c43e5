"""FULL_FINETUNE: supervised fine-tuning, by what is trained: all parameters.

The same training as SFT, which names it by what it learns from.
"""

from .sft import TYPE

__all__ = ["TYPE"]
