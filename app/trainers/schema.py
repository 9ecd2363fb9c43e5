"""The hyperparameters of all training types as JSON, for the coordinator's checks."""

from typing import Any, Final

from .aliases import RESERVED
from .hyperparameters import known_hyperparameters
from .limits import Limits
from .types import TRAINING_TYPES, training_type

VERSION: Final = 1


def schema() -> dict[str, Any]:
    """Return what each training type takes:

    `{"version": 1, "training_types": {name: {"hyperparameters": {name:
    {"type", "choices", "aliases", "limits"}}, "reserved": {name: what to do instead}}}}`.
    """
    return {
        "version": VERSION,
        "training_types": {name: _training_type(name) for name in TRAINING_TYPES},
    }


def _training_type(name: str) -> dict[str, Any]:
    known = known_hyperparameters(training_type(name).hyperparameters())
    return {
        "hyperparameters": {
            each.name: {
                "type": each.type,
                "choices": list(each.choices) if each.choices else None,
                "aliases": list(each.aliases),
                "limits": _limits(each.limits),
            }
            for each in known.values()
        },
        "reserved": {name: reason for name, reason in RESERVED.items() if name not in known},
    }


def _limits(limits: Limits | None) -> list[float | None] | None:
    """Return least, most and what else a number may be."""
    return None if limits is None else [limits.least, limits.most, limits.also]
