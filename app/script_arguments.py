"""The arguments of a training script as a submission writes them: a JSON list, or shell words."""

import shlex
from typing import Final

import orjson

#: Characters of the whole text.
MAX_TEXT: Final = 32 * 1024
MAX_ARGUMENTS: Final = 1024


def parse_arguments(text: str) -> tuple[str, ...]:
    """Return the arguments; none of an empty text.

    A text that begins with `[` is a JSON list of strings. Any other is split
    into words by the rules of a POSIX shell for quotes and backslashes, and no
    shell sees it: nothing is expanded. Raises ValueError with a phrase that
    names the place, counted in characters from 1.
    """
    if len(text) > MAX_TEXT:
        raise ValueError(f"must have at most {MAX_TEXT} characters; put long texts into a file")
    words = _of_json(text) if text.lstrip().startswith("[") else _of_shell(text)
    if len(words) > MAX_ARGUMENTS:
        raise ValueError(f"must have at most {MAX_ARGUMENTS} arguments")
    for number, word in enumerate(words, start=1):
        if "\0" in word:
            raise ValueError(f"argument {number} has a NUL character")
    return tuple(words)


def _of_json(text: str) -> list[str]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(
            f"begins with [ and is not a JSON list: {error.msg}, at character {error.pos + 1}"
        ) from None
    for number, word in enumerate(found, start=1):
        if not isinstance(word, str):
            raise ValueError(f"argument {number} of the JSON list must be a string, in quotes")
    return list(found)


def _of_shell(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        at, quote = _opened_last(text)
        if quote:
            what = f"the quote {quote} at character {at} is never closed"
        else:
            what = f"the backslash at character {len(text)} has nothing behind it"
        raise ValueError(f"{what}; a JSON list of strings needs no quoting") from None


def _opened_last(text: str) -> tuple[int, str]:
    """Return where a quote is opened that is not closed, and which; no quote if there is none."""
    at, quote, escaped = 0, "", False
    for place, character in enumerate(text, start=1):
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            at, quote = place, character
    return at, quote
