"""Loads exported models as transformers does: `exports.py ANSWER FOLDER...`.

ANSWER becomes a JSON object by folder: what the model says to a question, and how many of its
tensors are no numbers.
"""

import json
import sys
from pathlib import Path
from typing import Any

QUESTION = "What is two plus three?"


def main() -> None:
    """Load each and ask it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    answer, *folders = sys.argv[1:]
    said: dict[str, Any] = {}
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": QUESTION}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        generated = model.generate(**prompt, max_new_tokens=8, do_sample=False)
        new = generated[0][prompt["input_ids"].shape[1] :]
        said[folder] = {
            "tokens": len(new),
            "text": tokenizer.decode(new),
            "broken": sum(not bool(each.isfinite().all()) for each in model.parameters()),
        }
    Path(answer).write_text(json.dumps(said))


if __name__ == "__main__":
    main()
