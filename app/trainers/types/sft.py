"""SFT: supervised fine-tuning of all parameters; only answers count for the loss."""

from collections.abc import Mapping
from typing import Any, Final

from ..data.forms import Form
from ..hyperparameters import Groups
from ..run import Run
from .supervised import build_supervised, train_all_parameters


class _Sft:
    """Learns answers."""

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


TYPE: Final = _Sft()
