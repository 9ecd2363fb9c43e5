"""Walking trees that may be odd, and that may change."""

import os
from pathlib import Path

import pytest

from app.files.directory import Directory, Kind, LimitReached
from app.files.walking import ChangedMeanwhile, Limits, tree_size, walk
from tests.files.trees import deep, descriptors


def paths(root: Directory, limits: Limits | None = None) -> list[tuple[str, Kind]]:
    return [(visit.path, visit.entry.kind) for visit in walk(root, limits or Limits())]


def test_each_directory_comes_before_what_is_in_it(root: Directory, tmp_path: Path) -> None:
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    (tmp_path / "root" / "a" / "b" / "c").touch()
    (tmp_path / "root" / "z").touch()
    os.symlink("a", tmp_path / "root" / "link")
    os.mkfifo(tmp_path / "root" / "pipe")
    assert paths(root) == [
        ("a", Kind.DIRECTORY),
        ("a/b", Kind.DIRECTORY),
        ("a/b/c", Kind.FILE),
        ("link", Kind.LINK),
        ("pipe", Kind.SPECIAL),
        ("z", Kind.FILE),
    ]


def test_a_tree_deeper_than_a_path_is_walked_with_few_descriptors(
    root: Directory, tmp_path: Path
) -> None:
    deep(tmp_path / "root", 3000)
    before = descriptors()
    most = 0
    names = []
    for visit in walk(root, Limits(depth=5000)):
        names.append(visit.entry.name)
        most = max(most, descriptors() - before)
    assert names == ["d"] * 3000 + ["bottom"]
    assert most < 5
    assert descriptors() == before


def test_the_bounds_are_kept(root: Directory, tmp_path: Path) -> None:
    deep(tmp_path / "root", 10)
    with (tmp_path / "root" / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert tree_size(root, Limits(depth=10)) == 1 << 40
    for limits, text in (
        (Limits(depth=9), "more than 9 deep"),
        (Limits(entries=10), "more than 10 files"),
        (Limits(size_bytes=1 << 39), "more than 549755813888 bytes"),
    ):
        with pytest.raises(LimitReached, match=text):
            paths(root, limits)


def test_a_directory_that_is_moved_away_leads_nowhere_else(root: Directory, tmp_path: Path) -> None:
    inner = tmp_path / "root" / "a" / "b"
    (inner / "c").mkdir(parents=True)
    (tmp_path / "elsewhere" / "foreign").mkdir(parents=True)
    walked = walk(root, Limits())
    seen = [next(walked).path for _ in range(2)]
    inner.rename(tmp_path / "elsewhere" / "b")
    with pytest.raises(ChangedMeanwhile):
        seen += [visit.path for visit in walked]
    assert seen == ["a", "a/b"]


def test_a_directory_that_becomes_a_link_is_not_followed(root: Directory, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "root" / name).mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").touch()
    seen = []
    for visit in walk(root, Limits()):
        seen.append((visit.path, visit.entry.kind))
        if visit.entry.name == "a":
            (tmp_path / "root" / "b").rmdir()
            os.symlink(tmp_path / "secret", tmp_path / "root" / "b")
    assert seen == [("a", Kind.DIRECTORY), ("b", Kind.SPECIAL)]
