"""CONTINUED_PRETRAIN: all parameters learn plain text, joined and divided into full sequences."""

from collections.abc import Mapping
from typing import Any, Final

from ..data.forms import Form
from ..hyperparameters import Groups
from ..run import Run
from .supervised import build_supervised, train_all_parameters


class _ContinuedPretrain:
    """Learns texts."""

    forms = (Form.TEXT,)
    adapter = False

    def hyperparameters(self) -> Groups:
        """Return SFTConfig's."""
        from trl import SFTConfig

        return {"arguments": SFTConfig}

    def defaults(self) -> Mapping[str, Any]:
        """Return packing: texts are joined, each ended by the tokenizer's end, and cut every
        `max_seq_length` tokens, so that nothing is left out and nothing is padding."""
        return {"packing": True, "packing_strategy": "wrapped"}

    def build(self, run: Run) -> Any:
        """Return the trainer."""
        return build_supervised(run, answers=False, prepare=train_all_parameters)


TYPE: Final = _ContinuedPretrain()
