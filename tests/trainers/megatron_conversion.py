"""Compares a model of transformers with Megatron's, which has its weights; run by each rank:

    megatron_conversion.py <folder of a model> <tensor parallel> <pipeline parallel> <answer>

Rank 0 writes, as JSON: `difference` of the logits (the largest, and `largest`, their own size),
`names_and_shapes` of each rank's state dict, and whether the weights that come back are `equal`.
Where layers are divided among stages there are no logits to compare.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from transformers import AutoModelForCausalLM

from tests.trainers.megatron_on_cpu import megatron_on_cpus


def main(folder: str, tensor: int, pipeline: int, answer: Path) -> None:
    from app.trainers.frameworks.megatron import model as converted
    from app.trainers.frameworks.megatron.settings import MegatronSettings, check_fits, layout
    from app.trainers.frameworks.megatron.shape import model_shape

    dist.init_process_group("gloo")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    shape = model_shape(theirs.config, max_length=64)
    settings = MegatronSettings(
        tensor_model_parallel_size=tensor, pipeline_model_parallel_size=pipeline
    )
    ranks = layout(settings, dist.get_world_size())
    check_fits(shape, ranks)
    converted.set_up_groups(ranks, 1)
    config = converted.transformer_config(shape, settings, dtype=torch.float32, recompute=False)
    ours = converted.build_model(shape, config, ranks, theirs.model.rotary_emb.inv_freq).eval()
    converted.check_weights(ours, shape, ranks)
    source = theirs.state_dict()
    converted.load_weights(ours, shape, ranks, source if dist.get_rank() == 0 else None)
    said: dict[str, object] = {}
    if pipeline == 1:
        tokens = torch.randint(
            0, shape.vocabulary, (2, 33), generator=torch.Generator().manual_seed(0)
        )
        with torch.no_grad():
            logits, expected = ours(tokens, None, None), theirs(tokens).logits
        parts = [torch.empty_like(logits) for _ in range(tensor)]
        dist.all_gather(
            parts, logits.contiguous(), group=parallel_state.get_tensor_model_parallel_group()
        )
        found = torch.cat(parts, dim=-1)[..., : shape.vocabulary]
        said["difference"] = float((found - expected).abs().max())
        said["largest"] = float(expected.abs().max())
    own = {
        name: [*value.shape]
        for name, value in ours.state_dict().items()
        if isinstance(value, torch.Tensor)
    }
    all_of_them: list[object] = [None] * dist.get_world_size()
    dist.all_gather_object(all_of_them, own)
    back: dict[str, torch.Tensor] = {}
    for some in converted.gathered_weights(ours, shape, ranks):
        back |= some
    if dist.get_rank() == 0:
        wanted = {
            name: value
            for name, value in source.items()
            if not (shape.tied and name == "lm_head.weight")
        }
        said["equal"] = set(back) == set(wanted) and all(
            torch.equal(back[name], value) for name, value in wanted.items()
        )
        said["names_and_shapes"] = all_of_them
        answer.write_text(json.dumps(said))
    dist.barrier()


if __name__ == "__main__":
    with megatron_on_cpus():
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    # The threads of torch's groups are not waited for.
    os._exit(0)
