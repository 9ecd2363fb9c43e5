"""Merges an adapter into the model that it was trained on."""

from pathlib import Path
from typing import Any


def merged(model: Any, adapter: Path) -> Any:
    """Return the model with the adapter in its weights: it says what both said together.

    Raises what peft raises.
    """
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(model, str(adapter))
    _untie(model)
    return adapted.merge_and_unload(safe_merge=True)


def _untie(model: Any) -> None:
    """Divide the weight that a model reads and says words by, where one of the two is adapted: the
    other was trained without that."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch.nn import Parameter

    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    if None in ends or not any(isinstance(each, BaseTunerLayer) for each in ends):
        return
    first, last = (each.base_layer if isinstance(each, BaseTunerLayer) else each for each in ends)
    if first.weight is last.weight:
        last.weight = Parameter(last.weight.detach().clone())
        model.config.tie_word_embeddings = False
