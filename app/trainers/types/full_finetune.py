"""FULL_FINETUNE: supervised fine-tuning, by what is trained: all parameters.

The same training as SFT, which names it by what it learns from.
"""

from collections.abc import Mapping
from typing import Any, Final

from ..data.forms import Form
from ..hyperparameters import Groups
from ..run import Run
from .supervised import build_supervised, train_all_parameters


class _FullFinetune:
    """Learns answers, or texts, with all parameters."""

    forms = (Form.MESSAGES, Form.PROMPT_COMPLETION, Form.TEXT)
    adapter = False

    def hyperparameters(self) -> Groups:
        """Return SFTConfig's."""
        from trl import SFTConfig

        return {"arguments": SFTConfig}

    def defaults(self) -> Mapping[str, Any]:
        """Return none: SFTConfig's own are meant."""
        return {}

    def build(self, run: Run) -> Any:
        """Return the trainer."""
        return build_supervised(run, answers=True, prepare=train_all_parameters)


TYPE: Final = _FullFinetune()
