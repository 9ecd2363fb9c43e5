"""Makes tiny models of random weights, of each kind that Megatron trains: `llama_like.py FOLDER`.

The vocabulary is odd, so that no two ranks divide it evenly.
"""

import sys
from pathlib import Path

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 301,
    "max_position_embeddings": 128,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
KINDS = {
    "llama": {"model_type": "llama", "rope_parameters": LLAMA3, "tie_word_embeddings": False},
    "mistral": {"model_type": "mistral", "head_dim": 32, "tie_word_embeddings": False},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": True},
}


def main(folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    for name, kind in KINDS.items():
        torch.manual_seed(1)
        config = AutoConfig.for_model(**{**SIZES, **kind})
        model = AutoModelForCausalLM.from_config(config)
        # As they are made, norms are 1 and biases 0: a mistake with those would not be seen.
        for parameter in model.parameters():
            if parameter.ndim == 1:
                torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
        model.save_pretrained(str(folder / name))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
