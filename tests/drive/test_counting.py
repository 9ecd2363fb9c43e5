"""What counting a tenant's files takes, whatever a job has made of them."""

import os
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.drive.folder import counting, tree
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


def used(root: Path) -> int:
    return counting.used_bytes(root, "acme", threading.Event())


def test_names_elsewhere_lower_nothing(tmp_path: Path) -> None:
    """A job may give its files further names where only it, or the coordinator, can see them."""
    folder, elsewhere = tmp_path / "acme", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "file").write_bytes(b"x" * 1024 * 1024)
    alone = used(tmp_path)
    for number in range(99):
        os.link(folder / "file", elsewhere / str(number))
    assert used(tmp_path) == alone >= 1024 * 1024


def test_a_file_with_several_names_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "acme"
    (folder / "below").mkdir(parents=True)
    empty = used(tmp_path)
    for number in range(3):
        (folder / f"{number}").write_bytes(b"x" * 1024 * 1024)
    once = used(tmp_path)
    for number in range(3):
        os.link(folder / f"{number}", folder / "below" / f"{number}")
    assert used(tmp_path) == once > empty
    # Of more than are remembered each name counts: never less than there is.
    monkeypatch.setattr(counting, "_MOST_LINKED", 1)
    assert used(tmp_path) > once


def test_a_number_that_is_used_again_hides_nothing(tmp_path: Path) -> None:
    """A small file with many names goes, and a large one gets its inode, during one count."""
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"x")
    large.write_bytes(b"x" * 1024 * 1024)
    for path in (small, large):
        os.link(path, path.with_suffix(".second"))
    count = counting._Count(threading.Event())
    first = small.stat()
    # What stat(2) says of the large one, under the number of the small one.
    fields = list(large.stat())
    fields[1] = first.st_ino
    again = os.stat_result(fields, {"st_blocks": large.stat().st_blocks, "st_dev": first.st_dev})
    counted = count._size(first, several=True) + count._size(again, several=True)
    assert counted >= large.stat().st_blocks * 512
