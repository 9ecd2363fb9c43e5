"""QLORA: a low-rank adapter on a model that is quantized to 4 or 8 bits while it is trained."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ..data.forms import Form
from ..errors import TrainingRefused
from ..hyperparameters import Groups
from ..run import Run
from .lora import LORA_LEARNING_RATE, lora_config
from .supervised import build_supervised


@dataclass
class Quantization:
    """How the frozen weights are kept. Hyperparameters are read through it."""

    quantization_method: Literal["bitsandbytes", "torchao"] = "bitsandbytes"
    quantization_bits: int | None = None
    load_in_4bit: bool = False
    load_in_8bit: bool = False
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    bnb_4bit_use_double_quant: bool = True
    bnb_4bit_compute_dtype: Literal["float32", "bfloat16", "float16"] | None = None

    @property
    def bits(self) -> int:
        """Bits of a weight, 4 unless asked otherwise. Raises TrainingRefused."""
        asked = {
            bits for bits, wanted in ((4, self.load_in_4bit), (8, self.load_in_8bit)) if wanted
        }
        if self.quantization_bits is not None:
            asked.add(self.quantization_bits)
        if len(asked) > 1:
            raise TrainingRefused(
                "training_config.hyperparameters: load_in_4bit, load_in_8bit and"
                " quantization_bits contradict each other; keep one"
            )
        default = 8 if self.quantization_method == "torchao" else 4
        bits = asked.pop() if asked else default
        possible = (8,) if self.quantization_method == "torchao" else (4, 8)
        if bits not in possible:
            raise TrainingRefused(
                f"training_config.hyperparameters.quantization_bits: {self.quantization_method}"
                f" trains with {' or '.join(map(str, possible))} bits, not {bits}"
            )
        return bits


def quantization_config(quantization: Quantization, bits: int) -> Any:
    """Return what transformers loads a quantized model by."""
    import torch

    if quantization.quantization_method == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    default = "bfloat16" if torch.cuda.is_available() else "float32"
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=quantization.bnb_4bit_use_double_quant,
        bnb_4bit_compute_dtype=getattr(torch, quantization.bnb_4bit_compute_dtype or default),
    )


def _device() -> str | int:
    """Return where this rank's copy of the model lies; quantized weights do not move."""
    import torch

    return int(os.environ.get("LOCAL_RANK") or 0) if torch.cuda.is_available() else "cpu"


class _Qlora:
    """Learns answers in an adapter of a quantized model."""

    forms = (Form.MESSAGES, Form.PROMPT_COMPLETION, Form.TEXT)
    adapter = True

    def hyperparameters(self) -> Groups:
        """Return SFTConfig's, LoraConfig's and those of the quantization."""
        from peft import LoraConfig
        from trl import SFTConfig

        return {"arguments": SFTConfig, "lora": LoraConfig, "quantization": Quantization}

    def defaults(self) -> Mapping[str, Any]:
        """Return a higher learning rate than full training has."""
        return {"learning_rate": LORA_LEARNING_RATE}

    def build(self, run: Run) -> Any:
        """Return the trainer. Raises TrainingRefused."""
        from peft import prepare_model_for_kbit_training

        quantization = Quantization(**run.hyperparameters["quantization"])
        config = quantization_config(quantization, quantization.bits)
        checkpointing = bool(run.arguments.get("gradient_checkpointing", True))

        def prepare(model: Any) -> Any:
            return prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)

        return build_supervised(
            run,
            answers=True,
            peft_config=lora_config(run.hyperparameters["lora"]),
            model={"quantization_config": config, "device_map": {"": _device()}},
            prepare=prepare,
        )


TYPE: Final = _Qlora()
