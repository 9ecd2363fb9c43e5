"""The benchmarks: what they read, ask the model and make of its answers."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from .bounds import MAX_RECORD

#: Scores by name, and how many samples were scored.
Scores = tuple[dict[str, float], int]


class BadData(Exception):
    """A data set or a model is not what a benchmark needs; the message says where."""


class BadParameter(Exception):
    """A benchmark was given a parameter that it does not take; the message says which it takes."""


#: A text that is continued, or messages that are answered.
Prompt = str | list[dict[str, Any]]


class Model(Protocol):
    """What a model is asked."""

    def score(self, prompt: Prompt, continuation: str) -> tuple[float, int]:
        """The log-probability in nats of `continuation` behind `prompt`, and its tokens."""

    def generate(self, prompt: Prompt, max_tokens: int) -> str:
        """The most probable continuation."""

    def harness(
        self, task: str | Path, limit: int, shots: int | None
    ) -> tuple[dict[str, float], int]:
        """Scores of a task of lm-evaluation-harness, by its name or its folder, and its samples.

        `shots` are the examples before each question; None has as many as the task says.
        """


def records(path: Path, limit: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a JSONL file and where they are; at most `limit` unless it is 0.

    Raises BadData, also where there is none.
    """

    def every() -> Iterator[tuple[str, dict[str, Any]]]:
        with open(path, "rb") as file:
            lines = iter(lambda: file.readline(MAX_RECORD + 1), b"")
            for number, line in enumerate(lines, 1):
                if len(line) > MAX_RECORD:
                    raise BadData(f"line {number} is longer than {MAX_RECORD} bytes")
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise BadData(f"line {number}: it is not JSON ({error})") from None
                if not isinstance(value, dict):
                    raise BadData(f"line {number}: it is not a JSON object")
                yield f"line {number}", value

    found = False
    for record in islice(every(), limit or None):
        found = True
        yield record
    if not found:
        raise BadData("there is no record to score")


def _text(record: dict[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise BadData(f"{where}: it has no text {name!r}")
    return value


def _prompt(record: dict[str, Any], name: str, where: str) -> Prompt:
    value = record.get(name)
    if not isinstance(value, list):
        return _text(record, name, where)
    if not value or not all(
        isinstance(each, dict)
        and isinstance(each.get("role"), str)
        and isinstance(each.get("content"), str)
        for each in value
    ):
        raise BadData(f"{where}: {name!r} is a list, but not of messages with role and content")
    return value


def _choices(record: dict[str, Any], where: str) -> list[str]:
    value = record.get("choices")
    if isinstance(value, list) and len(value) > 1 and all(isinstance(each, str) for each in value):
        return value
    raise BadData(f"{where}: it has no list 'choices' of two or more texts")


def _score(model: Model, prompt: Prompt, text: str, where: str) -> tuple[float, int]:
    score, tokens = model.score(prompt, text)
    # Minus infinity is a probability of 0; a probability over 1 is none.
    if math.isnan(score) or score == math.inf or not 0 <= tokens < 2**53:
        raise BadData(f"{where}: the model returned {score} for {tokens} tokens")
    return score, tokens


def perplexity(model: Model, data: Path, limit: int, *, field: str = "text") -> Scores:
    """How surprised the model is, per token, by the text in `field`."""
    total, tokens, samples = 0.0, 0, 0
    for where, record in records(data, limit):
        score, count = _score(model, "", _text(record, field, where), where)
        if not math.isfinite(total + score):
            raise BadData(f"{where}: the model returned {score}, and perplexity is infinite then")
        total, tokens, samples = total + score, tokens + count, samples + 1
    if not tokens:
        raise BadData("there is no text to score")
    loss = -total / tokens
    # Beyond this the number has no meaning left, and exp() no answer.
    return {"perplexity": math.exp(min(loss, 700.0)), "loss": loss, "tokens": tokens}, samples


def exact_match(model: Model, data: Path, limit: int, *, max_tokens: int = 0) -> Scores:
    """How often the continuation of `prompt` is `answer`, blanks around it aside.

    Unless `max_tokens` is given, one more than the answer has characters may be generated.
    """
    hits = samples = 0
    for where, record in records(data, limit):
        answer = _text(record, "answer", where)
        said = model.generate(_prompt(record, "prompt", where), max_tokens or len(answer) + 1)
        hits += said.strip() == answer.strip()
        samples += 1
    return {"exact_match": hits / samples}, samples


def multiple_choice(model: Model, data: Path, limit: int) -> Scores:
    """How often the most probable of `choices` behind `question`, per token, is the `answer`.

    `answer` is the index of the right choice, from 0, or its text.
    """
    hits = samples = 0
    for where, record in records(data, limit):
        question, choices = _prompt(record, "question", where), _choices(record, where)
        answer = record.get("answer")
        right = choices.index(answer) if answer in choices else answer
        if type(right) is not int or not 0 <= right < len(choices):
            raise BadData(f"{where}: its 'answer' is not one of the choices")
        scored = [_score(model, question, choice, where) for choice in choices]
        means = [score / max(tokens, 1) for score, tokens in scored]
        hits += means.index(max(means)) == right
        samples += 1
    return {"accuracy": hits / samples}, samples


def harness(
    model: Model, task: str | Path, limit: int, *, num_fewshot: int | None = None
) -> Scores:
    """What lm-evaluation-harness says of a task: one of its own, which brings its data, or one
    in a folder with its data."""
    scores, samples = model.harness(task, limit, num_fewshot)
    if not scores:
        raise BadData("lm-evaluation-harness returned no scores")
    return scores, samples


def _shots(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 101
    if number > 100:
        raise ValueError("must be a number from 0 to 100")
    return number


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 0 < number <= 65_536:
        raise ValueError("must be a number from 1 to 65536")
    return number


@dataclass(frozen=True)
class Benchmark:
    """A way to score a model: which, and what its parameters are made of (ValueError: bad)."""

    #: Called with the model, the data set's path (or the task's name), a limit and parameters.
    run: Callable[..., Scores]
    parameters: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    #: Whether `dataset` names a task of lm-evaluation-harness, and not a file.
    of_harness: bool = False

    def read(self, given: Mapping[str, str]) -> dict[str, Any]:
        """The parameters as `run` takes them. Raises BadParameter."""
        found = {}
        for name, text in given.items():
            if name not in self.parameters:
                known = ", ".join(sorted(self.parameters)) or "none"
                shown = name if len(name) <= 64 else f"{name[:63]}…"
                raise BadParameter(f"{shown!r} is not known; there are: {known}")
            try:
                found[name] = self.parameters[name](text)
            except ValueError as error:
                raise BadParameter(f"{name}: {error}") from None
        return found


BENCHMARKS = {
    "perplexity": Benchmark(perplexity, {"field": str}),
    "exact_match": Benchmark(exact_match, {"max_tokens": _count}),
    "multiple_choice": Benchmark(multiple_choice),
    "lm_eval": Benchmark(harness, {"num_fewshot": _shots}, of_harness=True),
}
