"""LORA: supervised fine-tuning of a low-rank adapter on the frozen model."""

from collections.abc import Mapping
from typing import Any, Final

from ..data.forms import Form
from ..errors import TrainingRefused
from ..hyperparameters import Groups
from ..run import Run
from .supervised import build_supervised

#: Where the job does not say: all linear layers, as much of each as is usual.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "target_modules": "all-linear",
}
#: Adapters learn faster than whole models do without harm.
LORA_LEARNING_RATE: Final = 2e-4


def lora_config(given: Mapping[str, Any]) -> Any:
    """Return peft's LoraConfig of a job's hyperparameters. Raises TrainingRefused."""
    from peft import LoraConfig

    values = {**_DEFAULTS, **given}
    # `all-linear` is a word, and no list of one layer.
    if values["target_modules"] == ["all-linear"]:
        values["target_modules"] = "all-linear"
    try:
        return LoraConfig(task_type="CAUSAL_LM", **values)
    except (ValueError, TypeError) as error:
        raise TrainingRefused(f"training_config.hyperparameters: {error}") from error


class _Lora:
    """Learns answers in an adapter."""

    forms = (Form.MESSAGES, Form.PROMPT_COMPLETION, Form.TEXT)
    adapter = True

    def hyperparameters(self) -> Groups:
        """Return SFTConfig's and LoraConfig's."""
        from peft import LoraConfig
        from trl import SFTConfig

        return {"arguments": SFTConfig, "lora": LoraConfig}

    def defaults(self) -> Mapping[str, Any]:
        """Return a higher learning rate than full training has."""
        return {"learning_rate": LORA_LEARNING_RATE}

    def build(self, run: Run) -> Any:
        """Return the trainer."""
        config = lora_config(run.hyperparameters["lora"])
        return build_supervised(run, answers=True, peft_config=config)


TYPE: Final = _Lora()
