import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.files.directory import Directory
from app.files.removing import remove_tree


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Directory]:
    """An empty directory, held open; its path is `tmp_path / "root"`."""
    (tmp_path / "root").mkdir()
    with Directory.open(tmp_path / "root") as directory:
        yield directory
    # What pytest cannot remove: it goes down by recursion.
    with Directory.open(tmp_path) as top:
        for entry in top.entries(limit=1000):
            remove_tree(top, entry.name)


@pytest.fixture
def wanted() -> threading.Event:
    """What says that nobody has given a copy up."""
    return threading.Event()
