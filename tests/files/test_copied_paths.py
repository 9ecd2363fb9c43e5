"""What a report of a copy keeps of the files that were written."""

import threading
from pathlib import Path

import pytest

from app.files.copying import Report, copy_tree
from app.files.directory import Directory
from app.files.walking import Limits


def copied(tmp_path: Path, *, note_written: bool) -> Report:
    for path in ("source/deep", "target"):
        (tmp_path / path).mkdir(parents=True)
    for name in ("deep/first", "second", "third"):
        (tmp_path / "source" / name).write_text(name)
    with (
        Directory.open(tmp_path / "source") as source,
        Directory.open(tmp_path / "target") as target,
    ):
        return copy_tree(
            source, target, threading.Event(), limits=Limits(), note_written=note_written
        )


def test_paths_are_kept_only_where_they_are_wanted(tmp_path: Path) -> None:
    report = copied(tmp_path, note_written=False)
    assert (report.files, report.written) == (3, {})


def test_the_length_of_all_paths_together_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = len("deep/first")
    monkeypatch.setattr("app.files.copying._PATHS", bound)
    report = copied(tmp_path, note_written=True)
    assert report.files == 3
    assert report.written
    assert sum(map(len, report.written)) <= bound
