"""A causal language model of transformers: a folder as `save_pretrained` writes it, or an adapter.

Stands alone beside `model_host`, in the trainers' environment. No code of the model's folder is
run.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ADAPTER = "adapter_config.json"
#: Tokens of a model that does not tell how many it can see.
_DEFAULT_CONTEXT = 1024


class TransformersModel:
    """Scores and generates with a model of transformers, on a GPU if the job holds one."""

    def __init__(self, path: Path, base: Path | None) -> None:
        """Load it; `base` is the folder of the model that an adapter belongs to."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._torch = torch
        device = "cuda" if torch.cuda.is_available() else "cpu"
        adapter = (path / ADAPTER).is_file()
        # Without a base that was fetched, a name that the machine's own cache may know.
        folder = base or (_base_of(path) if adapter else path)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        if adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(path))
        if device == "cpu" and model.dtype != torch.float32:
            # Halves are emulated on most CPUs: slow, and less exact than what they stand for.
            model = model.float()
        self.model = model.to(device).eval()
        has_tokenizer = (path / "tokenizer_config.json").is_file()
        self.tokenizer = AutoTokenizer.from_pretrained(path if has_tokenizer else folder)
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

    def harness(self, task: str, limit: int, shots: int) -> tuple[dict[str, float], int]:
        """Scores of a task of lm-evaluation-harness by name, and its samples.

        `limit` 0 takes all samples. Raises what the harness raises, for a task that it does not
        know and for data that cannot be fetched.
        """
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        found = simple_evaluate(
            model=HFLM(pretrained=self.model, tokenizer=self.tokenizer, batch_size=1),
            tasks=[task],
            num_fewshot=shots,
            limit=limit or None,
            # Standard errors of most metrics; resampling would take longer than the task.
            bootstrap_iters=0,
        )
        scores = {
            # `acc,none`: the metric and the filter of the answers.
            name.removesuffix(",none").replace(",", "_"): float(value)
            for name, value in found["results"][task].items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        counts = found.get("n-samples", {}).get(task, {})
        return scores, int(counts.get("effective", limit))

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


def _base_of(path: Path) -> str:
    return str(json.loads((path / ADAPTER).read_bytes())["base_model_name_or_path"])
