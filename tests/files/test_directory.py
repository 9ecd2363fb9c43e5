"""Operations relative to a directory that is held open."""

import os
import socket
from pathlib import Path

import pytest

from app.files.directory import Directory, Entry, Kind, LimitReached, NotARegularFile
from app.files.names import is_utf8, printable, unguessable


def test_a_file_is_read_although_the_path_of_its_directory_changed(
    root: Directory, tmp_path: Path
) -> None:
    (tmp_path / "root" / "a").write_bytes(b"own")
    (tmp_path / "root").rename(tmp_path / "moved")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").write_bytes(b"foreign")
    with root.open_file("a") as file:
        assert file.read() == b"own"


def test_only_a_regular_file_is_opened_as_one(root: Directory, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    os.symlink(tmp_path / "secret", "link", dir_fd=root.descriptor)
    os.mkfifo("pipe", dir_fd=root.descriptor)
    os.mkdir("directory", dir_fd=root.descriptor)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "root" / "socket"))
    for name in ("link", "pipe", "directory", "socket"):
        with pytest.raises(NotARegularFile):
            root.open_file(name)
    with pytest.raises(FileNotFoundError):
        root.open_file("missing")


def test_a_link_is_not_opened_as_a_directory(root: Directory, tmp_path: Path) -> None:
    os.symlink(tmp_path, "link", dir_fd=root.descriptor)
    with pytest.raises(NotADirectoryError):
        root.open_directory("link")
    with pytest.raises(NotADirectoryError):
        root.make_directory("link", exist_ok=True)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b"])
def test_a_name_is_one_part(root: Directory, name: str) -> None:
    for operation in (root.open_file, root.open_directory, root.stat, root.unlink, root.rmdir):
        with pytest.raises(OSError, match="is not the name of a file"):
            operation(name)


def test_a_file_appears_as_a_whole_in_the_place_of_a_link(root: Directory, tmp_path: Path) -> None:
    (tmp_path / "foreign").write_text("untouched")
    os.symlink(tmp_path / "foreign", "name", dir_fd=root.descriptor)
    with root.create("name") as file:
        file.write(b"new")
        assert os.readlink("name", dir_fd=root.descriptor) == str(tmp_path / "foreign")
    assert (tmp_path / "foreign").read_text() == "untouched"
    assert root.entries(limit=10) == [Entry("name", Kind.FILE)]
    assert (tmp_path / "root" / "name").read_bytes() == b"new"


def test_a_file_that_is_given_up_leaves_nothing(root: Directory) -> None:
    def fail() -> None:
        with root.create("name") as file:
            file.write(b"half")
            raise ValueError("given up")

    with pytest.raises(ValueError, match="given up"):
        fail()
    assert root.entries(limit=10) == []


def test_a_file_can_have_a_name_of_255_bytes(root: Directory) -> None:
    with root.create("n" * 255) as file:
        file.write(b"content")
    assert [entry.name for entry in root.entries(limit=1)] == ["n" * 255]


def test_entries_are_counted_before_they_are_kept(root: Directory) -> None:
    for number in range(5):
        root.make_directory(str(number)).close()
    assert len(root.entries(limit=5)) == 5
    with pytest.raises(LimitReached, match="more than 4"):
        root.entries(limit=4)


def test_a_second_name_of_the_same_file_leaves_nothing_else(root: Directory) -> None:
    with root.create("a") as file:
        file.write(b"content")
    for _ in range(2):
        root.link("a", root, "b")
    assert [entry.name for entry in root.entries(limit=9)] == ["a", "b"]
    assert root.stat("a").st_ino == root.stat("b").st_ino


def test_names_that_are_not_utf8_can_be_told(root: Directory) -> None:
    with root.create(os.fsdecode(b"m\xff.bin")):
        pass
    (entry,) = root.entries(limit=1)
    assert not is_utf8(entry.name)
    assert printable(entry.name) == "m\\xff.bin"
    assert printable("a\nb\x1b[0m") == "a\\nb\\x1b[0m"
    assert len(printable("x" * 10_000)) < 600
    assert unguessable() != unguessable()
