"""Converts weights of transformers' models to the parts of ranks and back; standard input has
Megatron's names and shapes (megatron_names.json), standard output what is `wrong`.

It needs torch and transformers, and no megatron-core.
"""

import json
import sys
from typing import Any

from tests.trainers.llama_like import KINDS, SIZES


def main() -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from app.trainers.frameworks.megatron.shape import model_shape
    from app.trainers.frameworks.megatron.weights import (
        combined,
        joined,
        part,
        separated,
        stage_weights,
    )

    wrong: list[Any] = []
    cases = json.load(sys.stdin)
    for case in cases:
        kind, tensor, pipeline = case["kind"], case["tensor"], case["pipeline"]
        torch.manual_seed(1)
        config = AutoConfig.for_model(**{**SIZES, **KINDS[kind]})
        model = AutoModelForCausalLM.from_config(config)
        source = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
        shape = model_shape(config, max_length=64)
        back: dict[str, torch.Tensor] = {}
        for stage in range(pipeline):
            weights = stage_weights(shape, stage, pipeline)
            parts = {
                weight.name: [
                    part(weight, combined(weight, source, shape), rank, tensor)
                    for rank in range(tensor)
                ]
                for weight in weights
            }
            for rank in range(tensor):
                ours = {name: [*each[rank].shape] for name, each in parts.items()}
                theirs = case["ranks"][stage * tensor + rank]
                if ours != theirs:
                    wrong.append([kind, tensor, pipeline, stage, rank, sorted(ours), theirs])
            for weight in weights:
                if not weight.copy:
                    back |= separated(weight, joined(weight, parts[weight.name]), shape)
        if shape.tied:
            source.pop("lm_head.weight")
        if set(back) != set(source):
            wrong.append([kind, tensor, pipeline, sorted(set(back) ^ set(source))])
        wrong += [
            [kind, tensor, pipeline, name]
            for name in set(back) & set(source)
            if not torch.equal(back[name], source[name])
        ]
    json.dump({"cases": len(cases), "wrong": wrong}, sys.stdout)


if __name__ == "__main__":
    main()
