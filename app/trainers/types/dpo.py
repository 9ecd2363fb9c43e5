"""DPO: direct preference optimization, of all parameters or of an adapter."""

from collections.abc import Mapping
from typing import Any, Final

from ..data.forms import Form
from ..hyperparameters import Groups
from ..run import Run
from .adapters import AdapterChoice, chosen_adapter
from .preferences import preference_pairs


class _Dpo:
    """Learns which of two answers is the better one."""

    forms = (Form.PREFERENCE, Form.IMPLICIT_PREFERENCE)
    adapter = False

    def hyperparameters(self) -> Groups:
        """Return DPOConfig's, and LoraConfig's for an adapter."""
        from peft import LoraConfig
        from trl import DPOConfig

        return {"arguments": DPOConfig, "adapter": AdapterChoice, "lora": LoraConfig}

    def defaults(self) -> Mapping[str, Any]:
        """Return none: DPOConfig's own are meant."""
        return {}

    def build(self, run: Run) -> Any:
        """Return the trainer. Its reference is the model that training begins with."""
        from transformers import set_seed
        from trl import DPOConfig, DPOTrainer

        adapter = chosen_adapter(run.hyperparameters)
        training, validation = preference_pairs(run, int(run.arguments["max_length"]))
        # Before the model: DeepSpeed divides it while it is loaded.
        arguments = DPOConfig(**run.arguments)
        set_seed(arguments.seed)
        # With an adapter the reference is the model without it.
        alone = adapter is not None or arguments.precompute_ref_log_probs
        return DPOTrainer(
            model=run.load_model(),
            ref_model=None if alone else run.load_model(),
            args=arguments,
            train_dataset=training,
            eval_dataset=validation,
            processing_class=run.tokenizer,
            peft_config=adapter,
            callbacks=[*run.callbacks],
        )


TYPE: Final = _Dpo()
