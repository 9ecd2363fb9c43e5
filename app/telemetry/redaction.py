"""The last line of defence: no log line leaves with a credential in it.

No code should log one in the first place. This works on the finished JSON
line, so that it reaches every field, nested ones and tracebacks included. What
a credential is says `app.credentials`, for answers and logs alike.
"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from app.credentials import MASK, Masker, is_value_of, masked
from app.credentials.names import names_credential
from app.shortening import shortened

#: What stands in a line for a credential.
MARK: Final = MASK.encode()
#: Characters of one text of a line. What is longer is cut.
MAX_TEXT: Final = 32 * 1024
#: Characters that are looked at behind it, so that no beginning of a credential stays.
_BEYOND: Final = 4 * 1024

#: Characters of a text that may be remembered to hold nothing, and how many are.
_SHORT: Final = 128
_REMEMBERED: Final = 2048


class Redaction:
    """Masks credentials by their names and forms, and given secrets; cuts long texts."""

    def __init__(self, *, known: Iterable[str] = ()) -> None:
        self._masker = Masker(known)
        #: Names of fields, and texts, that hold nothing to be masked.
        self._names: set[str] = set()
        self._clean: set[str] = set()

    def is_needless(self, event: Mapping[str, Any]) -> bool:
        """Whether the line of an event would stay as it is; told without a second pass over it.

        That can be told of flat events of short texts and numbers, as most are. What most
        of them have in common is looked at once.
        """
        names, clean = self._names, self._clean
        for name, value in event.items():
            if name not in names and not self._is_plain_name(name):
                return False
            if type(value) is str:
                if value not in clean and not self._is_clean(value):
                    return False
            elif value is not None and type(value) not in (int, float, bool):
                return False
        return True

    def _is_plain_name(self, name: object) -> bool:
        """Whether a field's name may be logged, and says nothing of its value."""
        if (
            type(name) is not str
            or self._masker.knows(name)
            or _name(name) != name
            or names_credential(name)
        ):
            return False
        _remember(name, self._names)
        return True

    def _is_clean(self, text: str) -> bool:
        if len(text) > _SHORT:
            return False
        if self._masker.is_id(text):
            return True  # of one request: it does not come again
        if self._masker(text) != text:
            return False
        _remember(text, self._clean)
        return True

    def __call__(self, line: bytes) -> bytes:
        """The line, a JSON object, as it may be logged."""
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            # Lone surrogates and numbers that are none.
            event = json.loads(line)
        redacted = self._redacted(event)
        if redacted == event:
            return line
        try:
            return orjson.dumps(redacted)
        except orjson.JSONEncodeError:
            return json.dumps(redacted).encode()

    def _redacted(self, value: Any, name: str = "") -> Any:
        if isinstance(value, str):
            if name and is_value_of(name, value):
                return MASK
            return shortened(self._masker(value[: MAX_TEXT + _BEYOND]), MAX_TEXT)
        if isinstance(value, dict):
            return {
                MASK if self._masker.knows(key) else _name(key): self._redacted(item, key)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self._redacted(item, name) for item in value]
        return value


def _remember(text: str, texts: set[str]) -> None:
    if len(texts) >= _REMEMBERED:
        texts.clear()
    texts.add(text)


@lru_cache(maxsize=1024)
def _name(key: str) -> str:
    """A field's name as it may be logged; there are only so many, but for nested ones."""
    return shortened(masked(key[:MAX_TEXT]), MAX_TEXT)
