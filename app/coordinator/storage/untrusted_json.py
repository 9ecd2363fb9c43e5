"""JSON that a job wrote: parsed within bounds of depth and digits.

The parser would recurse as deep as the text is nested, and read an integer of
any length in quadratic time. It raises RecursionError and, for long integers,
ValueError for the whole text. The length of the text is its reader's to bound.
"""

import json
import re
from typing import Any, Final

MAX_DEPTH: Final = 64
#: Digits of integers that are read: a double can hold all of these, and so can `math`.
_MAX_DIGITS: Final = 308
#: Brackets, and texts as a whole: a bracket in a text is none. An unfinished text ends the line.
_BRACKETS: Final = re.compile(rb'[\[{]|[\]}]|"(?:[^"\\]+|\\.)*+"?', re.DOTALL)
_UNPRINTABLE: Final = "\N{REPLACEMENT CHARACTER}"


class BadJson(ValueError):
    """It is not JSON, or nested too deep; the message says which."""


class TooLarge:
    """Stands for an integer of too many digits."""


TOO_LARGE: Final = TooLarge()


def parse(raw: bytes) -> Any:
    """The value of a text in UTF-8. Integers of too many digits are TOO_LARGE. Raises BadJson."""
    if is_deep(raw):
        raise BadJson(f"it is nested more than {MAX_DEPTH} levels deep")
    try:
        # As text: the parser would take bytes for UTF-16 where they look like it.
        return json.loads(raw.decode("utf-8-sig"), parse_int=_integer)
    except ValueError:
        raise BadJson("it is not JSON") from None


def is_deep(raw: bytes) -> bool:
    """Whether the text is nested deeper than MAX_DEPTH."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _BRACKETS.finditer(raw):
        kind = token[0][:1]
        if kind in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif kind in b"]}":
            depth -= 1
    return False


def flattened(raw: bytes) -> bytes:
    """The text with `null` in the place of each array and object within its outermost one."""
    depth = kept_to = 0
    pieces = []
    for token in _BRACKETS.finditer(raw):
        kind = token[0][:1]
        if kind in b"[{":
            depth += 1
            if depth == 2:
                pieces.append(raw[kept_to : token.start()] + b"null")
        elif kind in b"]}":
            depth -= 1
            if depth == 1:
                kept_to = token.end()
    if depth <= 1:
        pieces.append(raw[kept_to:])
    return b"".join(pieces)


def is_number(value: object) -> bool:
    """Whether a parsed value is a number, TOO_LARGE included."""
    return isinstance(value, int | float | TooLarge) and not isinstance(value, bool)


def shown_text(text: str, *, most: int) -> str:
    """A text that can be stored and shown: cut, and without characters that cannot be printed."""
    text = text[:most]
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _UNPRINTABLE for each in text)


def _integer(digits: str) -> int | TooLarge:
    return int(digits) if len(digits.lstrip("-")) <= _MAX_DIGITS else TOO_LARGE
