"""The trainer's arguments: what the contract's fields, the hyperparameters and the framework say.

A thing that is said in two places has to be said alike.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .errors import TrainingRefused
from .job import Job

#: Beside the checkpoints, under a name that is not looked at: where they are written.
WRITING: Final = ".writing"
#: Steps between checkpoints where the job does not say.
CHECKPOINT_STEPS: Final = 500
#: Numbers of Python's and NumPy's seeds.
_SEEDS: Final = 2**32


def writing_directory(job: Job) -> Path:
    """Return where the trainer writes checkpoints; they are renamed when they are complete."""
    return job.checkpoint_dir / WRITING


def combined_arguments(
    job: Job,
    *,
    given: Mapping[str, Any],
    framework: Mapping[str, Any],
    defaults: Mapping[str, Any],
    has_validation: bool,
    known: frozenset[str],
) -> dict[str, Any]:
    """Return the keywords of a trainer's arguments class, whose names are `known`.

    `given` are the job's hyperparameters, `defaults` the training type's. Raises
    TrainingRefused where two places contradict each other.
    """
    contract = _contract(job, known)
    asked = dict(given)
    for place, values in (("framework", framework), ("the job's configuration", contract)):
        for name, value in values.items():
            if name in asked and asked[name] != value:
                raise TrainingRefused(
                    f"training_config.hyperparameters: {name} is {asked[name]}, and {place} says"
                    f" {value}; say it once"
                )
            asked[name] = value
    arguments = {**_base(job), **defaults, **asked}
    if has_validation:
        arguments.setdefault("eval_strategy", "steps")
        if str(arguments["eval_strategy"]) == "steps":
            arguments.setdefault("eval_steps", arguments["save_steps"])
        arguments.setdefault("per_device_eval_batch_size", _batch_size(arguments))
        # How good the model was before is what the rest is compared with.
        arguments.setdefault("eval_on_start", job.resume_from is None)
    elif str(asked.get("eval_strategy", "no")) != "no":
        raise TrainingRefused(
            "training_config.hyperparameters.eval_strategy: there are no records to evaluate with;"
            " set data_config.validation_split or add a source with the split validation"
        )
    return {name: value for name, value in arguments.items() if name in known}


def _batch_size(arguments: Mapping[str, Any]) -> int:
    return int(arguments.get("per_device_train_batch_size", 8))


def _base(job: Job) -> dict[str, Any]:
    seed = job.data.seed % _SEEDS
    return {
        "output_dir": str(writing_directory(job)),
        "report_to": "none",
        "disable_tqdm": True,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": CHECKPOINT_STEPS,
        "seed": seed,
        "data_seed": seed,
        "log_level": "warning",
        "remove_unused_columns": True,
        "dataloader_pin_memory": job.data.pin_memory,
    }


def _contract(job: Job, known: frozenset[str]) -> dict[str, Any]:
    """Return what the contract's fields say; what is unset there is left to hyperparameters."""
    data, output = job.data, job.output
    said: dict[str, Any] = {}
    if data.batch_size:
        said["per_device_train_batch_size"] = data.batch_size
    if data.gradient_accumulation_steps > 1:
        said["gradient_accumulation_steps"] = data.gradient_accumulation_steps
    if data.num_workers:
        said["dataloader_num_workers"] = data.num_workers
    if data.pin_memory:
        said["dataloader_pin_memory"] = True
    if data.seed:
        said["seed"] = data.seed % _SEEDS
    if data.max_seq_length and "max_length" in known:
        said["max_length"] = data.max_seq_length
    if output.checkpoint_interval_steps:
        said["save_steps"] = output.checkpoint_interval_steps
        said["save_strategy"] = "steps"
    return said
