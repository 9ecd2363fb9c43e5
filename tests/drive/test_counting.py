"""What counting a tenant's files takes, whatever a job has made of them."""

import os
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.drive import counting, tree
from app.files.copying import Abandoned
from app.files.directory import Directory, Entry, Kind

SIBLINGS = 20
DEPTH = 500


class Level:
    """A folder of empty folders, the last of which is such a folder again."""

    def __init__(self, about: os.stat_result) -> None:
        self._about = about

    def scan(self) -> Iterator[Entry]:
        for number in range(SIBLINGS):
            yield Entry(str(number), Kind.DIRECTORY)

    def stat(self, name: str) -> os.stat_result:
        return self._about


def test_folders_that_wait_take_no_more_memory_the_deeper_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme").mkdir()
    deepest = 0

    @contextmanager
    def descend(top: Directory, parts: tuple[str, ...]) -> Iterator[Level]:
        nonlocal deepest
        deepest = max(deepest, len(parts))
        if len(parts) == DEPTH:
            raise Abandoned
        yield Level(top.about())

    monkeypatch.setattr(tree, "descend", descend)
    monkeypatch.setattr(counting, "_PAUSE", 0)
    tracemalloc.start()
    try:
        with pytest.raises(Abandoned):
            counting.used_bytes(tmp_path, "acme", threading.Event())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert deepest == DEPTH
    assert peak < SIBLINGS * DEPTH * 400
