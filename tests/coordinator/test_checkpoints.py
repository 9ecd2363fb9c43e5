"""Which checkpoints a job has, by what is in its directory."""

import os
import shutil
import socket
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.coordinator.execution import checkpoints as module
from app.coordinator.execution.checkpoints import (
    CheckpointFinder,
    is_unfinished,
    remove_leftovers,
    step_of,
)
from app.coordinator.jobs.model import MAX_COUNT, Checkpoint
from app.files.directory import Directory


class Looks:
    """Looks at one directory, one after the other."""

    def __init__(self, path: Path, *, keep: int = 0) -> None:
        self.path = path
        self.seen: tuple[Checkpoint, ...] = ()
        ticks = count(1)
        self.finder = CheckpointFinder(keep=keep, clock=lambda: next(ticks))

    def look(self) -> list[str]:
        """The ids of the checkpoints, the oldest first."""
        with Directory.open(self.path) as root:
            self.seen = self.finder.look(root, self.seen, last=True)
            if self.finder.leftovers:
                remove_leftovers(root)
        assert [each.sequence for each in self.seen] == sorted(
            {each.sequence for each in self.seen}
        )
        return [checkpoint.checkpoint_id for checkpoint in self.seen]

    def write(self, name: str, text: str = "x") -> None:
        """A checkpoint as it should be written: beside, then renamed."""
        fresh = self.path / f"{name}.tmp"
        fresh.mkdir()
        (fresh / "weights").write_text(text)
        if (self.path / name).exists():
            shutil.rmtree(self.path / name)
        fresh.rename(self.path / name)


@pytest.fixture
def looks(tmp_path: Path) -> Looks:
    return Looks(tmp_path)


def test_the_newest_is_the_one_that_was_seen_last_whatever_its_name(looks: Looks) -> None:
    for name in ("step-30", "step-10", "best", "step-20"):
        looks.write(name)
        looks.look()
    assert looks.look() == ["step-30", "step-10", "best", "step-20"]


def test_times_of_files_do_not_make_one_new(looks: Looks) -> None:
    looks.write("step-1")
    looks.look()
    looks.write("step-2")
    os.utime(looks.path / "step-2", (0, 0))
    assert looks.look() == ["step-1", "step-2"]


def test_what_has_not_changed_is_the_same_object(looks: Looks) -> None:
    """A job has up to 50,000: comparing them one by one at each look would take long."""
    for number in range(20):
        looks.write(f"step-{number}")
    for _ in range(3):
        # Until their sizes have settled.
        looks.look()
    before = looks.seen
    looks.write("step-20")
    looks.look()
    assert len(looks.seen) == 21
    assert all(was is now for was, now in zip(before, looks.seen, strict=False))


def test_one_that_is_written_anew_counts_anew(looks: Looks) -> None:
    for name in ("last", "step-2"):
        looks.write(name)
        looks.look()
    looks.write("last")
    assert looks.look() == ["step-2", "last"]


def test_one_that_is_renamed_away_and_back_counts_anew(looks: Looks) -> None:
    for name in ("last", "step-2"):
        looks.write(name)
        looks.look()
    (looks.path / "last").rename(looks.path / "last.tmp")
    (looks.path / "last.tmp").rename(looks.path / "last")
    assert looks.look() == ["step-2", "last"]


def test_when_all_are_given_another_owner_their_order_stays(looks: Looks) -> None:
    names = ["step-3", "step-1", "step-2"]
    for name in names:
        looks.write(name)
        looks.look()
    for name in reversed(names):
        (looks.path / name).chmod(0o700)
    assert looks.look() == names


def test_what_was_stored_without_an_owner_keeps_its_place(looks: Looks) -> None:
    for name in ("step-2", "step-1"):
        looks.write(name)
        looks.look()
    looks.seen = tuple(
        replace(each, identity=each.identity.rpartition(":")[0]) for each in looks.seen
    )
    assert looks.look() == ["step-2", "step-1"]
    looks.write("step-2", "anew")
    assert looks.look() == ["step-1", "step-2"]


def test_those_that_are_new_at_once_are_ordered_by_time_and_step(looks: Looks) -> None:
    for name in ("step-10", "step-9", "a-3"):
        looks.write(name)
        os.utime(looks.path / name, (1000, 1000))
    looks.write("step-1")
    os.utime(looks.path / "step-1", (2000, 2000))
    assert looks.look() == ["a-3", "step-9", "step-10", "step-1"]


def test_the_newest_is_never_removed(tmp_path: Path) -> None:
    looks = Looks(tmp_path, keep=2)
    for name in ("step-100", "step-200", "step-50", "step-60"):
        looks.write(name)
        looks.look()
    assert looks.look() == ["step-50", "step-60"]
    assert sorted(os.listdir(tmp_path)) == ["step-50", "step-60"]


def test_one_that_cannot_be_removed_stays_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(tmp_path, keep=1)
    looks.write("step-1")
    looks.look()
    looks.write("step-2")

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(Directory, "rename", refuse)
        assert looks.look() == ["step-1", "step-2"]
        assert looks.look() == ["step-1", "step-2"]
    (note,) = looks.finder.notes
    assert note == (
        "Old checkpoints cannot be removed (Operation not permitted), such as 'step-1'."
    )
    assert looks.look() == ["step-2"]


def test_what_a_crash_left_of_a_removal_goes(looks: Looks) -> None:
    (looks.path / f".{'0' * 32}.removed.partial" / "deep").mkdir(parents=True)
    (looks.path / ".mine").mkdir()
    assert looks.look() == []
    assert os.listdir(looks.path) == [".mine"]


def test_a_size_is_measured_until_it_stops_changing(looks: Looks) -> None:
    looks.write("step-1", "x" * 10)
    looks.look()
    assert [each.size_bytes for each in looks.seen] == [10]
    for size in (20, 30):
        # Further down, so that nothing is seen of it in the checkpoint's own directory.
        (looks.path / "step-1" / "weights").write_text("x" * size)
        looks.look()
        assert [each.size_bytes for each in looks.seen] == [size]
    looks.look()
    settled = looks.seen
    looks.look()
    assert looks.seen == settled


def test_the_newest_keeps_its_place_while_it_is_being_written(looks: Looks) -> None:
    looks.write("step-1")
    looks.look()
    (looks.path / "step-2").mkdir()
    looks.look()
    sequence = looks.seen[-1].sequence
    for at in range(3):
        (looks.path / "step-2" / f"part-{at}").write_text("x")
        assert looks.look() == ["step-1", "step-2"]
    assert looks.seen[-1].sequence == sequence


@pytest.mark.parametrize(
    "name", ["step-1.tmp", "step-1.part", "step-1.partial", ".step-1", "tmp-checkpoint-500"]
)
def test_what_is_unfinished_by_its_name_is_none(looks: Looks, name: str) -> None:
    (looks.path / name).mkdir()
    (looks.path / f"{name}.pt").touch()
    (looks.path / f"{name}.pt").rename(looks.path / f".{name}.pt")
    assert looks.look() == []


def test_files_count_by_their_names(looks: Looks) -> None:
    for name in ("model.pt", "epoch=1-step=100.ckpt", "w.safetensors", "latest", "log.txt"):
        (looks.path / name).write_bytes(b"12345")
    (looks.path / "half.pt.tmp").touch()
    assert sorted(looks.look()) == ["epoch=1-step=100.ckpt", "model.pt", "w.safetensors"]
    assert {each.size_bytes for each in looks.seen} == {5}
    assert {each.step for each in looks.seen} == {0, 100}


def test_links_and_special_files_are_none(
    looks: Looks, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "w.pt").touch()
    (looks.path / "step-1").symlink_to(elsewhere)
    (looks.path / "step-2.pt").symlink_to(elsewhere / "w.pt")
    os.mkfifo(looks.path / "step-3.pt")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(looks.path)
        try:
            listening.bind("step-4.pt")
        finally:
            os.chdir(here)
        assert looks.look() == []
    assert looks.finder.notes == []


def test_names_that_cannot_be_told_are_left_out_and_said_once(looks: Looks) -> None:
    for raw in (b"step-\xff1", b"step-\xfe2"):
        os.mkdir(os.fsencode(looks.path) + b"/" + raw)
    for name in ("step\n3", "a\x1b[31m4"):
        (looks.path / name).mkdir()
    looks.write("x" * 251)
    assert looks.look() == ["x" * 251]
    looks.look()
    assert len(looks.finder.notes) == 2
    assert all(note.isprintable() for note in looks.finder.notes)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step-100", 100),
        ("checkpoint-0007", 7),
        ("model.pt", 0),
        ("step-12.tar.gz", 12),
        ("ckpt-20261126154000123456", 0),
        ("step-9223372036854775808", 0),
        (f"step-{MAX_COUNT}", MAX_COUNT),
        (f"step-{MAX_COUNT + 1}", 0),
        ("step-" + "9" * 250, 0),
        ("step-" + "0" * 200 + "5", 5),
        ("step-\N{ARABIC-INDIC DIGIT ONE}", 0),
        ("step-1-old", 0),
        ("step--1", 1),
    ],
)
def test_the_step_of_a_name(name: str, step: int) -> None:
    assert step_of(name) == step


def test_a_directory_1500_deep_is_a_checkpoint_of_unknown_size(looks: Looks) -> None:
    here = os.getcwd()
    try:
        os.chdir(looks.path)
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    assert looks.look() == ["d"]
    assert looks.seen[0].size_bytes == 0
    looks.finder = CheckpointFinder(keep=1, clock=lambda: 0)
    looks.write("step-1")
    assert looks.look() == ["step-1"]


def test_of_very_many_entries_only_some_are_looked_at(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(20):
        (looks.path / f"step-{at}").mkdir()
        looks.look()
    monkeypatch.setattr(module, "MAX_ENTRIES", 10)
    shutil.rmtree(looks.path / "step-15")
    assert looks.look() == [f"step-{at}" for at in (9, 10, 11, 12, 13, 14, 16, 17, 18, 19)]
    assert looks.finder.notes == [
        "The checkpoint directory has more than 10 entries. Not all of them are looked at."
    ]


def test_a_look_that_took_long_is_not_repeated_at_once(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("app.coordinator.execution.checkpoints.time.monotonic", lambda: now[0])
    monkeypatch.setattr(module, "_size", lambda *_: now.__setitem__(0, now[0] + 0.5) or 1)
    looks.write("step-1")
    looks.look()
    looks.write("step-2")
    with Directory.open(looks.path) as root:
        assert looks.finder.look(root, looks.seen) == looks.seen
        now[0] += 11.0
        assert len(looks.finder.look(root, looks.seen)) == 2


names = st.one_of(
    st.binary(min_size=1, max_size=255).filter(lambda raw: b"/" not in raw and b"\0" not in raw),
    st.from_regex(rb"\A(step-|checkpoint-|tmp-checkpoint-)[0-9]{1,30}(\.pt|\.tmp)?\Z"),
).filter(lambda raw: raw not in (b".", b".."))
kinds = st.sampled_from(["directory", "file", "link", "pipe"])


@settings(settings.get_profile("often"))
@given(st.lists(st.tuples(names, kinds), max_size=8), st.integers(0, 3))
@example([(b"ckpt-20261126154000123456", "directory")], 0)
@example([(b"step-\xff1", "directory"), (b"step-9223372036854775808", "directory")], 1)
@example([(b"a\nb.pt", "file"), (b"\xe2\x80\xae.pt", "file")], 0)
def test_whatever_is_there_can_be_told(entries: list[tuple[bytes, str]], keep: int) -> None:
    path = Path(f"/dev/shm/checkpoints-{os.getpid()}")
    path.mkdir()
    try:
        looks = Looks(path, keep=keep)
        for raw, kind in entries:
            _make(os.fsencode(path) + b"/" + raw, kind)
            looks.look()
        ids = looks.look()
        assert len(set(ids)) == len(ids)
        assert all(each.isprintable() and not is_unfinished(each) for each in ids)
        assert not keep or len(ids) <= keep
        for checkpoint in looks.seen:
            assert 0 <= checkpoint.step <= MAX_COUNT
            assert 0 <= checkpoint.size_bytes <= MAX_COUNT
            assert (path / checkpoint.checkpoint_id).lstat()
        assert all(note.isprintable() for note in looks.finder.notes)
    finally:
        shutil.rmtree(os.fsencode(path))


def _make(path: bytes, kind: str) -> None:
    if os.path.lexists(path):
        return
    match kind:
        case "directory":
            os.mkdir(path)
        case "file":
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        case "link":
            os.symlink("/etc", path)
        case "pipe":
            os.mkfifo(path)
