"""What a training type builds its trainer of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .data.records import Records
from .frameworks import Framework
from .job import Job
from .stopping import StopSignal


@dataclass(frozen=True, slots=True)
class Run:
    """All that is known of a run before its trainer is built. The model is not loaded yet, so
    that data that are wrong are found before a GPU is taken."""

    job: Job
    #: Transformers' tokenizer of the model, with the job's chat template and padding token.
    tokenizer: Any
    #: Tokens that a record may have.
    max_length: int
    records: Records
    #: Keywords of the class in the group `arguments`, complete.
    arguments: Mapping[str, Any]
    #: Hyperparameters of the training type's other groups.
    hyperparameters: Mapping[str, Mapping[str, Any]]
    callbacks: Sequence[Any]
    #: Load the base model: `load_model(**keywords)` adds keywords of `from_pretrained`, such as
    #: `quantization_config`, and `auto_class`.
    load_model: Callable[..., Any]
    #: For a trainer that `build` runs before the one that it returns: callbacks that report under
    #: the stage's name.
    stage_callbacks: Callable[[str], Sequence[Any]]
    framework: Framework
    stop: StopSignal
