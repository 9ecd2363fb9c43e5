"""A task that a tiny model learns in seconds: sums of numbers in words."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

# fmt: off
_WORDS: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
    "eighteen",
)
# fmt: on
#: The numbers that are added.
_NUMBERS: Final = range(10)


def pairs() -> list[tuple[str, str]]:
    """Questions with their answers."""
    return [
        (f"What is {_WORDS[one]} plus {_WORDS[other]}?", f"It is {_WORDS[one + other]}.")
        for one in _NUMBERS
        for other in _NUMBERS
    ]


def messages() -> list[dict[str, Any]]:
    """As conversations."""
    return [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in pairs()
    ]


def prompts() -> list[dict[str, Any]]:
    """As prompts with completions."""
    return [{"prompt": question, "completion": f" {answer}"} for question, answer in pairs()]


def texts() -> list[dict[str, Any]]:
    """As plain texts."""
    return [{"text": f"{question} {answer}"} for question, answer in pairs()]


def write(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write records as JSON Lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
