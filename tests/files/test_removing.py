"""Removing trees, whatever they are and whoever still changes them."""

import os
import threading
from pathlib import Path

import pytest

from app.files.directory import Directory
from app.files.removing import remove_tree
from tests.files.trees import deep, descriptors


def test_a_tree_of_any_depth_goes(root: Directory, tmp_path: Path) -> None:
    (tmp_path / "root" / "tree").mkdir()
    deep(tmp_path / "root" / "tree", 5000)
    before = descriptors()
    remove_tree(root, "tree")
    assert not root.exists("tree")
    assert descriptors() == before


def test_links_go_and_what_they_lead_to_stays(root: Directory, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "file").write_text("untouched")
    (tmp_path / "root" / "tree" / "below").mkdir(parents=True)
    for path in ("tree/link", "tree/below/link", "link"):
        os.symlink(tmp_path / "foreign", tmp_path / "root" / path)
    os.mkfifo(tmp_path / "root" / "tree" / "pipe")
    for name in ("tree", "link", "missing"):
        remove_tree(root, name)
    assert root.entries(limit=9) == []
    assert (tmp_path / "foreign" / "file").read_text() == "untouched"


def test_directories_that_their_owner_closed_go(root: Directory, tmp_path: Path) -> None:
    inner = tmp_path / "root" / "tree" / "a" / "b" / "c"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    for path in (inner, inner.parent, inner.parent.parent, tmp_path / "root" / "tree"):
        path.chmod(0)
    remove_tree(root, "tree")
    assert root.entries(limit=9) == []


def test_more_entries_than_are_looked_at_together_go(root: Directory, tmp_path: Path) -> None:
    for folder in ("tree", "tree/below"):
        (tmp_path / "root" / folder).mkdir()
        for number in range(2500):
            (tmp_path / "root" / folder / str(number)).touch()
    remove_tree(root, "tree")
    assert root.entries(limit=9) == []


def test_a_tree_goes_while_another_thread_fills_it(root: Directory, tmp_path: Path) -> None:
    tree = tmp_path / "root" / "tree"
    (tree / "a").mkdir(parents=True)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "file").write_text("untouched")
    stop = threading.Event()
    busy = threading.Event()

    def fill() -> None:
        number = 0
        while not stop.is_set() and number < 3000:
            number += 1
            try:
                (tree / "a" / f"d{number}" / "e").mkdir(parents=True)
                os.symlink(foreign, tree / "a" / f"l{number}")
                os.rename(tree / "a" / f"d{number}", tree / f"up{number}")
            except OSError:
                pass
            if number == 50:
                busy.set()

    filling = threading.Thread(target=fill)
    filling.start()
    try:
        assert busy.wait(60)
        remove_tree(root, "tree")
    finally:
        stop.set()
        filling.join()
    # Whatever came after it was gone.
    remove_tree(root, "tree")
    assert root.entries(limit=9) == []
    assert (foreign / "file").read_text() == "untouched"


@pytest.mark.parametrize("name", ["..", ".", "a/b"])
def test_only_a_name_is_removed(root: Directory, name: str) -> None:
    with pytest.raises(OSError, match="is not the name of a file"):
        remove_tree(root, name)
