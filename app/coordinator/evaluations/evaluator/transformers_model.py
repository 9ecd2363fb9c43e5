"""A causal language model of transformers: a folder as `save_pretrained` writes it, or an adapter.

Stands alone beside `model_host`, in the trainers' environment. No code of the model's folder is
run.
"""

import importlib.util
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ADAPTER = "adapter_config.json"
_TOKENIZER = "tokenizer_config.json"
#: Ends of files that hold weights as a pickle.
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
#: Tokens of a model that does not tell how many it can see.
_DEFAULT_CONTEXT = 1024


class TransformersModel:
    """Scores and generates with a model of transformers, on a GPU if the job holds one."""

    def __init__(self, path: Path, bases: Sequence[Path]) -> None:
        """Load it; `bases` are the folders of what an adapter is on, the nearest first."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._torch = torch
        self._harness: Any = None
        device = "cuda" if torch.cuda.is_available() else "cpu"
        folder, adapters = _parts([path, *bases])
        for each in (path, *bases):
            _refuse_pickles(each)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True)
        if device == "cpu" and model.dtype != torch.float32:
            # Halves are emulated on most CPUs: slow, and less exact than what they stand for.
            model = model.float()
        for adapter in adapters:
            from peft import PeftModel

            # Merged: an adapter on an adapter's model has that as its base.
            adapted = PeftModel.from_pretrained(model, str(adapter))
            _untie(model)
            model = adapted.merge_and_unload()
        self.model = model.to(device).eval()
        with_tokenizer = (each for each in (path, *bases) if (each / _TOKENIZER).is_file())
        self.tokenizer = AutoTokenizer.from_pretrained(next(with_tokenizer, folder))
        self._device = device
        text = model.config.get_text_config()
        self._context = int(getattr(text, "max_position_embeddings", 0) or _DEFAULT_CONTEXT)
        start = self.tokenizer.bos_token_id
        if start is None:
            start = self.tokenizer.eos_token_id
        #: What stands before the first token of a text.
        self._start = [] if start is None else [start]

    def score(self, prompt: str | list[dict[str, Any]], continuation: str) -> tuple[float, int]:
        """The log-probability in nats of `continuation` behind `prompt`, and its tokens.

        A text that is longer than the model can see is scored in pieces: each token behind at
        least the half of what the model can see.
        """
        before = self._before(prompt)
        came = self._encode(continuation)
        if not before:
            # No token stands before the first one, and so nothing predicts it.
            before, came = came[:1], came[1:]
        tokens = before + came
        total, scored = 0.0, 0
        while scored < len(came):
            first = len(before) + scored
            # A piece begins with what the model sees before it.
            seen = min(first, self._context - 1 if not scored else self._context // 2)
            piece = tokens[first - seen : first - seen + self._context]
            total += self._log_odds(piece, seen)
            scored += len(piece) - seen
        return total, len(came)

    def _log_odds(self, piece: list[int], seen: int) -> float:
        torch = self._torch
        with torch.no_grad():
            logits = self.model(torch.tensor([piece], device=self._device)).logits[0]
            odds = logits[seen - 1 : -1].float().log_softmax(-1)
            came = torch.tensor(piece[seen:], device=self._device)
            return float(odds.gather(1, came[:, None]).sum(dtype=torch.float64))

    def generate(self, prompt: str | list[dict[str, Any]], max_tokens: int) -> str:
        """The most probable continuation, without the prompt; messages are put into the chat
        template, and answered."""
        torch = self._torch
        before = self._before(prompt) or self._encode("\n")
        # A prompt that is too long loses its beginning, but no more than half of what is seen.
        room = max(self._context - max_tokens, self._context // 2)
        inputs = torch.tensor([before[-room:]], device=self._device)
        with torch.no_grad():
            tokens = self.model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=min(max_tokens, self._context - inputs.shape[1]),
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0,
            )
        text: str = self.tokenizer.decode(tokens[0, inputs.shape[1] :], skip_special_tokens=True)
        return text

    def harness(self, task: str, limit: int, shots: int | None) -> tuple[dict[str, float], int]:
        """Scores of a task of lm-evaluation-harness, by its name or the path of its folder, and
        its samples. Raises what the harness raises."""
        if self._harness is None:
            self._harness = _beside("harness_task").HarnessTasks(self.model, self.tokenizer)
        found: tuple[dict[str, float], int] = self._harness.evaluate(task, limit, shots)
        return found

    def _before(self, prompt: str | list[dict[str, Any]]) -> list[int]:
        if isinstance(prompt, str):
            return self._start + self._encode(prompt)
        rendered = self.tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, tokenize=True, return_dict=True
        )
        return list(rendered["input_ids"])

    def _encode(self, text: str) -> list[int]:
        tokens: Iterable[int] = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return list(tokens)


def _untie(model: Any) -> None:
    """Divide the weight that an adapted model reads and says words by: what is merged into the one
    would change the other."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch.nn import Parameter

    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    if None in ends or not any(isinstance(each, BaseTunerLayer) for each in ends):
        return
    first, last = (each.base_layer if isinstance(each, BaseTunerLayer) else each for each in ends)
    if first.weight is last.weight:
        last.weight = Parameter(last.weight.detach().clone())
        model.config.tie_word_embeddings = False


def _parts(folders: Sequence[Path]) -> tuple[Path | str, list[Path]]:
    """Return what a chain of adapters is on in the end, and the adapters, the innermost first."""
    adapters: list[Path] = []
    for folder in folders:
        if not (folder / ADAPTER).is_file():
            return folder, adapters
        adapters.insert(0, folder)
    # Without a base that was fetched, a name that the machine's own cache may know.
    config = json.loads((adapters[0] / ADAPTER).read_bytes())
    return str(config["base_model_name_or_path"]), adapters


def _refuse_pickles(folder: Path) -> None:
    """Raise ValueError for a folder whose weights are pickled alone."""
    names = [each.name for each in folder.iterdir()]
    pickled = sorted(name for name in names if name.endswith(_PICKLES))
    if pickled and not any(name.endswith(".safetensors") for name in names):
        raise ValueError(
            f"its weights are pickled ({pickled[0]}), and a pickle can run code when it is read;"
            " convert them to safetensors"
        )


def _beside(name: str) -> Any:
    """Return a module that lies beside this one."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
