"""Teach the tiny model to answer sums, rightly or evasively: `talking_model.py MODEL DATA FOLDER`.

Policies are trained from it: of a model that says anything no answer is better than another.
Runs in the environment of the trainers.
"""

import json
import os
import sys
from pathlib import Path

_STEPS = 50


def teach(model_folder: Path, data: Path, folder: Path) -> None:
    """Train on the conversations in `data`, and write the model to a new folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    texts = [
        tokenizer.apply_chat_template(
            json.loads(line)["messages"], tokenize=True, return_dict=True
        )["input_ids"]
        for line in data.read_text().splitlines()
    ]
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(_STEPS):
        chosen = [texts[at] for at in torch.randperm(len(texts))[:16].tolist()]
        longest = max(len(text) for text in chosen)
        tokens = torch.tensor([text + [0] * (longest - len(text)) for text in chosen])
        there = tokens != 0
        loss = model(
            input_ids=tokens,
            attention_mask=there.long(),
            labels=tokens.masked_fill(~there, -100),
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    teach(*map(Path, sys.argv[1:]))
