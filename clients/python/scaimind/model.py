"""What the API's objects have in common: frozen, made of JSON, and nothing of it lost."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One object of the API. `extra` has the fields that this version does not know."""

    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return the object of parsed JSON; what has another type than it should is kept as it
        is in `extra`, and the field has its default."""
        known: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        kinds = {each.name: each.metadata.get("kind") for each in fields(cls)}
        for name, item in value.items() if isinstance(value, dict) else ():
            kind = kinds.get(name)
            if kind is None:
                extra[name] = item
                continue
            try:
                known[name] = _converted(kind, item)
            except (TypeError, ValueError):
                extra[name] = item
        return cls(**known, extra=extra)


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
