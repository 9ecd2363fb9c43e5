"""What processes use is read rightly, whatever they do meanwhile."""

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from app.coordinator.resources import resource_watch, usage
from app.coordinator.resources.disk_use import disk_use
from app.coordinator.resources.resource_watch import (
    READINGS,
    Bounds,
    DiskReadings,
    ProcessReadings,
    ResourceWatch,
    in_words,
)

MIB = 1024**2
MANY = 1 << 40


@contextmanager
def below(script: str) -> Iterator[int]:
    """The pid of a process of whose child this is the script, once that has said `ready`."""
    first = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"
    with subprocess.Popen(
        [sys.executable, "-c", first, textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.stdin.close()
            process.wait()


def test_processes_and_threads_are_counted_at_every_depth() -> None:
    with below(
        """
        import os, sys, threading, time
        for _ in range(3):
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        # A child of a thread that is not the first, in a session of its own.
        started = threading.Event()
        def fork():
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.close(1)
                sys.stdin.buffer.read()
                os._exit(0)
            started.set()
            time.sleep(600)
        threading.Thread(target=fork, daemon=True).start()
        started.wait()
        time.sleep(0.2)
        print("ready", flush=True)
        sys.stdin.buffer.read()
        os._exit(0)
        """
    ) as pid:
        tasks = usage.tasks_below(pid, most=1000)
        assert len(tasks.pids) == 3
        assert tasks.count == 7
        for most in (1, 4, 6):
            assert usage.tasks_below(pid, most=most).count == most + 1
        assert usage.tasks_below(pid, most=7).count == 7


def test_a_process_that_is_gone_has_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    gone = [process.pid]
    assert usage.tasks_below(process.pid, most=10) == usage.Tasks([], 0)
    assert usage.resident_bytes(gone) == 0
    assert usage.proportional_share(gone) == usage.Share(0, 0)
    assert usage.shared_memory_bytes(process.pid) == 0
    assert usage.unnamed_memory_bytes(gone) == 0


def _used(pid: int) -> int:
    readings = ProcessReadings(Bounds(memory=MIB), pid, own_shared_memory=False)
    readings.take()
    return readings._memory(usage.tasks_below(pid, most=1000).pids)


@pytest.mark.parametrize(
    ("script", "mebibytes"),
    [
        # Of its own.
        ("kept = bytearray(os.urandom(1)) * (100 * MIB)", 100),
        # Shared with four children: once, not five times.
        (
            """
kept = bytearray(b"x") * (100 * MIB)
for _ in range(4):
    if os.fork() == 0:
        sys.stdin.buffer.read()
        os._exit(0)
""",
            100,
        ),
        # Shared memory.
        ("kept = mmap.mmap(-1, 100 * MIB); kept.write(b'x' * 100 * MIB)", 100),
        # In a file without a name that is mapped nowhere.
        ("kept = os.memfd_create('kept'); os.write(kept, b'x' * 100 * MIB)", 100),
        # Pages of a file on a disk can be dropped at any time.
        (
            """
kept = open(sys.executable, "rb")
mapped = mmap.mmap(kept.fileno(), 0, prot=mmap.PROT_READ)
sum(mapped[::4096])
""",
            0,
        ),
    ],
)
def test_what_is_used_counts_once(script: str, mebibytes: int) -> None:
    with below(
        f"""import mmap, os, sys
MIB = 1024**2
{script}
print("ready", flush=True)
sys.stdin.buffer.read()
os._exit(0)
"""
    ) as pid:
        # A bare interpreter takes some 5 to 12 MiB.
        assert mebibytes <= _used(pid) / MIB <= mebibytes + 25


def test_the_reason_comes_with_the_third_reading_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = ProcessReadings(Bounds(memory=100 * MIB), 1, own_shared_memory=False)
    used = iter([200, 200, 50, 200, 200, 200])
    monkeypatch.setattr(usage, "tasks_below", lambda pid, most: usage.Tasks([], 0))
    monkeypatch.setattr(readings, "_memory", lambda pids: next(used) * MIB)
    assert [readings.take() for _ in range(6)] == [""] * 5 + [
        "used 200.0 MiB of the 100.0 MiB asked"
    ]


def test_the_number_of_tasks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = ProcessReadings(Bounds(tasks=10), 1, own_shared_memory=False)
    monkeypatch.setattr(usage, "tasks_below", lambda pid, most: usage.Tasks([], most + 1))
    assert [readings.take() for _ in range(READINGS)] == [""] * (READINGS - 1) + [
        "ran more than the 10 processes and threads allowed (job_processes)"
    ]


def test_amounts_are_told_in_the_unit_of_their_limit() -> None:
    assert in_words(round(9.1 * 1024**3), 8 * 1024**3) == "9.1 GiB of the 8.0 GiB"
    assert in_words(300 * MIB, 64 * MIB) == "300.0 MiB of the 64.0 MiB"


def test_what_is_written_is_counted_at_every_depth_and_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"x" * MIB)
    os.link(tmp_path / "a" / "file", tmp_path / "again")
    (tmp_path / "link").symlink_to("/usr")
    with open(tmp_path / "hole", "wb") as file:
        file.truncate(MANY)
    use = disk_use([str(tmp_path)], most_bytes=MANY, most_files=MANY)
    assert use.files == 5
    assert MIB <= use.size_bytes < 1.5 * MIB
    assert disk_use([str(tmp_path / "none")], most_bytes=MANY, most_files=MANY).files == 0


def test_directories_deeper_than_a_path_may_be_are_no_hindrance(tmp_path: Path) -> None:
    deepest = 1500
    root = os.open(tmp_path, os.O_RDONLY)
    here = os.dup(root)
    for _ in range(deepest):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    file = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(file, b"x" * MIB)
    os.close(file)
    try:
        use = disk_use([str(tmp_path)], most_bytes=MANY, most_files=MANY)
        assert use.files == deepest + 1
        assert use.size_bytes >= MIB
    finally:
        os.unlink("file", dir_fd=here)
        for _ in range(deepest):
            above = os.open("..", os.O_RDONLY, dir_fd=here)
            os.rmdir("d", dir_fd=above)
            os.close(here)
            here = above
        os.close(here)
        os.close(root)


def test_counting_ends_with_the_bound(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}").write_bytes(b"x" * 8192)
    assert disk_use([str(tmp_path)], most_bytes=MANY, most_files=10).files == 11
    assert disk_use([str(tmp_path)], most_bytes=20_000, most_files=MANY).size_bytes < 60_000
    directories = (str(tmp_path),)
    many = DiskReadings(Bounds(files=10, directories=directories))
    assert many.take() == "made more than the 10 files allowed (job_files)"
    large = DiskReadings(Bounds(disk_bytes=20_000, directories=directories))
    assert large.take() == "wrote 0.0 MiB of the 0.0 MiB allowed (job_disk_bytes)"
    assert DiskReadings(Bounds(disk_bytes=MANY, files=51, directories=directories)).take() == ""


def test_a_tree_that_is_moved_while_it_is_counted_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    over = threading.Event()

    def move() -> None:
        while not over.is_set():
            for source, target in (("a/b", "b"), ("b", "a/b")):
                with suppress(OSError):
                    os.rename(tmp_path / source, tmp_path / target)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(500):
            assert disk_use([str(tmp_path)], most_bytes=MANY, most_files=MANY).files <= 8
    finally:
        over.set()
        mover.join()


def test_a_watch_that_fails_says_so_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource_watch, "INTERVAL", 0.01)
    failed = threading.Event()

    def fails(self: ProcessReadings) -> str:
        failed.set()
        raise RuntimeError("odd")

    monkeypatch.setattr(ProcessReadings, "take", fails)
    watch = ResourceWatch(Bounds(memory=1))
    watch.start(os.getpid(), own_shared_memory=False)
    assert failed.wait(30)
    watch.close()
    assert watch.reason() == ""
    assert "RuntimeError('odd')" in watch.take_problem()
    assert watch.take_problem() == ""


def test_sessions_have_the_priority_too_where_the_kernel_groups_by_them() -> None:
    if not Path("/proc/self/autogroup").exists():
        pytest.skip("this kernel does not group processes by session")
    with below(
        """
        import os, sys
        os.setsid()
        print("ready", flush=True)
        sys.stdin.buffer.read()
        """
    ) as pid:
        ProcessReadings(Bounds(nice=7), pid, own_shared_memory=False).take()
        (session,) = usage.tasks_below(pid, most=10).pids
        assert Path(f"/proc/{session}/autogroup").read_text().endswith("nice 7\n")
        # That of the process above it is not the run's.
        assert not Path(f"/proc/{pid}/autogroup").read_text().endswith("nice 7\n")
        ProcessReadings(Bounds(nice=9), pid, own_shared_memory=False).take()
        assert Path(f"/proc/{session}/autogroup").read_text().endswith("nice 7\n")
