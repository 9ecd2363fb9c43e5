"""What hostile jobs leave that pytest cannot remove: it goes down by recursion."""

from collections import deque
from pathlib import Path

from app.files.directory import Directory, LimitReached
from app.files.removing import remove_tree
from app.files.walking import Limits, walk

#: Directories below each other that pytest copes with.
_FINE = 200


def remove_what_is_deep(path: Path) -> None:
    """Empty a directory if it has others below each other that are too many for pytest."""
    with Directory.open(path) as top:
        try:
            deque(walk(top, Limits(depth=_FINE, entries=10_000_000)), maxlen=0)
        except LimitReached:
            for entry in top.entries(limit=100_000):
                remove_tree(top, entry.name)
