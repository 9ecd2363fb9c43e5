"""Conversations about sums, for models that are to learn which answer is the better one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_WORDS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS: Final = (
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
)
_SUMS: Final = (*_WORDS, *_TEENS)
EVASION: Final = "I do not know."


def preferences() -> Iterator[dict[str, Any]]:
    """Yield 90 records: a sum is better than an evasion."""
    for one in range(10):
        for other in range(9):
            asked = f"What is {_WORDS[one]} plus {_WORDS[other]}?"
            yield {
                "prompt": [{"role": "user", "content": asked}],
                "chosen": [{"role": "assistant", "content": f"It is {_SUMS[one + other]}."}],
                "rejected": [{"role": "assistant", "content": EVASION}],
            }


def conversations() -> Iterator[dict[str, Any]]:
    """Yield the same with either answer."""
    for record in preferences():
        for answer in ("chosen", "rejected"):
            yield {"messages": [*record["prompt"], *record[answer]]}


def write(path: Path, records: Iterator[dict[str, Any]]) -> Path:
    """Write records as JSON Lines; return the path."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
