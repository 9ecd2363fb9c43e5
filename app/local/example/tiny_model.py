"""Make a tiny language model that has learned nothing yet: `tiny_model.py FOLDER`.

A Llama of a million parameters with random weights, and a BPE tokenizer of 2,048 tokens that is
trained on the Python Language Reference, which every Python brings. It takes seconds, and
nothing has to be fetched. Runs in the environment of the trainers (`scripts/venv train`), and
makes the same files each time.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Tokens of a text that the model can read.
CONTEXT: Final = 512
_VOCABULARY: Final = 2048
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


def make(folder: Path) -> None:
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
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)
    model.save_pretrained(folder)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    make(Path(sys.argv[1]))
