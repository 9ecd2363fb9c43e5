"""Trees that are there as a whole or not at all, whenever their writer dies."""

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from typing_extensions import override

pytest.importorskip("s3fs")

from app.files.copying import Abandoned
from app.files.directory import Directory, LimitReached
from app.files.walking import Limits
from app.objects import s3
from app.objects.published import PublishedTrees
from app.objects.s3 import S3Store
from app.objects.store import ChangedObject, StoredObject
from tests.objects.buckets import Bucket, faulty, opened

WANTED = threading.Event()
LIMITS = Limits()


@pytest.fixture
def trees(store: S3Store) -> PublishedTrees:
    """Of one job."""
    return PublishedTrees(store, "jobs/1/checkpoints/")


def make(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def publish(trees: PublishedTrees, root: Path, name: str) -> None:
    with Directory.open(root) as source:
        trees.publish(source, name, WANTED, limits=LIMITS)


def fetch(trees: PublishedTrees, name: str, target: Path) -> dict[str, str]:
    target.mkdir()
    with Directory.open(target) as directory:
        trees.fetch(name, directory, "it", WANTED)
    found = target / "it"
    if found.is_file():
        return {"": found.read_text()}
    return {
        str(path.relative_to(found)): path.read_text()
        for path in found.rglob("*")
        if path.is_file()
    }


def test_a_tree_and_a_file_come_back_as_they_were(
    trees: PublishedTrees, store: S3Store, tmp_path: Path
) -> None:
    files = {".metadata": "m", "a/b/c": "deep", "weights": "w" * 100_000, "ä b": ""}
    make(tmp_path / "step-1", files)
    make(tmp_path, {"step-2.pt": "two"})
    assert trees.names() == []
    publish(trees, tmp_path, "step-1")
    publish(trees, tmp_path, "step-2.pt")
    assert [each.name for each in trees.names()] == ["step-1", "step-2.pt"]
    assert fetch(trees, "step-1", tmp_path / "one") == files
    assert fetch(trees, "step-2.pt", tmp_path / "two") == {"": "two"}
    assert trees.size("step-1") == 100_005
    # Where anybody looks for them.
    assert store.read("jobs/1/checkpoints/step-1/a/b/c", limit=9) == b"deep"
    assert store.read("jobs/1/checkpoints/step-2.pt", limit=9) == b"two"
    trees.remove("step-1")
    assert [each.name for each in trees.names()] == ["step-2.pt"]
    trees.remove_all()
    assert not list(store.objects("jobs/"))


def test_one_that_is_written_anew_is_another_and_has_nothing_of_the_former(
    trees: PublishedTrees, tmp_path: Path
) -> None:
    make(tmp_path / "it", {"old": "1", "both": "1"})
    publish(trees, tmp_path, "it")
    (former,) = trees.names()
    (tmp_path / "it" / "old").unlink()
    make(tmp_path / "it", {"both": "2", "new": "2"})
    publish(trees, tmp_path, "it")
    (newer,) = trees.names()
    assert newer.version != former.version
    assert fetch(trees, "it", tmp_path / "copy") == {"both": "2", "new": "2"}
    # A file in the place of a directory, and back.
    (tmp_path / "it").rename(tmp_path / "other")
    make(tmp_path, {"it": "file"})
    publish(trees, tmp_path, "it")
    assert fetch(trees, "it", tmp_path / "copy2") == {"": "file"}
    (tmp_path / "it").unlink()
    (tmp_path / "other").rename(tmp_path / "it")
    publish(trees, tmp_path, "it")
    assert fetch(trees, "it", tmp_path / "copy3") == {"both": "2", "new": "2"}


def test_links_and_special_files_are_left_out(trees: PublishedTrees, tmp_path: Path) -> None:
    make(tmp_path / "it", {"kept": "1"})
    (tmp_path / "it" / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "it" / "pipe")
    with Directory.open(tmp_path) as source:
        report = trees.publish(source, "it", WANTED, limits=LIMITS)
    assert sorted(each.path for each in report.left_out) == ["link", "pipe"]
    assert fetch(trees, "it", tmp_path / "copy") == {"kept": "1"}
    with Directory.open(tmp_path / "it") as source, pytest.raises(OSError, match="regular"):
        trees.publish(source, "link", WANTED, limits=LIMITS)


def test_one_that_is_too_large_or_that_nobody_wants_does_not_count(
    trees: PublishedTrees, tmp_path: Path
) -> None:
    make(tmp_path / "it", {"a": "1" * 100, "b": "2"})
    make(tmp_path, {"file.pt": "1" * 101})
    with Directory.open(tmp_path) as source:
        for name in ("it", "file.pt"):
            with pytest.raises(LimitReached):
                trees.publish(source, name, WANTED, limits=Limits(size_bytes=100))
        abandoned = threading.Event()
        abandoned.set()
        with pytest.raises(Abandoned):
            trees.publish(source, "it", abandoned, limits=LIMITS)
    assert trees.names() == []
    with pytest.raises(FileNotFoundError):
        trees.members("it")


def test_one_whose_objects_were_changed_is_not_fetched(
    trees: PublishedTrees, store: S3Store, tmp_path: Path
) -> None:
    make(tmp_path / "it", {"a": "1", "b": "2"})
    publish(trees, tmp_path, "it")
    store.write("jobs/1/checkpoints/it/b", b"3")
    with pytest.raises(ChangedObject):
        fetch(trees, "it", tmp_path / "one")
    store.remove(["jobs/1/checkpoints/it/b"])
    with pytest.raises(ChangedObject):
        fetch(trees, "it", tmp_path / "two")


@pytest.mark.parametrize(
    "mark",
    [
        b"{",
        b"[]",
        b'{"files": 1}',
        b'{"files": [["../out", 1, "x"]]}',
        b'{"files": [["a", "1"]]}',
        b'{"files": [["a", -1, "x"]]}',
        b'{"files": [["a", true, "x"]]}',
    ],
)
def test_what_is_no_mark_is_no_tree(
    trees: PublishedTrees, store: S3Store, tmp_path: Path, mark: bytes
) -> None:
    store.write("jobs/1/checkpoints/.complete/it", mark)
    with pytest.raises(ValueError, match=r".+"):
        fetch(trees, "it", tmp_path / "copy")


class Died(BaseException):
    """The writer does nothing more."""


class DyingStore(S3Store):
    """Changes something so many times; then its process dies."""

    left = 0

    def _change(self) -> None:
        if self.left == 0:
            raise Died
        self.left -= 1

    @override
    def write(self, key: str, content: bytes) -> None:
        self._change()
        super().write(key, content)

    @override
    def upload(self, key: str, source: int, abandoned: threading.Event) -> StoredObject:
        self._change()
        return super().upload(key, source, abandoned)

    @override
    def remove(self, keys: Iterable[str]) -> None:
        self._change()
        super().remove(keys)


def test_a_writer_that_dies_at_any_moment_leaves_the_former_one_the_new_one_or_none(
    trees: PublishedTrees, store: S3Store, tmp_path: Path
) -> None:
    former, newer = {"a": "1", "b": "1", "c": "1"}, {"a": "2", "b": "2"}
    make(tmp_path / "former" / "it", former)
    make(tmp_path / "newer" / "it", newer)
    publish(trees, tmp_path / "former", "it")
    dying = DyingStore(store.place)
    found: list[dict[str, str] | None] = []
    whole = False
    while not whole:
        dying.left = len(found)
        try:
            publish(PublishedTrees(dying, "jobs/1/checkpoints/"), tmp_path / "newer", "it")
            whole = True
        except Died:
            pass
        there = trees.names()
        copy = tmp_path / f"copy{len(found)}"
        found.append(fetch(trees, "it", copy) if there else None)
    dying.close()
    assert found[0] == former
    assert found[1:-1] == [None] * (len(found) - 2)
    assert found[-1] == newer
    assert len(found) > 4


def test_objects_are_removed_as_they_are_listed(
    bucket: Bucket, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_PAGE", 4)

    def removals(do: Callable[[PublishedTrees], None]) -> list[int]:
        """How many pages had been listed before each call that removed something."""
        with faulty(bucket) as proxy, opened(bucket.place(prefix, port=proxy.port)) as store:
            for number in range(13):
                store.write(f"job/step-1/{number:02}", b"")
            asked = len(proxy.seen)
            do(PublishedTrees(store, "job/"))
            lines = proxy.seen[asked:]
            assert not list(store.objects("job/step-1/0"))
        found, pages = [], 0
        for line in lines:
            pages += "list-type=2" in line
            if line.startswith("POST") and "delete" in line:
                found.append(pages)
        return found

    make(tmp_path / "step-1", {"new": ""})
    for do in (
        lambda trees: publish(trees, tmp_path, "step-1"),
        lambda trees: trees.remove("step-1"),
        PublishedTrees.remove_all,
    ):
        found = removals(do)
        # The objects take four pages: some are removed before the last is asked for.
        assert len({each for each in found if found[-1] - each < 4}) >= 3, found
