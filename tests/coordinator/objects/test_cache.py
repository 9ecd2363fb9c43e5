"""The cache of a node: bounded, shared by processes, and never the owner of what a run uses."""

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest

pytest.importorskip("s3fs")

from app.coordinator.execution.on_nodes.object_cache import ObjectCache
from app.coordinator.failures import is_passing
from app.files.copying import Abandoned
from app.files.directory import Directory, LimitReached
from app.files.walking import Limits
from app.objects.s3 import S3Store
from app.objects.store import ChangedObject, DriveUnavailable
from app.objects.trees import Member, members

WANTED = threading.Event()


def written(store: S3Store, name: str, *sizes: int) -> list[Member]:
    """A tree of files with these sizes."""
    for number, size in enumerate(sizes):
        store.write(f"{name}/deep/{number}", b"x" * size)
    return members(store, f"{name}/", Limits())


def place(cache: ObjectCache, tree: list[Member], target: Path) -> list[str]:
    target.mkdir()
    with Directory.open(target) as directory:
        cache.place("acme", tree, directory, WANTED)
    return sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())


def entries(root: Path) -> int:
    return len(list((root / "cache" / "entries").iterdir()))


def test_runs_share_what_was_fetched_and_cannot_write_it(store: S3Store, tmp_path: Path) -> None:
    tree = written(store, "a", 10, 20)
    cache = ObjectCache(tmp_path / "cache", store, limit_bytes=100)
    assert place(cache, tree, tmp_path / "one") == ["deep/0", "deep/1"]
    # Of another process, and of a store that has nothing any more.
    store.remove([member.stored.key for member in tree])
    other = ObjectCache(tmp_path / "cache", store, limit_bytes=100)
    assert place(other, tree, tmp_path / "two") == ["deep/0", "deep/1"]
    one, two = (tmp_path / name / "deep" / "0" for name in ("one", "two"))
    assert os.path.samefile(one, two)
    assert one.read_bytes() == b"x" * 10
    assert one.stat().st_mode & 0o777 == 0o444
    # Another tenant meets nothing of it.
    with Directory.open(tmp_path) as directory, pytest.raises(FileNotFoundError):
        other.place("rival", tree, directory, WANTED)


def test_what_nobody_uses_goes_first_and_what_is_used_stays(store: S3Store, tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "cache", store, limit_bytes=100)
    first, second, third = (written(store, name, 40) for name in "abc")
    place(cache, first, tmp_path / "one")
    place(cache, second, tmp_path / "two")
    assert entries(tmp_path) == 2
    (tmp_path / "blocked").mkdir()
    with (
        Directory.open(tmp_path / "blocked") as directory,
        pytest.raises(DriveUnavailable) as raised,
    ):
        cache.place("acme", third, directory, WANTED)
    assert is_passing(raised.value)
    shutil.rmtree(tmp_path / "one")
    assert place(cache, third, tmp_path / "three") == ["deep/0"]
    assert entries(tmp_path) == 2
    assert (tmp_path / "two" / "deep" / "0").stat().st_nlink == 2
    with Directory.open(tmp_path) as directory, pytest.raises(LimitReached) as too_large:
        cache.place("acme", written(store, "d", 101), directory, WANTED)
    assert not is_passing(too_large.value)
    assert too_large.value.errno == errno.EFBIG


def test_what_breaks_off_leaves_nothing_that_counts(store: S3Store, tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "cache", store, limit_bytes=100)
    tree = written(store, "a", 40, 40)
    store.write("a/deep/1", b"other")
    (tmp_path / "target").mkdir()
    with Directory.open(tmp_path / "target") as directory:
        with pytest.raises(ChangedObject):
            cache.place("acme", tree, directory, WANTED)
        abandoned = threading.Event()
        abandoned.set()
        newer = members(store, "a/", Limits())
        with pytest.raises(Abandoned):
            cache.place("acme", newer, directory, abandoned)
        assert list(directory.scan()) == []
    assert entries(tmp_path) == 0
    # A process that died in the middle of one: its room is free again.
    left = tmp_path / "cache" / "incoming" / "0123"
    (left / "files").mkdir(parents=True)
    (left / "size").write_text("90")
    assert place(cache, newer, tmp_path / "one") == ["deep/0", "deep/1"]
    assert not left.exists()


def test_of_two_that_want_the_same_one_fetches_it(store: S3Store, tmp_path: Path) -> None:
    tree = written(store, "a", 40)
    cache = ObjectCache(tmp_path / "cache", store, limit_bytes=40)
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda name=name: found.append(place(cache, tree, tmp_path / name)))
        for name in ("one", "two", "three")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["deep/0"]] * 3
    assert entries(tmp_path) == 1
