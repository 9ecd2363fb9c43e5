"""The first lines of a run's log: what is trained, on what, and how large a step is."""

import logging
from collections.abc import Mapping
from typing import Any, Final

from .data.tokenising import described
from .job import Job

log: Final = logging.getLogger(__name__)
_GIB: Final = 1024**3
#: Bytes that an optimizer keeps for a parameter; AdamW's two moments in 32 bits if not listed.
_OPTIMIZER_BYTES: Final[Mapping[str, int]] = {
    "sgd": 0,
    "adafactor": 1,
    "adamw_8bit": 2,
    "adamw_bnb_8bit": 2,
    "paged_adamw_8bit": 2,
    "lion_32bit": 4,
    "paged_lion_32bit": 4,
    "rmsprop": 4,
    "adagrad": 4,
}


def report_start(job: Job, trainer: Any, tokenizer: Any, *, max_length: int) -> None:
    """Log what training begins with, once, in the main process."""
    args = trainer.args
    ranks = args.world_size
    effective = args.train_batch_size * args.gradient_accumulation_steps * ranks
    log.info("%s of %s with %s.", job.training_type, job.base_model.model_id, job.framework.type)
    log.info(
        "Effective batch: %d records a step (%d a device, %d accumulated, %d processes); at most"
        " %d tokens a step (%d a record).",
        effective,
        args.train_batch_size,
        args.gradient_accumulation_steps,
        ranks,
        effective * max_length,
        max_length,
    )
    log.info("Records: %s", _records(trainer))
    trainable, total = parameters(trainer.model)
    log.info(
        "Trainable parameters: %s of %s (%.2f %%).",
        f"{trainable:,}",
        f"{total:,}",
        100 * trainable / max(total, 1),
    )
    log.info(
        "Memory without activations: about %s in each process.",
        _size(memory_estimate(trainer)),
    )
    _report_example(trainer, tokenizer)


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / 1024**2:.1f} MiB"


def _records(trainer: Any) -> str:
    training, validation = trainer.train_dataset, trainer.eval_dataset
    said = f"{_count(training)} to train on"
    return said + (f", {_count(validation)} held back." if validation is not None else ".")


def _count(dataset: Any) -> str:
    try:
        return str(len(dataset))
    except TypeError:
        return "an unknown number"


def _report_example(trainer: Any, tokenizer: Any) -> None:
    """Log the first example as the model sees it, where it has tokens and labels."""
    first = trainer.train_dataset[0]
    if "input_ids" in first and "labels" in first:
        log.info(
            "First example (what stands in ⟦ ⟧ does not count for the loss): %s",
            described(first, tokenizer),
        )
        counting = sum(label != -100 for label in first["labels"])
        log.info("It has %d tokens; %d count for the loss.", len(first["input_ids"]), counting)


def _numbers(parameter: Any) -> int:
    """Return how many numbers a parameter has; ZeRO-3 leaves each rank a part of it."""
    return int(getattr(parameter, "ds_numel", None) or parameter.numel())


def parameters(model: Any) -> tuple[int, int]:
    """Return how many parameters are trained, and how many there are."""
    if hasattr(model, "get_nb_trainable_parameters"):
        trainable, total = model.get_nb_trainable_parameters()
        return int(trainable), int(total)
    counts = [(_numbers(each), each.requires_grad) for each in model.parameters()]
    return sum(n for n, trained in counts if trained), sum(n for n, _ in counts)


def memory_estimate(trainer: Any) -> int:
    """Return about how many bytes weights, gradients and the optimizer take, unsharded."""
    model = trainer.model
    weights: int = sum(_numbers(each) * each.element_size() for each in model.parameters())
    gradients: int = sum(
        _numbers(each) * each.element_size() for each in model.parameters() if each.requires_grad
    )
    trainable: int = sum(_numbers(each) for each in model.parameters() if each.requires_grad)
    optimizer = str(getattr(trainer.args.optim, "value", trainer.args.optim))
    return weights + gradients + trainable * _OPTIMIZER_BYTES.get(optimizer, 8)
