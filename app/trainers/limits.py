"""Bounds of hyperparameters whose classes take any number, and fail with it later, or never."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """What a number may be: from `least` to `most`, or one that stands for something else."""

    least: float = 0
    most: float = 1e15
    #: Such as -1, which stands for no limit.
    also: float | None = None

    def allows(self, value: float) -> bool:
        """Whether a number is within them."""
        return self.least <= value <= self.most or value == self.also

    def __str__(self) -> str:
        """Return them as a message has them."""
        also = "" if self.also is None else f"{_said(self.also)} or "
        return f"{also}from {_said(self.least)} to {_said(self.most)}"


def _said(number: float) -> str:
    whole = float(number).is_integer() and abs(number) < 1e15
    return str(int(number)) if whole else f"{number:g}"


#: The least share of a whole, and the least positive number.
_LEAST: Final = 1e-9
_COUNT: Final = Limits(1, 2**20)
_STEPS: Final = Limits(1, 1e9, also=-1)
_EPOCHS: Final = Limits(_LEAST, 1e9)
#: A share of the steps below 1, else steps.
_INTERVAL: Final = Limits(_LEAST, 1e9)
_TOKENS: Final = Limits(1, 2**31 - 1)
_SHARE: Final = Limits(0, 1)
_DECAY: Final = Limits(0, 1 - _LEAST)
_SEED: Final = Limits(0, 2**32 - 1)

LIMITS: Final[Mapping[str, Limits]] = {
    **dict.fromkeys(("max_steps", "reward_max_steps"), _STEPS),
    **dict.fromkeys(("num_train_epochs", "reward_num_train_epochs"), _EPOCHS),
    **dict.fromkeys(("logging_steps", "save_steps", "eval_steps"), _INTERVAL),
    **dict.fromkeys(("seed", "data_seed"), _SEED),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), _DECAY),
    **dict.fromkeys(("lora_dropout", "label_smoothing_factor", "top_p"), _SHARE),
    **dict.fromkeys(("max_length", "max_completion_length"), _TOKENS),
    **dict.fromkeys(
        (
            "tensor_model_parallel_size",
            "pipeline_model_parallel_size",
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "gradient_accumulation_steps",
            "eval_accumulation_steps",
            "torch_empty_cache_steps",
            "dataloader_prefetch_factor",
            "num_generations",
            "num_generations_eval",
            "num_iterations",
            "steps_per_generation",
            "generation_batch_size",
            "pad_to_multiple_of",
            "ddp_timeout",
            "r",
        ),
        _COUNT,
    ),
    **dict.fromkeys(
        (
            "learning_rate",
            "reward_learning_rate",
            "weight_decay",
            "warmup_steps",
            "adam_epsilon",
            "max_grad_norm",
            "neftune_noise_alpha",
            "eval_delay",
            "beta",
            "epsilon",
            "lora_alpha",
            "center_rewards_coefficient",
        ),
        Limits(most=1e38),
    ),
    "dataloader_num_workers": Limits(0, 1024),
    "temperature": Limits(_LEAST, 1e6),
    "quantization_bits": Limits(1, 64),
    "label_smoothing": Limits(0, 0.5),
    # An alias: as `warmup_steps`, which it stands for, 1 and more would be steps.
    "warmup_ratio": _DECAY,
}
