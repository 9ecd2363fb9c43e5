"""Checked access to a decoded JSON object: every value is typed and bounded where it is read."""

import math
from collections.abc import Mapping
from typing import Any, Final

from .errors import TrainingRefused, shown

#: Characters of a text; chat templates are the longest.
MAX_TEXT: Final = 256 * 1024
MAX_ENTRIES: Final = 1024
MAX_COUNT: Final = 2**31 - 1


class Section:
    """An object of the job's configuration. Each method raises TrainingRefused and names the
    field by its path. What is absent is what the contract says of unset fields: empty, 0, false.
    """

    def __init__(self, value: object, path: str) -> None:
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise TrainingRefused(f"{path}: must be an object")
        self._value: Mapping[str, Any] = value
        self._path = path

    def _where(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def section(self, name: str) -> "Section":
        """Return the object that is in a field."""
        return Section(self._value.get(name), self._where(name))

    def sections(self, name: str) -> list["Section"]:
        """Return the objects of a list."""
        value = self._list(name)
        return [Section(each, f"{self._where(name)}.{at}") for at, each in enumerate(value)]

    def text(self, name: str, *, one_of: tuple[str, ...] = ()) -> str:
        """Return a text; with `one_of` it has to be one of these."""
        value = self._value.get(name) or ""
        if not isinstance(value, str):
            raise TrainingRefused(f"{self._where(name)}: must be a text")
        if len(value) > MAX_TEXT:
            raise TrainingRefused(
                f"{self._where(name)}: must have at most {MAX_TEXT} characters, not {len(value)}"
            )
        if one_of and value not in one_of:
            known = ", ".join(each for each in one_of if each)
            raise TrainingRefused(
                f"{self._where(name)}: {shown(value)} is not known; use one of {known}"
            )
        return value

    def flag(self, name: str) -> bool:
        """Return a truth value."""
        value = self._value.get(name) or False
        if not isinstance(value, bool):
            raise TrainingRefused(f"{self._where(name)}: must be true or false")
        return value

    def count(self, name: str, *, most: int = MAX_COUNT) -> int:
        """Return an integer from 0 to `most`."""
        value = self._value.get(name) or 0
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise TrainingRefused(f"{self._where(name)}: must be an integer from 0 to {most}")
        return value

    def integer(self, name: str) -> int:
        """Return an integer of 64 bits."""
        value = self._value.get(name) or 0
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
            raise TrainingRefused(f"{self._where(name)}: must be an integer of 64 bits")
        return value

    def share(self, name: str) -> float:
        """Return a number from 0 to 1."""
        value = self._value.get(name) or 0
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TrainingRefused(f"{self._where(name)}: must be a number")
        if not math.isfinite(value) or not 0 <= value <= 1:
            raise TrainingRefused(f"{self._where(name)}: must be from 0 to 1")
        return float(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self._list(name)
        if not all(isinstance(each, str) and len(each) <= MAX_TEXT for each in value):
            raise TrainingRefused(f"{self._where(name)}: must be a list of texts")
        return tuple(value)

    def mapping(self, name: str) -> Mapping[str, str]:
        """Return an object of texts."""
        value = self._value.get(name) or {}
        if not isinstance(value, dict) or len(value) > MAX_ENTRIES:
            raise TrainingRefused(
                f"{self._where(name)}: must be an object of at most {MAX_ENTRIES} texts"
            )
        for key, each in value.items():
            if not isinstance(each, str) or len(each) > MAX_TEXT:
                raise TrainingRefused(f"{self._where(name)}.{key}: must be a text")
        return dict(value)

    def _list(self, name: str) -> list[Any]:
        value = self._value.get(name) or []
        if not isinstance(value, list) or len(value) > MAX_ENTRIES:
            raise TrainingRefused(
                f"{self._where(name)}: must be a list of at most {MAX_ENTRIES} entries"
            )
        return value
