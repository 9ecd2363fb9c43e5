"""Hyperparameters: texts by name, read through the dataclasses that the trainers have themselves.

So names, types and choices are Hugging Face's. A training type names its classes in groups
(`arguments` for the trainer's, `lora` for the adapter's); a name belongs to the first group
that has it.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from .aliases import ALIASES, RESERVED
from .errors import TrainingRefused, did_you_mean, shown
from .limits import LIMITS, Limits

_TRUE: Final = ("true", "1", "yes", "on")
_FALSE: Final = ("false", "0", "no", "off")
_NONE: Final = ("none", "null", "")


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """What a hyperparameter may be."""

    name: str
    group: str
    #: For people and the schema: `float`, `int`, `bool`, `str`, `list`, `object`; several with `|`.
    type: str
    choices: tuple[str, ...] | None
    aliases: tuple[str, ...]
    #: Of its numbers; None where any finite one will do.
    limits: Limits | None
    read: Callable[[str], Any]


Groups = Mapping[str, type]


def known_hyperparameters(groups: Groups) -> dict[str, Hyperparameter]:
    """Return what the dataclasses of a training type take, by name, without what is reserved."""
    known: dict[str, Hyperparameter] = {}
    aliases: dict[str, list[str]] = {}
    for alias, target in ALIASES.items():
        aliases.setdefault(target, []).append(alias)
    for group, described in groups.items():
        hints = typing.get_type_hints(described)
        for field in dataclasses.fields(described):
            if not field.init or field.name in known or field.name in RESERVED:
                continue
            reader = _reader(hints[field.name])
            if reader is not None:
                type_name, choices, read = reader
                known[field.name] = Hyperparameter(
                    field.name,
                    group,
                    type_name,
                    choices,
                    tuple(aliases.get(field.name, ())),
                    LIMITS.get(field.name),
                    read,
                )
    return known


def parse_hyperparameters(
    given: Mapping[str, str], groups: Groups, *, where: str = "training_config.hyperparameters"
) -> dict[str, dict[str, Any]]:
    """Return the values by group and name. Raises TrainingRefused, which names what is wrong."""
    known = known_hyperparameters(groups)
    values: dict[str, dict[str, Any]] = {group: {} for group in groups}
    sources: dict[str, str] = {}
    for name, text in given.items():
        parameter = known.get(name) or known.get(ALIASES.get(name, ""))
        if parameter is None:
            raise TrainingRefused(_unknown(name, known, where))
        if parameter.name in sources:
            raise TrainingRefused(
                f"{where}: {sources[parameter.name]} and {name} mean the same; keep one"
            )
        sources[parameter.name] = name
        values[parameter.group][parameter.name] = _read(parameter, name, text, where)
    return values


def _unknown(name: str, known: Mapping[str, Hyperparameter], where: str) -> str:
    if reason := RESERVED.get(name):
        return f"{where}.{name}: cannot be set here: {reason}"
    names = [*known, *(alias for alias, target in ALIASES.items() if target in known)]
    return f"{where}: {shown(name)} is not known{did_you_mean(name, names)}"


def _read(parameter: Hyperparameter, name: str, text: str, where: str) -> Any:
    try:
        value = parameter.read(text.strip())
    except (ValueError, RecursionError):
        raise TrainingRefused(
            f"{where}.{name}: {shown(text)} is no {parameter.type.replace('|', ' or ')}"
        ) from None
    if parameter.choices and value is not None and str(_plain(value)) not in parameter.choices:
        raise TrainingRefused(
            f"{where}.{name}: {shown(text)} is not known"
            f"{did_you_mean(text, parameter.choices)}; use one of {', '.join(parameter.choices)}"
        )
    number = isinstance(value, int | float) and not isinstance(value, bool)
    limits = LIMITS.get(name, parameter.limits)
    if number and limits is not None and not limits.allows(value):
        raise TrainingRefused(f"{where}.{name}: {shown(text)} must be {limits}")
    return value


def _plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else value


_Reader = tuple[str, tuple[str, ...] | None, Callable[[str], Any]]


def _reader(hint: Any) -> _Reader | None:
    """Return name, choices and reader of a type; None for one that no text can be."""
    parts = [*typing.get_args(hint)] if _is_union(hint) else [hint]
    optional = type(None) in parts
    readers = [reader for part in parts if (reader := _single(part)) is not None]
    if not readers:
        return None
    # Narrow types first: each number is a text, too.
    readers.sort(key=lambda reader: _ORDER.index(reader[0].partition("|")[0]))
    # An enumeration beside `str` is what the text has to be one of.
    chosen = [reader for reader in readers if reader[1]]
    if chosen and all(reader[0] in ("str", "bool") for reader in readers):
        choices = tuple(dict.fromkeys(each for reader in chosen for each in reader[1] or ()))
        readers = [reader for reader in readers if reader[0] != "str"] + [("str", choices, str)]
    else:
        choices = ()

    def read(text: str) -> Any:
        if optional and text.lower() in _NONE:
            return None
        for _, _, each in readers:
            try:
                return each(text)
            except (ValueError, RecursionError):
                continue
        raise ValueError(text)

    return "|".join(dict.fromkeys(reader[0] for reader in readers)), choices or None, read


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


_ORDER: Final = ("bool", "int", "float", "object", "list", "str")


def _single(part: Any) -> _Reader | None:
    origin = typing.get_origin(part)
    if origin is typing.Literal:
        texts = tuple(str(each) for each in typing.get_args(part) if isinstance(each, str))
        return ("str", texts, str) if texts else None
    if part in _READERS:
        return _READERS[part]
    if isinstance(part, type) and issubclass(part, Enum):
        return "str", tuple(str(each.value) for each in part), str
    if origin in (list, set, tuple):
        return "list", None, _list
    if origin is dict or part is dict:
        return "object", None, _object
    return None


def _bool(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)


def _int(text: str) -> int:
    if len(text) > 20:
        raise ValueError(text)
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _list(text: str) -> list[Any]:
    """A JSON list, or words between commas."""
    if text.startswith("["):
        value = json.loads(text)
        if not isinstance(value, list):
            raise ValueError(text)
        return value
    if text.startswith("{"):
        raise ValueError(text)
    return [part.strip() for part in text.split(",") if part.strip()]


def _object(text: str) -> dict[str, Any]:
    if not text.startswith("{"):
        raise ValueError(text)
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


_READERS: Final[Mapping[Any, _Reader]] = {
    bool: ("bool", None, _bool),
    int: ("int", None, _int),
    float: ("float", None, _float),
    str: ("str", None, str),
    list: ("list", None, _list),
}
