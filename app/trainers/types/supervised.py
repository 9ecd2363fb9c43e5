"""What the supervised training types share: records become tokens, trl's SFTTrainer trains."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from ..data.forms import Form
from ..data.tokenising import Tokenising, tokenised
from ..errors import TrainingRefused
from ..run import Run

log: Final = logging.getLogger(__name__)

#: Of the hyperparameters: only answers count for the loss.
_ANSWERS: Final = ("assistant_only_loss", "completion_only_loss")


def answers_only(arguments: Mapping[str, Any], form: Form, *, default: bool) -> bool:
    """Return whether only answers count for the loss. Raises TrainingRefused."""
    asked = arguments.get(_ANSWERS[0] if form is Form.MESSAGES else _ANSWERS[1])
    if form is Form.TEXT:
        if arguments.get(_ANSWERS[0]) or arguments.get(_ANSWERS[1]):
            raise TrainingRefused(
                "assistant_only_loss and completion_only_loss: records of the form text have no"
                " answers; use messages, or prompt + completion"
            )
        return False
    return default if asked is None else bool(asked)


def build_supervised(
    run: Run,
    *,
    answers: bool,
    peft_config: Any = None,
    model: Mapping[str, Any] | None = None,
    prepare: Any = None,
) -> Any:
    """Return the trainer of a supervised run.

    `answers` is whether only answers count for the loss if the job does not say; `model` are
    further keywords of `from_pretrained`; `prepare` changes the loaded model.
    """
    from trl import SFTConfig, SFTTrainer

    arguments = dict(run.arguments)
    preprocess = run.job.data.preprocess
    only = answers_only(arguments, run.records.form, default=answers)
    for name in _ANSWERS:
        # The labels say it already.
        arguments.pop(name, None)
    packing = bool(arguments.get("packing"))
    length = int(arguments["max_length"])
    _set_padding(arguments, preprocess.padding, length, packing)
    how = Tokenising(
        max_length=length,
        truncate=preprocess.truncation,
        divides=packing and arguments.get("packing_strategy", "bfd") != "bfd",
        answers_only=only,
        add_bos=preprocess.add_bos,
        add_eos=preprocess.add_eos,
    )
    tokenise = partial(
        tokenised,
        form=run.records.form,
        tokenizer=run.tokenizer,
        how=how,
        workers=run.job.data.num_workers,
    )
    training = tokenise(run.records.training, what="training data")
    validation = None
    if run.records.validation is not None:
        validation = tokenise(run.records.validation, what="validation data")
    own = run.framework.trainer(run, arguments=arguments, training=training, validation=validation)
    if own is not None:
        return own
    loaded = run.load_model(**(model or {}))
    if prepare is not None:
        loaded = prepare(loaded)
    return SFTTrainer(
        model=loaded,
        args=SFTConfig(**arguments),
        train_dataset=training,
        eval_dataset=validation,
        processing_class=run.tokenizer,
        peft_config=peft_config,
        callbacks=[*run.callbacks],
    )


def train_all_parameters(model: Any) -> Any:
    """Return the model with every parameter trained, also where its code froze some."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    return model


def _set_padding(arguments: dict[str, Any], padding: str, length: int, packing: bool) -> None:
    """Set how records of one batch come to one length. Raises TrainingRefused."""
    if padding == "max_length":
        # None is longer, so all have this length.
        arguments["pad_to_multiple_of"] = length
    elif padding == "none" and not packing:
        sizes = [
            arguments.get("per_device_train_batch_size", 8),
            arguments.get("per_device_eval_batch_size", 1),
        ]
        if max(sizes) > 1:
            raise TrainingRefused(
                "data_config.preprocess.padding: none needs data_config.batch_size 1, or packing:"
                " records of one batch have to have one length"
            )
