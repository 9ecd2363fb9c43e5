"""Make a tiny language model: `tiny_model.py FOLDER [STEPS]`.

A Llama of a million parameters, and a BPE tokenizer of 2,048 tokens that is trained on the
Python Language Reference, which every Python brings. The model reads the same for as many
steps, some ten a second; without any, its weights are random. Nothing has to be fetched. Runs
in the environment of the trainers (`scripts/venv train`).
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

#: Tokens of a text that the model can read.
CONTEXT: Final = 512
_VOCABULARY: Final = 2048
#: Windows of a step, their tokens, and the highest learning rate.
_BATCH: Final = 8
_WINDOW: Final = 128
_RATE: Final = 3e-3
_SPECIAL: Final = {"pad_token": "<pad>", "eos_token": "<|im_end|>", "unk_token": "<unk>"}
_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def texts() -> Iterator[str]:
    """Yield what the tokenizer learns from."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield from (part.strip() for part in topics[name].split("\n\n") if part.strip())


def make(folder: Path, steps: int = 0) -> None:
    """Write the model with its tokenizer and chat template, as transformers reads them."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts(),
        trainers.BpeTrainer(
            vocab_size=_VOCABULARY,
            special_tokens=["<pad>", "<|im_start|>", "<|im_end|>", "<unk>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=CONTEXT,
        **_SPECIAL,
    )
    fast.chat_template = _TEMPLATE
    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    if steps:
        _pretrain(model, torch.tensor(fast("\n\n".join(texts()))["input_ids"]), steps)
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)
    model.save_pretrained(folder)


def _pretrain(model: Any, tokens: Any, steps: int) -> None:
    """Have the model read windows of the text, drawn at random."""
    import torch

    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    model.train()
    for _ in range(steps):
        starts = torch.randint(0, len(tokens) - _WINDOW, (_BATCH,))
        batch = torch.stack([tokens[start : start + _WINDOW] for start in starts.tolist()])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    make(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
