"""Score a model on data sets, as the process of an evaluation job. Stands alone: it is copied.

Reads `SCAIMIND_JOB_CONFIG` (`model_path` and `benchmarks`) and writes
`results.json` into `SCAIMIND_OUTPUT_DIR`. What a model's directory must hold,
and what the benchmarks do, is in docs/evaluations.md.
"""

# ruff: noqa: T201  # what a process prints is its log
import importlib
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

OWN_MODEL = "scaimind_model"
CHARACTER_MODEL = "model.npz"
#: The same, exported as safetensors: the alphabet is in the metadata, as JSON.
EXPORTED_MODEL = "model.safetensors"
RESULTS = "results.json"

#: Scores by name, and how many samples were scored.
Scores = tuple[dict[str, float], int]


class BadData(Exception):
    """A data set or a model is not what a benchmark needs; the message says where."""


class BadParameter(Exception):
    """A benchmark was given a parameter that it does not take; the message says which it takes."""


class Model(Protocol):
    """What a model can do."""

    def score(self, prompt: str, continuation: str) -> tuple[float, int]:
        """The log-probability in nats of `continuation` behind `prompt`, and its tokens."""

    def generate(self, prompt: str, max_tokens: int) -> str:
        """The most probable continuation."""


class CharacterModel:
    """The model that the example trains: one token is one character."""

    def __init__(self, path: Path) -> None:
        import numpy as np

        self._np = np
        self._weights, self._alphabet = _character_arrays(path)
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
        """See Model; what comes before the prompt counts as line breaks."""
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
        """See Model."""
        np = self._np
        tokens = [*self._tokens("\n" * self._context), *self._tokens(prompt)]
        start = len(tokens)
        for _ in range(max_tokens):
            tokens.append(int(self._log_odds(np.array([tokens[-self._context :]]))[0].argmax()))
        return "".join(self._alphabet[token] for token in tokens[start:])


def load_model(path: Path) -> Model:
    """The model in a directory. Raises BadData, and whatever the model's own code raises."""
    if (path / f"{OWN_MODEL}.py").is_file():
        # It may import what lies beside it.
        sys.path.insert(0, str(path))
        module = importlib.import_module(OWN_MODEL)
        if not hasattr(module, "load"):
            raise BadData(f"{OWN_MODEL}.py has no function load(directory)")
        model: Model = module.load(path)
        return model
    if (path / CHARACTER_MODEL).is_file():
        return CharacterModel(path / CHARACTER_MODEL)
    if (path / EXPORTED_MODEL).is_file():
        return CharacterModel(path / EXPORTED_MODEL)
    raise BadData(
        f"the model's directory has none of {OWN_MODEL}.py, {CHARACTER_MODEL}, {EXPORTED_MODEL}"
    )


def _character_arrays(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The weights and the alphabet of the example's model, as trained or as exported."""
    import numpy as np

    if path.name == EXPORTED_MODEL:
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as tensors:
            weights = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
            return weights, json.loads(tensors.metadata()["alphabet"])
    with np.load(path) as arrays:
        weights = {name: arrays[name] for name in arrays.files if name != "alphabet"}
        return weights, [str(character) for character in arrays["alphabet"]]


def records(path: Path, limit: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a JSONL file and where they are; at most `limit` unless it is 0.

    Raises BadData, also where there is none.
    """

    def every() -> Iterator[tuple[str, dict[str, Any]]]:
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except ValueError as error:
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


def _choices(record: dict[str, Any], where: str) -> list[str]:
    value = record.get("choices")
    if isinstance(value, list) and len(value) > 1 and all(isinstance(each, str) for each in value):
        return value
    raise BadData(f"{where}: it has no list 'choices' of two or more texts")


def _score(model: Model, prompt: str, text: str, where: str) -> tuple[float, int]:
    score, tokens = model.score(prompt, text)
    if math.isnan(score) or tokens < 0:
        raise BadData(f"{where}: the model gave {score} for {tokens} tokens")
    return score, tokens


def perplexity(model: Model, data: Path, limit: int, *, field: str = "text") -> Scores:
    """How surprised the model is, per token, by the text in `field`."""
    total, tokens, samples = 0.0, 0, 0
    for where, record in records(data, limit):
        score, count = _score(model, "", _text(record, field, where), where)
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
        said = model.generate(_text(record, "prompt", where), max_tokens or len(answer) + 1)
        hits += said.strip() == answer.strip()
        samples += 1
    return {"exact_match": hits / samples}, samples


def multiple_choice(model: Model, data: Path, limit: int) -> Scores:
    """How often the most probable of `choices` behind `question`, per token, is the `answer`.

    `answer` is the index of the right choice, from 0, or its text.
    """
    hits = samples = 0
    for where, record in records(data, limit):
        question, choices = _text(record, "question", where), _choices(record, where)
        answer = record.get("answer")
        right = choices.index(answer) if answer in choices else answer
        if type(right) is not int or not 0 <= right < len(choices):
            raise BadData(f"{where}: its 'answer' is none of the choices")
        scored = [_score(model, question, choice, where) for choice in choices]
        means = [score / max(tokens, 1) for score, tokens in scored]
        hits += means.index(max(means)) == right
        samples += 1
    return {"accuracy": hits / samples}, samples


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 65_536:
        raise ValueError("it is not a number from 1 to 65536")
    return int(text)


@dataclass(frozen=True)
class Benchmark:
    """A way to score a model: which, and what its parameters are made of (ValueError: bad)."""

    run: Callable[..., Scores]
    parameters: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)

    def read(self, given: Mapping[str, str]) -> dict[str, Any]:
        """The parameters as `run` takes them. Raises BadParameter."""
        found = {}
        for name, text in given.items():
            if name not in self.parameters:
                known = ", ".join(sorted(self.parameters)) or "none"
                raise BadParameter(f"{name[:64]!r} is not known; there are: {known}")
            try:
                found[name] = self.parameters[name](text)
            except ValueError as error:
                raise BadParameter(f"{name}: {error}") from None
        return found


BENCHMARKS = {
    "perplexity": Benchmark(perplexity, {"field": str}),
    "exact_match": Benchmark(exact_match, {"max_tokens": _count}),
    "multiple_choice": Benchmark(multiple_choice),
}


def _told(error: Exception) -> str:
    """What is wrong, for people; of an error that the model's own code made, the log gets all."""
    if isinstance(error, BadData):
        return str(error)
    traceback.print_exception(error)
    return f"the model failed with {type(error).__name__}: {error}"


def evaluate(model: Model, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The result of one benchmark; `error_message` says why there are no scores."""
    began = time.monotonic()
    scores: dict[str, float] = {}
    samples, problem = 0, ""
    benchmark = BENCHMARKS[asked["name"]]
    try:
        scores, samples = benchmark.run(
            model,
            Path(asked["local_path"]),
            asked["num_samples"],
            **benchmark.read(asked["parameters"]),
        )
    except Exception as error:  # a model that fails ends its benchmark, not the others
        problem = f"{asked['dataset']}: {_told(error)}"
    return {
        "scores": scores,
        "num_samples": samples,
        "error_message": problem,
        "duration_seconds": time.monotonic() - began,
    }


def main() -> int:
    """Run the benchmarks; status 1 if not one of them gave scores."""
    config = json.loads(Path(os.environ["SCAIMIND_JOB_CONFIG"]).read_text(encoding="utf-8"))
    try:
        model = load_model(Path(config["model_path"]))
    except Exception as error:  # whatever the model's own code raises
        print(f"The model cannot be loaded: {_told(error)}", file=sys.stderr)
        return 1
    results, problems = [], []
    for number, asked in enumerate(config["benchmarks"], 1):
        result = evaluate(model, asked)
        results.append(result)
        if problem := result["error_message"]:
            problems.append(f"{asked['name']}: {problem}")
            print(problems[-1], file=sys.stderr)
        else:
            print(f"{asked['name']} on {asked['dataset']}: {result['scores']}")
        numbers = {f"eval_{name}": score for name, score in result["scores"].items()}
        snapshot = {"step": number, "total_steps": len(config["benchmarks"]), **numbers}
        with open(os.environ["SCAIMIND_METRICS_FILE"], "a", encoding="utf-8") as metrics:
            metrics.write(json.dumps(snapshot) + "\n")
    output = Path(os.environ["SCAIMIND_OUTPUT_DIR"]) / RESULTS
    output.write_text(json.dumps(results), encoding="utf-8")
    if len(problems) == len(results):
        print(f"No benchmark gave scores. {problems[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
