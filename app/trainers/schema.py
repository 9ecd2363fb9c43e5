"""What the trainers take, as JSON, for the coordinator's checks: the hyperparameters of all
training types, and the settings of frameworks that refuse much."""

from collections.abc import Sequence
from typing import Any, Final

from .aliases import RESERVED
from .frameworks.megatron import settings as megatron
from .frameworks.megatron.framework import TRAINING_TYPES as MEGATRON_TRAINING_TYPES
from .frameworks.megatron.shape import MODEL_TYPES
from .hyperparameters import Hyperparameter, known_hyperparameters
from .limits import Limits
from .types import TRAINING_TYPES, training_type

VERSION: Final = 1


def schema() -> dict[str, Any]:
    """Return what each training type takes:

    `{"version": 1, "training_types": {name: {"hyperparameters": {name:
    {"type", "choices", "aliases", "limits"}}, "reserved": {name: what to do instead}}},
    "frameworks": {name: {"config" (as hyperparameters), "training_types", "model_types",
    "needs_gpus", "model_parallel" (settings whose product divides the processes)}}}`. A framework
    that is not there takes what its trainer takes.
    """
    return {
        "version": VERSION,
        "training_types": {name: _training_type(name) for name in TRAINING_TYPES},
        "frameworks": {"MEGATRON": _megatron()},
    }


def _training_type(name: str) -> dict[str, Any]:
    known = known_hyperparameters(training_type(name).hyperparameters())
    return {
        "hyperparameters": {each.name: _described(each) for each in known.values()},
        "reserved": {name: reason for name, reason in RESERVED.items() if name not in known},
    }


def _megatron() -> dict[str, Any]:
    known = known_hyperparameters({"megatron": megatron.MegatronSettings})
    aliases: dict[str, list[str]] = {}
    for alias, name in megatron.ALIASES.items():
        aliases.setdefault(name, []).append(alias)
    return {
        "config": {name: _described(each, aliases.get(name, ())) for name, each in known.items()},
        "training_types": [*MEGATRON_TRAINING_TYPES],
        "model_types": [*MODEL_TYPES],
        "model_parallel": [*megatron.MODEL_PARALLEL],
        "needs_gpus": True,
    }


def _described(each: Hyperparameter, aliases: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "type": each.type,
        "choices": list(each.choices) if each.choices else None,
        "aliases": [*each.aliases, *aliases],
        "limits": _limits(each.limits),
    }


def _limits(limits: Limits | None) -> list[float | None] | None:
    """Return least, most and what else a number may be."""
    return None if limits is None else [limits.least, limits.most, limits.also]
