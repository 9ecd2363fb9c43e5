"""A job user id belongs to one coordinator of the machine at a time."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from app.coordinator.isolation import probe, uid_locks, uids
from app.coordinator.isolation.ending import leftovers
from app.coordinator.isolation.levels import Isolation, Level
from app.coordinator.isolation.uid_locks import hold
from app.coordinator.isolation.uids import JobUids, NoUid
from app.coordinator.storage.job_directory import JobDir
from app.files.json_files import write_json

FIRST = 61712
RANGE = range(FIRST, FIRST + 2)


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for locks of the test's own."""
    directory = tmp_path / "locks"
    monkeypatch.setattr(uid_locks, "DIRECTORY", directory)
    return directory


def run_of(path: Path) -> Path:
    run = JobDir(path).run(1).path
    run.mkdir(parents=True)
    return run


def test_two_coordinators_never_have_the_same_id(tmp_path: Path) -> None:
    with (
        closing(JobUids(tmp_path / "a", RANGE)) as first,
        closing(JobUids(tmp_path / "b", RANGE)) as second,
    ):
        given = [first.take(run_of(tmp_path / "1")), second.take(run_of(tmp_path / "2"))]
        assert sorted(given) == list(RANGE)
        for each in (first, second):
            with pytest.raises(NoUid):
                each.take(run_of(tmp_path / f"3{id(each)}"))


def test_an_id_is_held_as_long_as_who_it_was_passed_on_to_lives(tmp_path: Path) -> None:
    with closing(JobUids(tmp_path / "a", RANGE)) as mine:
        uid = mine.take(run_of(tmp_path / "1"))
        with mine.pass_on(uid) as files:
            runner = subprocess.Popen(
                [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=files
            )
    assert hold(uid) is None
    runner.communicate(b"\n", timeout=60)
    lock = hold(uid)
    assert lock is not None
    lock.close()


def test_an_id_that_another_holds_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def free(uid: int) -> bool:
        asked.append(uid)
        return True

    monkeypatch.setattr(uids, "_is_free", free)
    lock = hold(FIRST)
    assert lock is not None
    with lock, closing(JobUids(tmp_path / "a", RANGE)) as mine:
        assert mine.take(run_of(tmp_path / "1")) == FIRST + 1
    assert asked == [FIRST + 1]


def test_what_was_taken_for_a_run_that_did_not_start_is_given_to_it_again(tmp_path: Path) -> None:
    with closing(JobUids(tmp_path / "a", range(FIRST, FIRST + 1))) as mine:
        run = run_of(tmp_path / "1")
        assert [mine.take(run), mine.take(run)] == [FIRST, FIRST]
        write_json(run / "exit.json", {})
        assert mine.take(run_of(tmp_path / "2")) == FIRST


@pytest.mark.parametrize("held", [True, False])
def test_what_a_lost_run_left_is_ended_only_while_its_id_is_its_own(
    held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []

    def end_all_of(uid: int, *, patience: float) -> bool:
        assert hold(uid) is None
        ended.append(uid)
        return True

    monkeypatch.setattr(leftovers, "end_all_of", end_all_of)
    lock = hold(FIRST) if held else None
    leftovers.end_leftovers({}, {"level": "user", "uid": FIRST}, marker="none such")
    assert ended == ([] if held else [FIRST])
    if lock is not None:
        lock.close()


def test_without_a_place_for_locks_ids_are_given_all_the_same(tmp_path: Path, locks: Path) -> None:
    locks.touch()
    with closing(JobUids(tmp_path / "a", RANGE)) as mine:
        uid = mine.take(run_of(tmp_path / "1"))
        with mine.pass_on(uid) as files:
            assert files == ()


@pytest.mark.parametrize("level", [Level.NAMESPACES, Level.USER])
def test_a_coordinator_whose_ids_are_all_taken_starts(
    tmp_path: Path, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int | None] = []

    def run_as(uid: int | None, *_: object) -> str:
        tried.append(uid)
        return ""

    monkeypatch.setattr(probe, "_run_as", run_as)
    isolation = Isolation(level, uids=RANGE)
    locks = [hold(uid) for uid in RANGE]
    assert probe._run(isolation, tmp_path, ()) == ""
    # Without a namespace, all processes of the id would end with the probe's.
    assert tried == ([FIRST] if level is Level.NAMESPACES else [])
    for lock in locks:
        assert lock is not None
        lock.close()
    assert probe._run(isolation, tmp_path, ()) == ""
    assert tried[-1] == FIRST


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path, locks: Path) -> None:
    locks.mkdir()
    canary = tmp_path / "canary"
    (locks / str(FIRST)).symlink_to(canary)
    lock = hold(FIRST)
    assert lock is not None
    assert lock.file is None
    assert not os.path.lexists(canary)


def test_two_runs_that_are_about_to_begin_never_have_the_same_id(tmp_path: Path) -> None:
    with closing(JobUids(tmp_path / "a", range(FIRST, FIRST + 1))) as mine:
        # Their directories are made when they are launched.
        first, second = (JobDir(tmp_path / name).run(1).path for name in "12")
        assert mine.take(first) == FIRST
        with pytest.raises(NoUid):
            mine.take(second)
        with mine.pass_on(FIRST), pytest.raises(NoUid):
            mine.take(second)


def test_the_id_of_a_run_that_does_not_begin_is_free(tmp_path: Path) -> None:
    with closing(JobUids(tmp_path / "a", range(FIRST, FIRST + 1))) as mine:
        first, second = (JobDir(tmp_path / name).run(1).path for name in "12")
        mine.take(first)
        # It was about to be launched.
        first.mkdir(parents=True)
        with mine.pass_on(FIRST):
            pass
        mine.give_up(first)
        assert mine.take(first) == FIRST
        mine.give_up(first)
        assert mine.take(second) == FIRST


@pytest.mark.parametrize("content", [b"\0" * 20, b"{}", b"[]", b'{"run": 1}'])
def test_a_damaged_note_of_who_has_an_id_keeps_no_run_from_beginning(
    content: bytes, tmp_path: Path
) -> None:
    with closing(JobUids(tmp_path / "a", range(FIRST, FIRST + 1))) as mine:
        (tmp_path / "a" / str(FIRST)).write_bytes(content)
        assert mine.take(run_of(tmp_path / "1")) == FIRST
