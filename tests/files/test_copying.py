"""Copying files and trees that may be odd, and that may change."""

import os
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.files.copying import Abandoned, copy_content, copy_open_file, copy_tree
from app.files.directory import Directory, LimitReached
from app.files.walking import Limits
from tests.files.trees import deep, descriptors


def test_a_tree_is_copied_and_what_is_left_out_is_told(
    root: Directory, tmp_path: Path, wanted: threading.Event
) -> None:
    source = tmp_path / "root"
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "file").write_bytes(b"content")
    (source / "a" / "b" / "file").chmod(0o4755)
    (source / "empty").mkdir()
    os.symlink("/etc/passwd", source / "a" / "link")
    os.mkfifo(source / "pipe")
    (tmp_path / "target").mkdir()
    with Directory.open(tmp_path / "target") as target:
        report = copy_tree(root, target, wanted, limits=Limits())
    assert (report.files, report.size_bytes, report.left_out_count) == (1, 7, 2)
    assert [(each.path, each.what) for each in report.left_out] == [
        ("a/link", "symbolic link"),
        ("pipe", "special file"),
    ]
    copied = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "target").rglob("*"))
    assert copied == ["target/a", "target/a/b", "target/a/b/file", "target/empty"]
    assert (tmp_path / "target/a/b/file").stat().st_mode & 0o7777 == 0o755


def test_links_at_the_target_lead_nowhere(
    root: Directory, tmp_path: Path, wanted: threading.Event
) -> None:
    (tmp_path / "root" / "d").mkdir()
    (tmp_path / "root" / "d" / "file").write_text("new")
    (tmp_path / "root" / "file").write_text("new")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "file").write_text("untouched")
    (tmp_path / "target").mkdir()
    os.symlink(tmp_path / "foreign" / "file", tmp_path / "target" / "file")
    os.symlink(tmp_path / "foreign", tmp_path / "target" / "d")
    with (
        Directory.open(tmp_path / "target") as target,
        pytest.raises(NotADirectoryError),
    ):
        copy_tree(root, target, wanted, limits=Limits())
    (tmp_path / "target" / "d").unlink()
    with Directory.open(tmp_path / "target") as target:
        copy_tree(root, target, wanted, limits=Limits())
    assert (tmp_path / "target" / "file").read_text() == "new"
    assert not (tmp_path / "target" / "file").is_symlink()
    assert (tmp_path / "foreign" / "file").read_text() == "untouched"


def test_holes_and_second_names_survive(
    root: Directory, tmp_path: Path, wanted: threading.Event
) -> None:
    source = tmp_path / "root"
    with (source / "sparse").open("wb") as file:
        file.seek(1 << 30)
        file.write(b"middle")
        file.truncate(1 << 40)
    os.link(source / "sparse", source / "second")
    (tmp_path / "target").mkdir()
    with Directory.open(tmp_path / "target") as target:
        report = copy_tree(root, target, wanted, limits=Limits())
    first, second = (tmp_path / "target" / name for name in ("second", "sparse"))
    assert first.stat().st_ino == second.stat().st_ino
    assert (first.stat().st_size, report.size_bytes) == (1 << 40, 1 << 40)
    assert first.stat().st_blocks * 512 < 1 << 20
    with first.open("rb") as file:
        file.seek((1 << 30) - 2)
        assert file.read(10) == b"\0\0middle\0\0"


def test_a_tree_over_its_bounds_is_refused(
    root: Directory, tmp_path: Path, wanted: threading.Event
) -> None:
    with (tmp_path / "root" / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "target").mkdir()
    with Directory.open(tmp_path / "target") as target:
        with pytest.raises(LimitReached, match="more than 1073741824 bytes"):
            copy_tree(root, target, wanted, limits=Limits(size_bytes=1 << 30))
        assert target.entries(limit=9) == []


def test_a_deep_tree_is_copied_with_few_descriptors(
    root: Directory, tmp_path: Path, wanted: threading.Event
) -> None:
    deep(tmp_path / "root", 500)
    (tmp_path / "target").mkdir()
    before = descriptors()
    with Directory.open(tmp_path / "target") as target:
        report = copy_tree(root, target, wanted, limits=Limits(depth=500))
    assert report.files == 1
    # Fewer are open if what another test left was collected meanwhile.
    assert descriptors() <= before


def test_what_is_given_up_leaves_no_half_file(root: Directory, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    given_up = threading.Event()
    given_up.set()
    with (tmp_path / "file").open("rb") as file, pytest.raises(Abandoned):
        copy_open_file(file.fileno(), root, "copy", given_up)
    assert root.entries(limit=9) == []


def test_a_file_that_grows_is_copied_as_it_was(tmp_path: Path, wanted: threading.Event) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    with (tmp_path / "file").open("rb") as file, (tmp_path / "copy").open("wb") as copy:
        assert copy_content(file.fileno(), copy.fileno(), wanted) == 100
    assert (tmp_path / "copy").read_bytes() == b"x" * 100


def test_files_swapped_for_links_are_never_followed(
    root: Directory, tmp_path: Path, wanted: threading.Event
) -> None:
    """Escape 3: what was a file when the directory was read is a link when it is opened."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("secret")
    source = tmp_path / "root"
    names = [f"file-{number}" for number in range(60)]
    for name in names:
        (source / name).write_text("own")
        (source / f"d-{name}").mkdir()
        (source / f"d-{name}" / "file").write_text("own")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for name in names:
                for own, foreign in ((name, "secret"), (f"d-{name}", "folder")):
                    os.symlink(tmp_path / foreign, source / "link")
                    os.rename(source / own, source / "kept")
                    os.rename(source / "link", source / own)
                    os.rename(source / own, source / "link")
                    os.rename(source / "kept", source / own)
                    os.unlink(source / "link")

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for turn in range(30):
            (tmp_path / f"target-{turn}").mkdir()
            with Directory.open(tmp_path / f"target-{turn}") as target:
                copy_tree(root, target, wanted, limits=Limits())
    finally:
        stop.set()
        swapping.join()
    copied = [path for path in tmp_path.glob("target-*/**/*") if path.is_file()]
    assert len(copied) > 30
    assert not [path for path in copied if path.is_symlink() or path.read_text() != "own"]


_NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
_TREES = st.recursive(
    st.one_of(st.binary(max_size=64), st.sampled_from(["link", "pipe"])),
    lambda inner: st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)
_Tree = bytes | str | dict[bytes, "_Tree"]


def _make(path: bytes, tree: _Tree) -> None:
    if isinstance(tree, dict):
        os.mkdir(path)
        for name, inner in tree.items():
            _make(path + b"/" + name, inner)
    elif tree == "link":
        os.symlink("/etc/passwd", path)
    elif tree == "pipe":
        os.mkfifo(path)
    else:
        assert isinstance(tree, bytes)
        with open(path, "wb") as file:
            file.write(tree)


def _read(path: bytes) -> _Tree:
    if os.path.isdir(path):
        return {name: _read(path + b"/" + name) for name in os.listdir(path)}
    with open(path, "rb") as file:
        return file.read()


def _plain(tree: _Tree) -> _Tree:
    assert isinstance(tree, dict)
    return {
        name: _plain(inner) if isinstance(inner, dict) else inner
        for name, inner in tree.items()
        if not isinstance(inner, str)
    }


@settings(settings.get_profile("often"))
@given(st.dictionaries(_NAMES, _TREES, max_size=5))
def test_any_tree_is_copied_but_for_links_and_special_files(tree: dict[bytes, _Tree]) -> None:
    with TemporaryDirectory() as path:
        top = os.fsencode(path)
        _make(top + b"/source", tree)
        os.mkdir(top + b"/target")
        with (
            Directory.open(f"{path}/source") as source,
            Directory.open(f"{path}/target") as target,
        ):
            copy_tree(source, target, threading.Event(), limits=Limits())
        assert _read(top + b"/target") == _plain(tree)
