"""What processes use is read rightly, whatever they do meanwhile."""

import mmap
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
from app.coordinator.resources.memory_readings import MemoryReader, MemoryReading
from app.coordinator.resources.open_files import TooManyFiles, devices_of, unlinked_bytes
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

#: Is the parent of all that a script leaves behind, as the first process of a namespace is.
_FIRST = """
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
script = subprocess.Popen([sys.executable, "-c", sys.argv[1]]).pid
while os.wait()[0] != script:
    pass
"""


def _mapped_files_are_seen() -> bool:
    with mmap.mmap(-1, mmap.PAGESIZE) as mapped:
        mapped.write(b"x")
        return usage.unnamed_memory([os.getpid()]).size >= mmap.PAGESIZE


_MAPPED_FILES_ARE_SEEN = _mapped_files_are_seen()

#: A file in memory without a name, in a process beside one with many open files.
_BEHIND_MANY_FILES = """
    import os, resource, sys
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    kept = os.memfd_create("kept")
    os.write(kept, b"x" * (100 * 1024**2))
    asks, answers = os.pipe()
    for _ in range(25_000 // (most - 100) + 1):
        if os.fork() == 0:
            os.close(kept)
            for _ in range(min(25_000, most - 100)):
                os.dup(0)
            os.write(answers, b"x")
            sys.stdin.buffer.read()
            os._exit(0)
    for _ in range(25_000 // (most - 100) + 1):
        os.read(asks, 1)
    print("ready", flush=True)
    sys.stdin.buffer.read()
    os._exit(0)
"""


@contextmanager
def below(script: str) -> Iterator[int]:
    """The pid of a process of whose child this is the script, once that has said `ready`."""
    with subprocess.Popen(
        [sys.executable, "-c", _FIRST, textwrap.dedent(script)],
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
        told, tells = os.pipe()
        def fork():
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.close(1)
                    os.write(tells, b"x")
                sys.stdin.buffer.read()
                os._exit(0)
            time.sleep(600)
        threading.Thread(target=fork, daemon=True).start()
        os.read(told, 1)
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
    assert usage.resident(gone) == usage.Resident(0, [], 1)
    assert usage.proportional_share(gone) == usage.Share(0, 0, 1)
    assert usage.shared_memory_bytes(process.pid) == 0
    assert usage.unnamed_memory(gone) == usage.Unnamed(0, "", 1)


def _reading(pid: int) -> MemoryReading:
    reader = MemoryReader(pid, limit=MIB, own_shared_memory=False)
    return reader.take(usage.tasks_below(pid, most=1000), most=1000, thorough=False)


def _used(pid: int) -> int:
    return _reading(pid).used


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
        # In a process whose first thread has ended.
        (
            """
import ctypes, threading, time
kept = bytearray(os.urandom(1)) * (100 * MIB)
def last():
    while open(f"/proc/{os.getpid()}/statm").read().split()[0] != "0":
        time.sleep(0.01)
    print("ready", flush=True)
    sys.stdin.buffer.read()
    os._exit(0)
threading.Thread(target=last).start()
ctypes.CDLL(None).syscall(60, 0)
""",
            100,
        ),
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


@pytest.mark.skipif(not _MAPPED_FILES_ARE_SEEN, reason="map_files of proc(5) is not allowed here")
def test_shared_memory_in_no_page_table_counts() -> None:
    with below(
        """
        import mmap, os, sys
        kept = mmap.mmap(-1, 100 * 1024**2)
        kept.write(b"x" * len(kept))
        kept.madvise(mmap.MADV_DONTNEED)
        print("ready", flush=True)
        sys.stdin.buffer.read()
        os._exit(0)
        """
    ) as pid:
        assert _used(pid) >= 100 * MIB


@pytest.mark.skipif(not _MAPPED_FILES_ARE_SEEN, reason="map_files of proc(5) is not allowed here")
def test_memory_of_a_process_that_forks_on_and_on_ends_its_run() -> None:
    with below(
        """
        import mmap, os, select, sys
        kept = mmap.mmap(-1, 100 * 1024**2)
        kept.write(b"x" * len(kept))
        if os.fork():
            kept.close()
            print("ready", flush=True)
            sys.stdin.buffer.read()
            os._exit(0)
        while not select.select([sys.stdin], [], [], 0)[0]:
            if os.fork():
                os._exit(0)
        os._exit(0)
        """
    ) as pid:
        readings = ProcessReadings(Bounds(memory=64 * MIB), pid, own_shared_memory=False)
        reason = next(reason for _ in range(1000) if (reason := readings.take()))
        assert reason.endswith("of the 64.0 MiB asked")


def test_memory_behind_many_open_files_is_found() -> None:
    with below(_BEHIND_MANY_FILES) as pid:
        assert _used(pid) >= 100 * MIB


@pytest.mark.parametrize(
    ("bound", "most", "what"),
    [("MOST_FILES", 1000, "1,000 open files"), ("MOST_MAPPINGS", 10, "10 mappings")],
)
def test_a_run_with_more_than_can_be_looked_at_ends(
    monkeypatch: pytest.MonkeyPatch, bound: str, most: int, what: str
) -> None:
    monkeypatch.setattr(usage, bound, most)
    with below(_BEHIND_MANY_FILES) as pid:
        readings = ProcessReadings(Bounds(memory=MANY), pid, own_shared_memory=False)
        reasons = [readings.take() for _ in range(READINGS)]
    assert reasons == ["", "", _unmeasured(what)]


def _unmeasured(what: str) -> str:
    return f"had more than {what}, so that its memory could not be measured"


def _readings(
    monkeypatch: pytest.MonkeyPatch, *taken: MemoryReading
) -> tuple[ProcessReadings, list[str]]:
    readings = ProcessReadings(Bounds(memory=100 * MIB), 1, own_shared_memory=False)
    left = iter(taken)
    monkeypatch.setattr(usage, "tasks_below", lambda pid, most: usage.Tasks([], 0))
    monkeypatch.setattr(MemoryReader, "take", lambda *args, **named: next(left))
    return readings, [readings.take() for _ in taken]


OVER = MemoryReading(200 * MIB, complete=True)
BELOW = MemoryReading(50 * MIB, complete=True)
MISSED = MemoryReading(0, complete=False)
TOO_MANY = MemoryReading(0, complete=True, too_many="9 open files")


@pytest.mark.parametrize(
    "taken",
    [
        (OVER, OVER, OVER),
        (OVER, BELOW, OVER, BELOW, OVER),
        # One that missed a process is no sign that less is used.
        (OVER, *[MISSED] * 50, OVER, *[MISSED] * 50, OVER),
        (BELOW, BELOW, BELOW, BELOW, BELOW, OVER, OVER, BELOW, OVER),
    ],
)
def test_three_of_five_readings_over_the_limit_end_a_run(
    monkeypatch: pytest.MonkeyPatch, taken: tuple[MemoryReading, ...]
) -> None:
    readings, reasons = _readings(monkeypatch, *taken)
    assert reasons == [""] * (len(taken) - 1) + ["used 200.0 MiB of the 100.0 MiB asked"]
    assert readings.over == reasons[-1]


def test_what_is_over_the_limit_for_a_moment_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = (OVER, OVER, BELOW, BELOW, BELOW) * 5
    readings, reasons = _readings(monkeypatch, *moments, MISSED)
    assert not any(reasons)
    assert readings.over == ""


def test_processes_that_come_and_go_within_the_limit_are_fine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not any(_readings(monkeypatch, *[MISSED] * 100)[1])


def test_what_cannot_be_measured_counts_as_over(monkeypatch: pytest.MonkeyPatch) -> None:
    readings, reasons = _readings(monkeypatch, TOO_MANY, MISSED, TOO_MANY, BELOW, TOO_MANY)
    assert reasons == [""] * 4 + [_unmeasured("9 open files")]
    assert readings.over == ""


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
    many = DiskReadings(Bounds(files=10, directories=directories), os.getpid())
    assert many.take() == "made more than the 10 files allowed (job_files)"
    large = DiskReadings(Bounds(disk_bytes=20_000, directories=directories), os.getpid())
    assert large.take() == "wrote 0.0 MiB of the 0.0 MiB allowed (job_disk_bytes)"
    assert (
        DiskReadings(Bounds(disk_bytes=MANY, files=51, directories=directories), os.getpid()).take()
        == ""
    )


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
    assert failed.wait(60)
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


def test_files_without_a_name_count_once_where_they_are_on_a_disk(tmp_path: Path) -> None:
    devices = devices_of([str(tmp_path)])
    before = unlinked_bytes([os.getpid()], devices)
    with open(tmp_path / "kept", "wb+") as kept, open(tmp_path / "again", "wb") as named:
        kept.write(b"x" * MIB)
        kept.flush()
        named.write(b"x" * MIB)
        named.flush()
        assert unlinked_bytes([os.getpid()], devices) == before
        (tmp_path / "kept").unlink()
        again = os.dup(kept.fileno())
        memory = os.memfd_create("kept")
        os.write(memory, b"x" * MIB)
        try:
            found = unlinked_bytes([os.getpid()], devices) - before
            assert MIB <= found < 1.5 * MIB
            with pytest.raises(TooManyFiles):
                unlinked_bytes([os.getpid()], devices, most=2)
        finally:
            os.close(again)
            os.close(memory)
    assert unlinked_bytes([os.getpid()], devices) == before


def test_a_metrics_file_and_checkpoints_have_their_bounds(tmp_path: Path) -> None:
    for name in ("work", "checkpoints"):
        (tmp_path / name).mkdir()
    metrics = tmp_path / "metrics.jsonl"
    bounds = Bounds(
        disk_bytes=4 * MIB,
        directories=(str(tmp_path / "work"),),
        file=str(metrics),
        checkpoint_bytes=2 * MIB,
        checkpoints=str(tmp_path / "checkpoints"),
    )
    readings = DiskReadings(bounds, os.getpid())
    (tmp_path / "checkpoints" / "a").write_bytes(b"x" * MIB)
    assert readings.take() == ""
    (tmp_path / "checkpoints" / "b").write_bytes(b"x" * 2 * MIB)
    assert readings.take().endswith("of the 2.0 MiB allowed (job_checkpoint_bytes)")
    metrics.write_bytes(b"x" * 5 * MIB)
    assert readings.take().endswith("of the 4.0 MiB allowed (job_disk_bytes)")
    metrics.unlink()
    metrics.symlink_to(sys.executable)
    assert "job_disk_bytes" not in readings.take()
