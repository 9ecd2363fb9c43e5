"""The last line of defence: no log line leaves with a credential in it.

No code should log one in the first place. This works on the finished JSON
line, so that it reaches every field, nested ones and tracebacks included. What
a credential is says `app.credentials`, for answers and logs alike.
"""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import orjson

from app.credentials import MASK, Masker, is_value_of, masked
from app.shortening import shortened

#: What stands in a line for a credential.
MARK: Final = MASK.encode()
#: Characters of one text of a line. What is longer is cut.
MAX_TEXT: Final = 32 * 1024
#: Characters that are looked at behind it, so that no beginning of a credential stays.
_BEYOND: Final = 4 * 1024


class Redaction:
    """Masks credentials by their names and forms, and given secrets; cuts long texts."""

    def __init__(self, *, known: Iterable[str] = ()) -> None:
        self._masker = Masker(known)

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


@lru_cache(maxsize=1024)
def _name(key: str) -> str:
    """A field's name as it may be logged; there are only so many, but for nested ones."""
    return shortened(masked(key[:MAX_TEXT]), MAX_TEXT)
