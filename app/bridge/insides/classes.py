"""What a class of texts is."""

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Class:
    """One kind of what says something of the coordinator's insides."""

    name: str
    pattern: re.Pattern[str]
    #: Whether a match in a text is one; None if every match is.
    is_so: Callable[[re.Match[str]], bool] | None = None
    #: Whether it names a thing: a part of what the caller sent, or more of it, is the caller's.
    names_thing: bool = False


def any_of(name: str, *patterns: str) -> Class:
    """A class of which each match is one. A pattern that begins with (?i) minds no case."""
    joined = "|".join(
        f"(?i:{each.removeprefix('(?i)')})" if each.startswith("(?i)") else f"(?:{each})"
        for each in patterns
    )
    return Class(name, re.compile(joined, re.MULTILINE))
