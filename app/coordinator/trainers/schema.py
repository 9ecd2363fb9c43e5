"""The hyperparameters that the trainers take, as they say it themselves, and what is none.

A hyperparameter is a text. Its types are those of the trainers' own dataclasses; one of several
is enough, and a text such as `none` stands for the default.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.coordinator.storage.untrusted_json import BadJson, parse
from app.shortening import quoted
from app.suggestions import did_you_mean

VERSION: Final = 1
#: Names of a submission that are looked at, and problems that are told of it.
MAX_NAMES: Final = 1024
_MAX_PROBLEMS: Final = 20
#: Choices that a message lists.
_LISTED: Final = 30
_TRUTH: Final = ("true", "false", "1", "0", "yes", "no", "on", "off")
_NONE: Final = ("", "none", "null")


class BadSchema(ValueError):
    """It is not the schema that this coordinator reads; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """What one may be."""

    #: Of `bool`, `int`, `float`, `str`, `list`, `object`.
    types: tuple[str, ...]
    #: Empty where any text of its types will do.
    choices: tuple[str, ...]
    #: The least and the most that its numbers may be, and one more that they may be.
    limits: tuple[float, float, float | None] | None = None


@dataclass(frozen=True, slots=True)
class TypeSchema:
    """What one training type takes."""

    hyperparameters: Mapping[str, Hyperparameter]
    #: Other names of the same.
    aliases: Mapping[str, str]
    #: Why a name that a trainer knows is not to be set, by name.
    reserved: Mapping[str, str]

    def problems(
        self, given: Mapping[str, str], *, noun: str = "hyperparameter"
    ) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with texts, by name: the first of very many. `noun` is what
        messages call one."""
        found = 0
        seen: dict[str, str] = {}
        for name, text in given.items():
            problem = _problem(self, name, text, seen, noun)
            if problem:
                yield name, problem
                found += 1
                if found == _MAX_PROBLEMS:
                    return


@dataclass(frozen=True, slots=True)
class FrameworkSchema:
    """What a framework takes that refuses much."""

    #: The texts of `framework.config`.
    config: TypeSchema
    training_types: tuple[str, ...]
    #: `model_type` of models in the layout of transformers.
    model_types: tuple[str, ...]
    #: Settings whose product has to divide the processes; each is 1 where it is not given.
    model_parallel: tuple[str, ...]
    needs_gpus: bool

    def divided_by(self, config: Mapping[str, str]) -> int:
        """Return the product of the sizes that are given. `config` has no problems."""
        sizes = {
            name: int(text)
            for given, text in config.items()
            if (name := self.config.aliases.get(given, given)) in self.model_parallel
            and not _is_none(text)
        }
        return math.prod(sizes.values())


@dataclass(frozen=True, slots=True)
class Schema:
    """What every training type takes, by the contract's names of those."""

    training_types: Mapping[str, TypeSchema]
    #: Those of which more is known than their name.
    frameworks: Mapping[str, FrameworkSchema] = field(default_factory=dict)

    @classmethod
    def read(cls, raw: bytes) -> "Schema":
        """Read what the trainers print. Whoever calls this has bounded it. Raises BadSchema."""
        try:
            value = parse(raw)
            if value["version"] != VERSION:
                raise BadSchema(f"its version is {value['version']!r}, not {VERSION}")
            types = {name: _type_schema(each) for name, each in value["training_types"].items()}
            others = value.get("frameworks") or {}
            frameworks = {name: _framework_schema(each) for name, each in others.items()}
        except BadJson as error:
            raise BadSchema(str(error)) from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadSchema(f"it has another form: {error!r}") from None
        return cls(types, frameworks)

    def problems(
        self, training_type: str, hyperparameters: Mapping[str, str]
    ) -> Iterator[tuple[str, str]]:
        """Yield what is wrong, by name: the first of very many. The type must be among them."""
        yield from self.training_types[training_type].problems(hyperparameters)


def _problem(known: TypeSchema, name: str, text: str, given: dict[str, str], noun: str) -> str:
    """Return what is wrong with one; `given` has the names so far by what they mean."""
    if name in known.reserved:
        return f"cannot be set here: {known.reserved[name]}"
    meant = name if name in known.hyperparameters else known.aliases.get(name)
    if meant is None:
        hint = did_you_mean(name, [*known.hyperparameters, *known.aliases])
        return f"{quoted(name)} is not a {noun}" + (f"; {hint}" if hint else "")
    if meant in given:
        return f"means the same as {given[meant]}; keep one of them"
    given[meant] = name
    parameter = known.hyperparameters[meant]
    value = text.strip()
    if _is_none(value):
        return ""
    if parameter.choices and _plain(value) not in map(_plain, parameter.choices):
        hint = did_you_mean(value, parameter.choices)
        listed = ", ".join(parameter.choices[:_LISTED])
        return f"{quoted(text)} is not one of {listed}" + (f"; {hint}" if hint else "")
    if not parameter.choices and not any(_READERS[each](value) for each in parameter.types):
        return f"{quoted(text)} is not of type {' or '.join(parameter.types)}"
    return _out_of_bounds(parameter, text)


def _out_of_bounds(parameter: Hyperparameter, text: str) -> str:
    """Return what is wrong with a number; empty for one that is right, and for what is none."""
    if parameter.limits is None or not _is_float(text.strip()):
        return ""
    least, most, also = parameter.limits
    value = float(text)
    if least <= value <= most or value == also:
        return ""
    other = "" if also is None else f"{_said(also)} or "
    return f"{quoted(text)} must be {other}from {_said(least)} to {_said(most)}"


def _said(number: float) -> str:
    whole = number.is_integer() and abs(number) < 1e15
    return str(int(number)) if whole else f"{number:g}"


def _is_none(text: str) -> bool:
    return text.strip().lower() in _NONE


def _plain(text: str) -> str:
    return text.strip().lower()


def _type_schema(value: Any) -> TypeSchema:
    parameters: dict[str, Hyperparameter] = {}
    aliases: dict[str, str] = {}
    for name, each in value["hyperparameters"].items():
        types = tuple(each["type"].split("|"))
        if unknown := [kind for kind in types if kind not in _READERS]:
            raise BadSchema(f"{name} is of an unknown type {unknown[0]!r}")
        choices = tuple(map(str, each["choices"] or ()))
        parameters[name] = Hyperparameter(types, choices, _limits(each.get("limits")))
        aliases |= {str(alias): name for alias in each["aliases"]}
    reserved = value.get("reserved") or {}
    return TypeSchema(parameters, aliases, {name: str(reason) for name, reason in reserved.items()})


def _limits(value: Any) -> tuple[float, float, float | None] | None:
    if value is None:
        return None
    least, most, also = value
    return float(least), float(most), None if also is None else float(also)


def _framework_schema(value: Any) -> FrameworkSchema:
    return FrameworkSchema(
        config=_type_schema({"hyperparameters": value["config"]}),
        training_types=tuple(map(str, value["training_types"])),
        model_types=tuple(map(str, value["model_types"])),
        model_parallel=tuple(map(str, value["model_parallel"])),
        needs_gpus=bool(value["needs_gpus"]),
    )


def _is_int(text: str) -> bool:
    # Of any length it would be read in quadratic time.
    if len(text) > 20:
        return False
    try:
        int(text)
    except ValueError:
        return False
    return True


def _is_float(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_object(text: str) -> bool:
    return _is_json(text, dict)


def _is_list(text: str) -> bool:
    """Whether it is a JSON list; words between commas are one, too."""
    return not text.startswith("[") or _is_json(text, list)


def _is_json(text: str, kind: type) -> bool:
    try:
        return isinstance(parse(text.encode()), kind)
    except BadJson:
        return False


_READERS: Final[Mapping[str, Callable[[str], bool]]] = {
    "bool": lambda text: text.lower() in _TRUTH,
    "int": _is_int,
    "float": _is_float,
    "str": lambda _: True,
    "list": _is_list,
    "object": _is_object,
}
