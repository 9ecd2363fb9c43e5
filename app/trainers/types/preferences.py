"""Records that are compared or answered: their prompts, and whether they fit the model."""

from typing import TYPE_CHECKING, Any

from ..data.forms import Form
from ..errors import TrainingRefused
from ..job import Job
from ..run import Run

if TYPE_CHECKING:
    from datasets import Dataset

_PAIR = ("chosen", "rejected")


def preference_pairs(run: Run, max_length: int) -> "tuple[Dataset, Dataset | None]":
    """Return what is trained on and what is held back, as `prompt`, `chosen` and `rejected`.

    Records of more than `max_length` tokens are refused, unless the job has them cut. Raises
    TrainingRefused.
    """
    return _both(run, lambda records, what: _pairs(run, records, max_length, what))


def prompts(run: Run, max_length: int) -> "tuple[Dataset, Dataset | None]":
    """Return what is answered, in training and held back, as `prompt`.

    Prompts of more than `max_length` tokens are refused. Raises TrainingRefused.
    """
    return _both(run, lambda records, what: _prompts(run, records, max_length, what))


def check_preprocess(job: Job) -> None:
    """Raise TrainingRefused for what `data_config.preprocess` asks that only supervised types do:
    tokens are added and batches padded by trl's own trainers here."""
    preprocess = job.data.preprocess
    asked = {
        "add_bos": preprocess.add_bos,
        "add_eos": preprocess.add_eos,
        "padding": preprocess.padding not in ("", "longest"),
    }
    if wrong := [name for name, is_asked in asked.items() if is_asked]:
        raise TrainingRefused(
            f"data_config.preprocess: {' and '.join(wrong)} cannot be set for {job.training_type}:"
            " its records are ended with the tokenizer's token or by the chat template, and padded"
            " to the longest of a batch; remove what is set"
        )


def _both(run: Run, shaped: Any) -> "tuple[Dataset, Dataset | None]":
    check_preprocess(run.job)
    held = run.records.validation
    return (
        shaped(run.records.training, "the records to train on"),
        None if held is None else shaped(held, "the records held back"),
    )


def _with_prompt(run: Run, records: "Dataset") -> "Dataset":
    if run.records.form is not Form.IMPLICIT_PREFERENCE:
        return records
    from trl import extract_prompt

    return records.map(extract_prompt, new_fingerprint=None)


def _pairs(run: Run, records: "Dataset", max_length: int, what: str) -> "Dataset":
    records = _with_prompt(run, records).select_columns(["prompt", *_PAIR])
    for number, record in enumerate(records, 1):
        if record["chosen"] == record["rejected"]:
            raise TrainingRefused(
                f"{what}: record {number}: chosen and rejected are the same; leave it out"
            )
        if run.job.data.preprocess.truncation:
            continue
        for column in _PAIR:
            count = _tokens(run, record["prompt"], record[column])
            if count > max_length:
                raise TrainingRefused(
                    f"{what}: record {number}: prompt and {column} have {count} tokens;"
                    f" max_seq_length is {max_length}. Raise data_config.max_seq_length, or set"
                    " data_config.preprocess.truncation to cut what is longer"
                )
    return records


def _prompts(run: Run, records: "Dataset", max_length: int, what: str) -> "Dataset":
    records = _with_prompt(run, records).select_columns(["prompt"])
    for number, record in enumerate(records, 1):
        count = _tokens(run, record["prompt"], None)
        if count > max_length:
            raise TrainingRefused(
                f"{what}: record {number}: its prompt has {count} tokens, and the model has room"
                f" for {max_length} before the answer. Leave it out by data_config.sources.filters,"
                " or lower hyperparameters.max_completion_length"
            )
    return records


def _tokens(run: Run, prompt: Any, answer: Any) -> int:
    """Return how many tokens a prompt with an answer has. Raises TrainingRefused."""
    if isinstance(prompt, str):
        return len(run.tokenizer(prompt + (answer or ""))["input_ids"])
    if not run.tokenizer.chat_template:
        raise TrainingRefused(
            "the records are conversations, and the tokenizer has no chat template; set"
            ' data_config.preprocess.chat_template to one, or to "chatml"'
        )
    messages = [
        {key: value for key, value in message.items() if value is not None}
        for message in [*prompt, *(answer or [])]
    ]
    rendered = run.tokenizer.apply_chat_template(
        messages, add_generation_prompt=answer is None, tokenize=True, return_dict=True
    )
    return len(rendered["input_ids"])
