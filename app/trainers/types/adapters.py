"""Whether a training type that can do without trains an adapter."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import TrainingRefused
from .lora import lora_config


@dataclass
class AdapterChoice:
    """The name is trl's. An adapter is also trained where LoRA's hyperparameters are given."""

    use_peft: bool | None = None


def adapter_asked(hyperparameters: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether hyperparameters, by group, ask for an adapter."""
    chosen = hyperparameters.get("adapter", {}).get("use_peft")
    return bool(chosen or hyperparameters.get("lora"))


def chosen_adapter(hyperparameters: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return peft's LoraConfig if an adapter is to be trained, else None.

    Of the hyperparameters by group, it reads `adapter` and `lora`. Raises TrainingRefused.
    """
    given = hyperparameters.get("lora", {})
    chosen = hyperparameters.get("adapter", {}).get("use_peft")
    if chosen is False and given:
        raise TrainingRefused(
            f"training_config.hyperparameters: use_peft is false, and {', '.join(given)} of an"
            " adapter given; leave out the one or the other"
        )
    return lora_config(given) if adapter_asked(hyperparameters) else None
