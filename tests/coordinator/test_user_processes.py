"""A job's processes are ended together, however fast they fork and whatever is left to fork."""

import errno
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from app.coordinator.isolation import kernel
from app.coordinator.isolation.ending import user_processes
from app.coordinator.isolation.ending.marked_processes import end_marked
from app.coordinator.isolation.ending.user_processes import end_all_of, kill_all_of
from app.coordinator.isolation.uids import JobUids, NoUid
from app.coordinator.storage.job_directory import JobDir
from tests.coordinator.harness import process_number

#: Nobody else's: all that runs under them, or bears the mark, is ended.
UID = 61730 + 2 * process_number()
OTHER = UID + 1
MARK = f"SCAIMIND_METRICS_FILE=/of/the/test/{process_number()}"

#: Each process lives for two milliseconds, and the pipe's end is with the one that lives.
CHAIN = """
import os, sys, time
if sys.argv[1] != "-":
    os.setgroups([])
    os.setresuid(*[int(sys.argv[1])] * 3)
if os.fork() == 0:
    os.setsid()
    os.write(1, b"begun")
    while True:
        if os.fork():
            os._exit(0)
        time.sleep(0.002)
"""
SLEEPS = """
import os, sys, time
os.setgroups([])
os.setresuid(*[int(sys.argv[1])] * 3)
os.write(1, b"begun")
time.sleep(600)
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has processes of other users")


@contextmanager
def started(script: str, uid: int | str, **options: Any) -> Iterator[int]:
    """Run a script; the end to read of its output, which is at its end when nothing of it lives."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script, str(uid)],
        stdout=subprocess.PIPE,
        cwd="/",
        **options,
    ) as process:
        assert process.stdout is not None
        try:
            assert os.read(process.stdout.fileno(), 5) == b"begun"
            yield process.stdout.fileno()
        finally:
            process.kill()
            if uid != "-":
                end_all_of(int(uid), patience=60)
            else:
                end_marked(MARK, patience=60)


def lives(output: int) -> bool:
    """Whether anything of it lives, once what was killed had time to go."""
    return not select.select([output], [], [], 60)[0]


def no_process(*_: object) -> NoReturn:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


@as_root
def test_a_user_s_processes_end_though_no_process_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        started(CHAIN, UID) as chain,
        started(SLEEPS, OTHER) as foreign,
        monkeypatch.context() as m,
    ):
        m.setattr(os, "fork", no_process)
        m.setattr(os, "posix_spawn", no_process)
        kill_all_of(UID)
        assert not lives(chain)
        assert not select.select([foreign], [], [], 0)[0]


@as_root
def test_who_kills_for_a_user_is_as_before_afterwards() -> None:
    before = (os.getresuid(), kernel.capabilities(), kernel.is_dumpable())
    kill_all_of(UID)
    assert (os.getresuid(), kernel.capabilities(), kernel.is_dumpable()) == before


@as_root
def test_only_the_thread_that_kills_acts_for_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    kill = os.kill

    def look(pid: int, number: int) -> None:
        mine = threading.get_native_id()
        for task in os.listdir("/proc/self/task"):
            lines = Path(f"/proc/self/task/{task}/status").read_text().splitlines()
            seen[int(task) == mine] = next(line.split()[1:4] for line in lines if "Uid" in line)
        kill(pid, number)

    monkeypatch.setattr(os, "kill", look)
    killer = threading.Thread(target=kill_all_of, args=(UID,))
    killer.start()
    killer.join()
    assert seen[False] == ["0", "0", "0"]
    real, effective, saved = seen[True]
    assert (effective, saved) == (str(UID), "0")
    # The job may signal whoever's real or saved id is its own.
    assert real not in (str(UID), "0")


@as_root
def test_killers_of_several_users_do_not_meet() -> None:
    killers = [
        subprocess.Popen(
            [
                *(sys.executable, "-c"),
                "import sys\n"
                "from app.coordinator.isolation.ending.user_processes import kill_all_of\n"
                "for _ in range(2000): kill_all_of(int(sys.argv[1]))",
                str(uid),
            ]
        )
        for uid in (UID, OTHER)
    ]
    assert [killer.wait() for killer in killers] == [0, 0]


@as_root
def test_where_there_are_few_ids_a_program_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    def unmapped(*_: int) -> NoReturn:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(user_processes, "_set_thread_ids", unmapped)
    with started(CHAIN, UID) as chain, started(SLEEPS, OTHER) as foreign:
        assert end_all_of(UID, patience=30)
        assert not lives(chain)
        assert not select.select([foreign], [], [], 0)[0]


#: Stops whatever has its user id, but for itself.
STOPS = """
import os, signal, sys
os.setgroups([])
os.setresuid(*[int(sys.argv[1])] * 3)
os.write(1, b"begun")
while True:
    try:
        os.kill(-1, signal.SIGSTOP)
    except ProcessLookupError:
        pass
"""


@as_root
def test_who_stops_what_would_kill_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with started(STOPS, UID) as hostile:
        assert end_all_of(UID, patience=60)
        assert not lives(hostile)


@as_root
def test_what_forks_too_fast_to_be_seen_ends() -> None:
    with started(CHAIN, UID) as chain:
        assert end_all_of(UID, patience=60)
        assert not lives(chain)


@as_root
def test_a_user_id_is_not_given_with_what_forks_too_fast_to_be_seen(tmp_path: Path) -> None:
    run = JobDir(tmp_path / "jobs/job").run(1)
    run.path.mkdir(parents=True)
    with started(CHAIN, UID) as chain:
        uids = JobUids(tmp_path / "uids", range(UID, UID + 1))
        given = None
        while given is None:
            # What is seen may be another coordinator's, and keeps its id.
            with suppress(NoUid):
                given = uids.take(run.path)
        assert given == UID
        assert not lives(chain)


def test_what_bears_a_mark_ends_though_it_forks_on() -> None:
    name, _, value = MARK.partition("=")
    with started(CHAIN, "-", env={name: value}) as chain:
        assert end_marked(MARK, patience=30)
        assert not lives(chain)


def test_what_is_below_a_mark_ends_with_it() -> None:
    name, _, value = MARK.partition("=")
    script = """
import os, sys
if os.fork() == 0:
    if os.fork() == 0:
        os.execve("/bin/sh", ["sh", "-c", "printf begun; exec sleep 600"], {})
    os.wait()
os.wait()
"""
    with started(script, "-", env={name: value}) as output:
        assert end_marked(MARK, patience=30)
        assert not lives(output)


def test_what_does_not_end_in_time_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, value = MARK.partition("=")
    stands_still = CHAIN.replace("time.sleep(0.002)", "time.sleep(600)")
    with started(stands_still, "-", env={name: value}), monkeypatch.context() as m:
        m.setattr(signal, "pidfd_send_signal", lambda *_: None)
        assert not end_marked(MARK, patience=0.1)
