"""Frameworks: one module each, which has a `FRAMEWORK` that spreads the training."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..errors import TrainingRefused, did_you_mean, shown

if TYPE_CHECKING:
    from ..job import Job
    from ..run import Run

#: The frameworks of the contract that a run can have, and the module in this room of each.
FRAMEWORKS: Final[Mapping[str, str]] = {
    "HF_TRAINER": "hf_trainer",
    "DEEPSPEED": "deepspeed",
    "FSDP": "fsdp",
    "MEGATRON": "megatron",
}


class Framework(Protocol):
    """How a training is spread over processes and devices."""

    def arguments(self, job: "Job") -> Mapping[str, Any]:
        """Return keywords of TrainingArguments that set the framework up, from `job.framework`.

        Called before torch is set up: it may set variables of the process. Raises
        TrainingRefused for what this machine cannot do or for settings that are not known.
        """
        ...

    def replicas(self, job: "Job") -> int:
        """Return how many replicas of the model divide the records of a step."""
        ...

    def trainer(
        self, run: "Run", *, arguments: Mapping[str, Any], training: Any, validation: Any
    ) -> Any:
        """Return the framework's own trainer for a supervised run on tokens; None where it has
        none. `arguments` are keywords of SFTConfig, `validation` is None or records like
        `training`'s. The model is not loaded yet. Raises TrainingRefused, TrainingFailed.
        """
        ...

    def resumed(self, job: "Job", checkpoint: Path) -> Path:
        """Return a checkpoint as the ranks that there are now go on from it.

        Called by all ranks, once the process group is there. Raises TrainingRefused.
        """
        ...

    def verify(self, trainer: Any) -> None:
        """Compare what the trainer has set up with what was asked, once before training.

        Raises TrainingFailed where they differ.
        """
        ...


def framework(name: str) -> Framework:
    """Return a framework by its name in the contract. Raises TrainingRefused."""
    module = FRAMEWORKS.get(name)
    if module is None:
        raise TrainingRefused(
            f"training_config.framework.type: {shown(name)} is not known"
            f"{did_you_mean(name, FRAMEWORKS)}; use one of {', '.join(FRAMEWORKS)}"
        )
    found: Framework = import_module(f".{module}", __package__).FRAMEWORK
    return found
