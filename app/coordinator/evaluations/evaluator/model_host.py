"""Run a model's own code for an evaluation, as a process of its own. Stands alone: it is copied.

`model_host.py <the model's directory> <descriptor of a socket> <its parent> [<base> ...]` loads
the model and says one line of JSON: `{}`, or why there is none. A `base` is the directory of what
the model is an adapter on, the nearest first. Then it answers requests, a line of JSON each:
`[<method>, <argument>, ...]` by `{"value": ...}` or `{"error": ...}`. It ends with the one that
started it, and when the socket does.
"""

import ctypes
import importlib
import importlib.util
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

OWN_MODEL = "scaimind_model"
CHARACTER_MODEL = "model.npz"
#: The same, exported as safetensors: the alphabet is in the metadata, as JSON.
EXPORTED_MODEL = "model.safetensors"
#: A model of transformers, or a LoRA adapter on one.
TRANSFORMERS_CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
_PR_SET_PDEATHSIG = 1


class NoModel(Exception):
    """A directory has no model; the message says what it lacks."""


class Model(Protocol):
    """What a model can do."""

    def score(self, prompt: str, continuation: str) -> tuple[float, int]:
        """The log-probability in nats of `continuation` behind `prompt`, and its tokens."""

    def generate(self, prompt: str, max_tokens: int) -> str:
        """The most probable continuation."""


class Files(Protocol):
    """Where the files of a model are, whatever they lie in."""

    def __call__(self, name: str) -> bytes | None:
        """The content of a file; None if it is not there."""


def is_transformers(read: Files) -> bool:
    """Whether a directory holds a model of transformers, or an adapter on one, and no code."""
    if read(f"{OWN_MODEL}.py") is not None:
        return False
    if read(ADAPTER_CONFIG) is not None:
        return True
    try:
        config = json.loads(read(TRANSFORMERS_CONFIG) or b"null")
    except (ValueError, RecursionError):
        return False
    return isinstance(config, dict) and "model_type" in config


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
        """The log-probability; what comes before the prompt counts as line breaks."""
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
        """The most probable character, `max_tokens` times."""
        np = self._np
        tokens = [*self._tokens("\n" * self._context), *self._tokens(prompt)]
        start = len(tokens)
        for _ in range(max_tokens):
            tokens.append(int(self._log_odds(np.array([tokens[-self._context :]]))[0].argmax()))
        return "".join(self._alphabet[token] for token in tokens[start:])


def load_model(path: Path, bases: Sequence[Path] = ()) -> Model:
    """The model in a directory; `bases` are what it is an adapter on, the nearest first.

    Raises NoModel, and whatever the model's own code raises.
    """
    if (path / f"{OWN_MODEL}.py").is_file():
        # It may import what lies beside it.
        sys.path.insert(0, str(path))
        module = importlib.import_module(OWN_MODEL)
        if not hasattr(module, "load"):
            raise NoModel(f"{OWN_MODEL}.py has no function load(directory)")
        model: Model = module.load(path)
        return model
    if is_transformers(lambda name: _content(path / name)):
        return _transformers_model(path, bases)
    if (path / CHARACTER_MODEL).is_file():
        return CharacterModel(path / CHARACTER_MODEL)
    if (path / EXPORTED_MODEL).is_file():
        return CharacterModel(path / EXPORTED_MODEL)
    raise NoModel(
        f"the model's directory has none of {OWN_MODEL}.py, {TRANSFORMERS_CONFIG} of transformers,"
        f" {ADAPTER_CONFIG}, {CHARACTER_MODEL}, {EXPORTED_MODEL}"
    )


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _transformers_model(path: Path, bases: Sequence[Path]) -> Model:
    # By its file: what lies beside it must not be found by what transformers imports.
    beside = Path(__file__).with_name("transformers_model.py")
    spec = importlib.util.spec_from_file_location("transformers_model", beside)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model: Model = module.TransformersModel(path, bases)
    return model


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


def answer(model: Model, request: list[Any]) -> dict[str, Any]:
    """What the model says to a request, or why it does not."""
    method, *arguments = request
    try:
        if method == "score":
            score, tokens = model.score(*arguments)
            return {"value": [float(score), int(tokens)]}
        if method == "harness":
            if (harness := getattr(model, "harness", None)) is None:
                raise TypeError("lm-evaluation-harness runs on models of transformers only")
            return {"value": harness(*arguments)}
        return {"value": str(model.generate(*arguments))}
    except Exception as error:  # whatever the model's own code raises
        return failure(error)


def failure(error: Exception) -> dict[str, Any]:
    """An error for people; the log gets all of it."""
    traceback.print_exception(error)
    return {"error": f"{type(error).__name__}: {error}"}


def main() -> int:
    """Answer until nobody asks any more."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(sys.argv[3]):
        return 1
    with socket.socket(fileno=int(sys.argv[2])) as connection, connection.makefile("rwb") as file:

        def say(message: dict[str, Any]) -> None:
            file.write(json.dumps(message).encode() + b"\n")
            file.flush()

        try:
            model = load_model(Path(sys.argv[1]), [*map(Path, sys.argv[4:])])
        except NoModel as error:
            say({"none": str(error)})
            return 0
        except Exception as error:  # whatever the model's own code raises
            say(failure(error))
            return 0
        say({})
        for line in file:
            say(answer(model, json.loads(line)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
