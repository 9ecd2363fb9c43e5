"""Training types: one module each, which has a `TYPE` that builds the trainer of a run."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..errors import TrainingRefused, did_you_mean, shown

if TYPE_CHECKING:
    from ..data.forms import Form
    from ..hyperparameters import Groups
    from ..run import Run

#: The training types of the contract, and the module in this room that has each.
TRAINING_TYPES: Final[Mapping[str, str]] = {
    "CONTINUED_PRETRAIN": "continued_pretrain",
    "DPO": "dpo",
    "FULL_FINETUNE": "full_finetune",
    "LORA": "lora",
    "QLORA": "qlora",
    "RLHF": "rlhf",
    "SFT": "sft",
}


class TrainingType(Protocol):
    """What a kind of training needs of its own."""

    #: Forms of records that it learns from, the preferred first.
    forms: "tuple[Form, ...]"
    #: Whether it trains an adapter (`output_config.export_format=adapter` is possible).
    adapter: bool

    def hyperparameters(self) -> "Groups":
        """Return the dataclasses that hyperparameters are read through, by group. The group
        `arguments` is the trainer's own: a subclass of TrainingArguments.
        """
        ...

    def defaults(self) -> Mapping[str, Any]:
        """Return the arguments of the trainer where the job says nothing."""
        ...

    def build(self, run: "Run") -> Any:
        """Return the trainer of a run: a transformers Trainer, or what behaves like one.

        It makes its arguments of `run.arguments` (keywords of the class in the group
        `arguments`, already complete), checks `run.data` before it calls `run.load_model()`,
        and hands `run.callbacks` over. Raises TrainingRefused, TrainingFailed.
        """
        ...


def training_type(name: str) -> TrainingType:
    """Return a training type by its name in the contract. Raises TrainingRefused."""
    module = TRAINING_TYPES.get(name)
    if module is None:
        raise TrainingRefused(
            f"training_config.training_type: {shown(name)} is not known"
            f"{did_you_mean(name, TRAINING_TYPES)}; use one of {', '.join(TRAINING_TYPES)}"
        )
    found: TrainingType = import_module(f".{module}", __package__).TYPE
    return found
