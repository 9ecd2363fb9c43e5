"""Records as tokens: what the model sees and what of it counts for the loss."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..errors import TrainingRefused, shown
from .forms import Form

if TYPE_CHECKING:
    from datasets import Dataset

log: Final = logging.getLogger(__name__)
#: The label of a token that does not count.
IGNORED: Final = -100


@dataclass(frozen=True, slots=True)
class Tokenising:
    """How records become tokens."""

    #: Tokens of a record at most.
    max_length: int
    #: Whether longer records are cut; else they are refused.
    truncate: bool
    #: Whether records are divided anew when they are packed, so that none is too long.
    divides: bool
    #: Whether only what the assistant says, or the completion, counts for the loss.
    answers_only: bool
    add_bos: bool
    #: Only of texts and conversations that a template ends otherwise: the trainers end texts and
    #: completions with it in any case.
    add_eos: bool


def tokenised(
    dataset: "Dataset", form: Form, tokenizer: Any, how: Tokenising, *, what: str, workers: int
) -> "Dataset":
    """Return `input_ids` and `labels` of each record, in order.

    `what` names the records for messages. Raises TrainingRefused for a record that is too
    long or that a chat template refuses, with its number.
    """
    encoder = _Encoder(tokenizer, form, how)
    encoder.prepare(dataset[0])

    def encode(record: dict[str, Any], at: int) -> dict[str, Any]:
        try:
            ids, labels = encoder.encode(record)
        except _Unfit as unfit:
            raise TrainingRefused(f"{what}: record {at + 1}: {unfit}") from None
        if len(ids) > how.max_length and not how.divides:
            if not how.truncate:
                raise TrainingRefused(
                    f"{what}: record {at + 1} has {len(ids)} tokens; max_seq_length is"
                    f" {how.max_length}. Raise data_config.max_seq_length, or set"
                    " data_config.preprocess.truncation to cut what is longer"
                )
            ids, labels = ids[: how.max_length], labels[: how.max_length]
        return {"input_ids": ids, "labels": labels}

    tokens = dataset.map(
        encode,
        with_indices=True,
        remove_columns=dataset.column_names,
        num_proc=workers if workers > 1 and len(dataset) > 10_000 else None,
        new_fingerprint=_fingerprint(dataset, form, tokenizer, how),
    )
    counting = sum(any(label != IGNORED for label in labels) for labels in tokens["labels"])
    if not counting:
        raise TrainingRefused(
            f"{what}: no token of any record counts for the loss: the prompts alone fill"
            f" max_seq_length ({how.max_length})"
        )
    if counting < len(tokens):
        log.warning(
            "%s: %d of %d records are left out: nothing of them counts for the loss within %d"
            " tokens",
            what,
            len(tokens) - counting,
            len(tokens),
            how.max_length,
        )
        tokens = tokens.filter(
            lambda labels: any(label != IGNORED for label in labels), input_columns=["labels"]
        )
    return tokens


def _fingerprint(dataset: "Dataset", form: Form, tokenizer: Any, how: Tokenising) -> str:
    """Return a name of the result, so that ranks of a machine share it."""
    import hashlib

    about = repr(
        (
            dataset._fingerprint,
            form,
            how,
            tokenizer.chat_template,
            tokenizer.special_tokens_map,
            tokenizer.name_or_path,
            len(tokenizer),
        )
    )
    return hashlib.sha256(about.encode()).hexdigest()[:16]


class _Unfit(Exception):
    """What is wrong with a record as tokens."""


class _Encoder:
    """Makes the tokens of one record after the other."""

    def __init__(self, tokenizer: Any, form: Form, how: Tokenising) -> None:
        self._tokenizer = tokenizer
        self._form = form
        self._how = how
        self._template: str | None = None
        self._has_marks = False
        self._is_conversation = False

    def prepare(self, first: dict[str, Any]) -> None:
        """Find out how a conversation is rendered. Raises TrainingRefused."""
        if not any(isinstance(first[column], list) for column in self._form.columns):
            if self._how.add_bos and self._tokenizer.bos_token_id is None:
                raise TrainingRefused(
                    "preprocess.add_bos: the tokenizer has no token for it; set bos_token in"
                    " preprocess.tokenizer_kwargs"
                )
            return
        self._is_conversation = True
        if not self._tokenizer.chat_template:
            raise TrainingRefused(
                "the records are conversations, and the tokenizer has no chat template; set"
                ' data_config.preprocess.chat_template to one, or to "chatml"'
            )
        from trl.chat_template_utils import get_training_chat_template

        if "{% generation" not in self._tokenizer.chat_template.replace("{%-", "{%"):
            try:
                self._template = get_training_chat_template(self._tokenizer)
            except ValueError:
                # Of no known family: the turns are found by rendering the conversation so far.
                return
        self._has_marks = True

    def encode(self, record: dict[str, Any]) -> tuple[list[int], list[int]]:
        """Return the tokens and their labels. Raises _Unfit."""
        if self._form is Form.TEXT:
            ids = self._text(record["text"])
            return self._ended(ids, [*ids])
        if self._form is Form.MESSAGES:
            ids, counts = self._conversation(record["messages"], record.get("tools"))
        elif isinstance(record["prompt"], list):
            ids, counts = self._answered(record)
        else:
            prompt = self._text(record["prompt"])
            ids = self._text(record["prompt"] + record["completion"])
            start = _common(prompt, ids)
            counts = [at >= start for at in range(len(ids))]
        if not self._how.answers_only:
            counts = [True] * len(ids)
        labels = [each if count else IGNORED for each, count in zip(ids, counts, strict=True)]
        return self._ended(ids, labels)

    def _text(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text)["input_ids"]
        bos = self._tokenizer.bos_token_id
        if self._how.add_bos and bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        return ids

    def _ended(self, ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
        """Return them with an end where there is to be one; the end counts."""
        eos = self._tokenizer.eos_token_id
        # A template ends a conversation in its own way.
        wanted = self._how.add_eos or not self._is_conversation
        if wanted and eos is not None and ids[-1:] != [eos]:
            return [*ids, eos], [*labels, eos]
        return ids, labels

    def _render(self, messages: Sequence[dict[str, Any]], tools: Any, **options: Any) -> Any:
        plain = [
            {key: value for key, value in message.items() if value is not None}
            for message in messages
        ]
        try:
            return self._tokenizer.apply_chat_template(
                plain,
                tools=tools or None,
                tokenize=True,
                return_dict=True,
                chat_template=self._template,
                **options,
            )
        except (ValueError, TypeError, KeyError) as error:
            raise _Unfit(f"the chat template refuses it ({error})") from None
        except Exception as error:
            # Templates are Jinja's; it raises errors of its own for what a template refuses.
            if type(error).__module__.partition(".")[0] != "jinja2":
                raise
            raise _Unfit(f"the chat template refuses it ({error})") from None

    def _conversation(
        self, messages: Sequence[dict[str, Any]], tools: Any
    ) -> tuple[list[int], list[bool]]:
        if not self._how.answers_only:
            ids = self._render(messages, tools)["input_ids"]
            return ids, [True] * len(ids)
        if self._has_marks:
            rendered = self._render(messages, tools, return_assistant_tokens_mask=True)
            counts = [bool(each) for each in rendered["assistant_masks"]]
            if not any(counts):
                raise _Unfit("no message of it is the assistant's, so nothing could be learnt")
            return rendered["input_ids"], counts
        return self._turns(messages, tools)

    def _turns(
        self, messages: Sequence[dict[str, Any]], tools: Any
    ) -> tuple[list[int], list[bool]]:
        """Find the assistant's turns by what each adds to the conversation before it."""
        ids: list[int] = self._render(messages, tools)["input_ids"]
        counts = [False] * len(ids)
        for at, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            if at == 0:
                raise _Unfit("its first message is the assistant's; begin with what is asked")
            before = self._render(messages[:at], tools, add_generation_prompt=True)["input_ids"]
            until = self._render(messages[: at + 1], tools)["input_ids"]
            start, end = _common(before, ids), _common(until, ids)
            counts[start:end] = [True] * (end - start)
        if not any(counts):
            raise _Unfit("no message of it is the assistant's, so nothing could be learnt")
        return ids, counts

    def _answered(self, record: dict[str, Any]) -> tuple[list[int], list[bool]]:
        prompt = self._render(record["prompt"], None, add_generation_prompt=True)["input_ids"]
        ids = self._render([*record["prompt"], *record["completion"]], None)["input_ids"]
        start = _common(prompt, ids)
        return ids, [at >= start for at in range(len(ids))]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with alike."""
    for at, (first, second) in enumerate(zip(one, other, strict=False)):
        if first != second:
            return at
    return min(len(one), len(other))


def described(tokens: dict[str, Any], tokenizer: Any, *, most: int = 2000) -> str:
    """Return an example as the model sees it: what does not count for the loss stands in ⟦ ⟧."""
    parts: list[str] = []
    for ids, counts in _runs(tokens["input_ids"], tokens["labels"]):
        text = tokenizer.decode(ids)
        parts.append(text if counts else f"⟦{text}⟧")
    text = "".join(parts)
    return shown_start(text, most)


def shown_start(text: str, most: int) -> str:
    """Return the beginning of a text on one line, quoted."""
    return shown(text) if len(text) < 80 else repr(text[:most] + ("…" if len(text) > most else ""))


def _runs(ids: Sequence[int], labels: Sequence[int]) -> list[tuple[list[int], bool]]:
    runs: list[tuple[list[int], bool]] = []
    for token, label in zip(ids, labels, strict=True):
        counts = label != IGNORED
        if runs and runs[-1][1] is counts:
            runs[-1][0].append(token)
        else:
            runs.append(([token], counts))
    return runs
