"""What somebody may have meant who wrote a name that does not exist."""

import difflib
from collections.abc import Iterable
from typing import Final

#: Characters of a name that are compared; the work grows with the square.
_LONGEST: Final = 64


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A question that names the closest of the known names; empty if none is close."""
    if not given or len(given) > _LONGEST:
        return ""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.6)
    return f"did you mean {names[close[0]]!r}?" if close else ""
