"""What stands for the rest of a text that is cut, everywhere alike."""

from typing import Final

#: What a text ends in that was cut.
CUT: Final = "…"


def shortened(text: str, limit: int) -> str:
    """The text; or its beginning and CUT, `limit` characters together, if it is longer."""
    return text if len(text) <= limit else text[: limit - len(CUT)] + CUT


def quoted(name: str, limit: int = 64) -> str:
    """A name of somebody's choosing as a message repeats it: in quotes, and shortened."""
    return repr(shortened(name, limit))
