"""Score a model on data sets, as the process of an evaluation job. Stands alone: it is copied.

Reads `SCAIMIND_JOB_CONFIG` (`model_path` and `benchmarks`) and writes
`results.json` into `SCAIMIND_OUTPUT_DIR`.

A model is a directory. If it holds `scaimind_model.py`, that file's
`load(directory)` gives the model: an object with

    score(prompt: str, continuation: str) -> tuple[float, int]
        the log-probability in nats of `continuation` behind `prompt`, and of
        how many tokens it is made;
    generate(prompt: str, max_tokens: int) -> str
        the most probable continuation.

Otherwise `model.npz` is read as the example's character model.
"""

# ruff: noqa: T201  # what a process prints is its log
import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol


class BadData(Exception):
    """A data set or a model is not what a benchmark needs; the message says where."""


class Model(Protocol):
    """What a model can do."""

    def score(self, prompt: str, continuation: str) -> tuple[float, int]:
        """Log-probability in nats, and tokens."""

    def generate(self, prompt: str, max_tokens: int) -> str:
        """The most probable continuation."""


class CharacterModel:
    """The model that the example trains: one token is one character."""

    def __init__(self, path: Path) -> None:
        import numpy as np

        self._np = np
        with np.load(path) as arrays:
            self._weights = {name: arrays[name] for name in arrays.files if name != "alphabet"}
            self._alphabet = [str(character) for character in arrays["alphabet"]]
        self._number = {character: at for at, character in enumerate(self._alphabet)}
        embedding = self._weights["embedding"].shape[1]
        self._context = self._weights["hidden"].shape[0] // embedding

    def _log_odds(self, windows: Any) -> Any:
        np, weights = self._np, self._weights
        inputs = weights["embedding"][windows].reshape(len(windows), -1)
        hidden = np.tanh(inputs @ weights["hidden"] + weights["hidden_bias"])
        logits = (hidden @ weights["output"] + weights["output_bias"]).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def _tokens(self, text: str) -> list[int]:
        """Characters that the model has never seen count as line breaks."""
        unknown = self._number.get("\n", 0)
        return [self._number.get(character, unknown) for character in text]

    def score(self, prompt: str, continuation: str) -> tuple[float, int]:
        """See the module."""
        np = self._np
        came = self._tokens(continuation)
        if not came:
            return 0.0, 0
        padding = self._tokens("\n" * self._context)
        tokens = np.array([*padding, *self._tokens(prompt), *came])
        total = 0.0
        for start in range(0, len(came), 4096):
            piece = np.array(came[start : start + 4096])
            at = len(tokens) - len(came) + start + np.arange(len(piece))
            windows = tokens[at[:, None] - self._context + np.arange(self._context)]
            total += float(self._log_odds(windows)[np.arange(len(piece)), piece].sum())
        return total, len(came)

    def generate(self, prompt: str, max_tokens: int) -> str:
        """See the module."""
        np = self._np
        tokens = [*self._tokens("\n" * self._context), *self._tokens(prompt)]
        start = len(tokens)
        for _ in range(max_tokens):
            tokens.append(int(self._log_odds(np.array([tokens[-self._context :]]))[0].argmax()))
        return "".join(self._alphabet[token] for token in tokens[start:])


def load_model(path: Path) -> Model:
    """The model in a directory. Raises BadData."""
    own = path / "scaimind_model.py"
    if own.is_file():
        spec = importlib.util.spec_from_file_location("scaimind_model", own)
        if spec is None or spec.loader is None:
            raise BadData("scaimind_model.py cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model: Model = module.load(path)
        return model
    if (path / "model.npz").is_file():
        return CharacterModel(path / "model.npz")
    raise BadData("the model's directory has neither scaimind_model.py nor model.npz")


def records(path: Path, limit: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a JSONL file with their line numbers; at most `limit` unless it is 0."""

    def every() -> Iterator[tuple[int, dict[str, Any]]]:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except ValueError as error:
                    raise BadData(f"line {number}: it is not JSON ({error})") from None
                if not isinstance(value, dict):
                    raise BadData(f"line {number}: it is not a JSON object")
                yield number, value

    return islice(every(), limit or None)


def _text(record: dict[str, Any], name: str, number: int) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise BadData(f"line {number}: it has no text {name!r}")
    return value


Scores = tuple[dict[str, float], int]


def perplexity(model: Model, data: Path, limit: int, parameters: dict[str, str]) -> Scores:
    """How surprised the model is, per token, by the field `text` (or `parameters["field"]`)."""
    field = parameters.get("field", "text")
    total, tokens, samples = 0.0, 0, 0
    for number, record in records(data, limit):
        score, count = model.score("", _text(record, field, number))
        total, tokens, samples = total + score, tokens + count, samples + 1
    if not tokens:
        raise BadData("there is no text to score")
    loss = -total / tokens
    # Beyond this the number has no meaning left, and exp() no answer.
    return {"perplexity": math.exp(min(loss, 700.0)), "loss": loss, "tokens": tokens}, samples


def exact_match(model: Model, data: Path, limit: int, parameters: dict[str, str]) -> Scores:
    """How often the continuation of `prompt` is `answer`, blanks around it aside."""
    hits = samples = 0
    for number, record in records(data, limit):
        answer = _text(record, "answer", number)
        length = int(parameters.get("max_tokens", len(answer) + 1))
        said = model.generate(_text(record, "prompt", number), length)
        hits += said.strip() == answer.strip()
        samples += 1
    if not samples:
        raise BadData("there is no record to score")
    return {"exact_match": hits / samples}, samples


def multiple_choice(model: Model, data: Path, limit: int, parameters: dict[str, str]) -> Scores:
    """How often the most probable of `choices` behind `question`, per token, is the `answer`.

    `answer` is the index of the right choice, from 0, or its text.
    """
    hits = samples = 0
    for number, record in records(data, limit):
        question, choices = _text(record, "question", number), record.get("choices")
        if not isinstance(choices, list) or len(choices) < 2:
            raise BadData(f"line {number}: it has no list 'choices' of two or more")
        answer = record.get("answer")
        right = choices.index(answer) if answer in choices else answer
        if not isinstance(right, int) or not 0 <= right < len(choices):
            raise BadData(f"line {number}: its 'answer' is none of the choices")
        scored = [model.score(question, str(choice)) for choice in choices]
        means = [score / max(count, 1) for score, count in scored]
        hits += means.index(max(means)) == right
        samples += 1
    if not samples:
        raise BadData("there is no record to score")
    return {"accuracy": hits / samples}, samples


BENCHMARKS: dict[str, Callable[[Model, Path, int, dict[str, str]], Scores]] = {
    "perplexity": perplexity,
    "exact_match": exact_match,
    "multiple_choice": multiple_choice,
}


def main() -> int:
    """Run the benchmarks; status 1 if not one of them gave scores."""
    config = json.loads(Path(os.environ["SCAIMIND_JOB_CONFIG"]).read_text(encoding="utf-8"))
    try:
        model = load_model(Path(config["model_path"]))
    except BadData as error:
        print(f"The model cannot be loaded: {error}", file=sys.stderr)
        return 1
    results = []
    for step, benchmark in enumerate(config["benchmarks"], 1):
        began = time.monotonic()
        result: dict[str, Any] = {"scores": {}, "num_samples": 0, "error_message": ""}
        try:
            result["scores"], result["num_samples"] = BENCHMARKS[benchmark["name"]](
                model,
                Path(benchmark["local_path"]),
                benchmark["num_samples"],
                benchmark["parameters"],
            )
        except (BadData, ValueError) as error:
            result["error_message"] = f"{benchmark['dataset']}: {error}"
        result["duration_seconds"] = time.monotonic() - began
        results.append(result)
        print(
            f"{benchmark['name']} on {benchmark['dataset']}: "
            f"{result['error_message'] or result['scores']}"
        )
        with open(os.environ["SCAIMIND_METRICS_FILE"], "a", encoding="utf-8") as metrics:
            names = {f"eval_{name}": score for name, score in result["scores"].items()}
            metrics.write(json.dumps({"step": step, **names}) + "\n")
    output = Path(os.environ["SCAIMIND_OUTPUT_DIR"]) / "results.json"
    output.write_text(json.dumps(results), encoding="utf-8")
    if all(result["error_message"] for result in results):
        print(results[0]["error_message"], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
