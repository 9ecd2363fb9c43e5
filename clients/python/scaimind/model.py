"""What the API's objects have in common: frozen, made of JSON, and nothing of it lost."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One object of the API. `raw` is the JSON object that the gateway sent, unchanged."""

    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return the object of parsed JSON. A field that is missing, or has another type than
        it should, has its default; `raw` has what was sent."""
        known: dict[str, Any] = {}
        kinds = {each.name: each.metadata.get("kind") for each in fields(cls)}
        for name, item in value.items() if isinstance(value, dict) else ():
            kind = kinds.get(name)
            if kind is not None:
                with suppress(TypeError, ValueError):
                    known[name] = _converted(kind, item)
        return cls(**known, raw=value if isinstance(value, dict) else {})

    @property
    def unknown(self) -> dict[str, Any]:
        """The fields that this version does not know."""
        names = {each.name for each in fields(self)}
        return {name: item for name, item in self.raw.items() if name not in names}


def _converted(kind: Any, item: Any) -> Any:
    if item is None:
        return None
    if isinstance(kind, tuple):
        shape, inner = kind
        if shape == "list":
            if not isinstance(item, list):
                raise TypeError
            return tuple(_converted(inner, each) for each in item)
        if not isinstance(item, dict):
            raise TypeError
        return {name: _converted(inner, each) for name, each in item.items()}
    if kind is Any:
        return item
    if kind is datetime:
        return datetime.fromisoformat(item)
    if issubclass(kind, Model):
        if not isinstance(item, dict):
            raise TypeError
        return kind.of(item)
    if kind is float and type(item) is int:
        return float(item)
    if type(item) is not kind:
        raise TypeError
    return item
