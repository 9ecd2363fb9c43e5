"""The lock by which others see that a leader's process has ended."""

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from app.coordinator.ownership.leader_lock import LeaderLock, LeaderWatch

LEADER = """
import sys
from pathlib import Path
from app.coordinator.ownership.leader_lock import LeaderLock
lock = LeaderLock(Path(sys.argv[1]))
lock.hold(1)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_process_that_was_seen_to_hold_it_has_ended_once_nobody_does(tmp_path: Path) -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-c", LEADER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as leader,
        closing(LeaderWatch(tmp_path)) as one,
        closing(LeaderWatch(tmp_path)) as other,
    ):
        assert leader.stdout is not None
        assert leader.stdout.readline() == b"held\n"
        assert not one.has_ended(1)
        assert not other.has_ended(1)
        leader.send_signal(signal.SIGSTOP)
        assert not one.has_ended(1)
        leader.kill()
        leader.wait()
        assert one.has_ended(1)
        # Those that look are not in each other's way.
        assert other.has_ended(1)
        # Nobody knows anything of another term.
        assert not one.has_ended(2)
        assert not one.has_ended(1)


def test_who_has_never_seen_it_held_knows_nothing(tmp_path: Path) -> None:
    """The file system may keep locks to each machine."""
    with closing(LeaderWatch(tmp_path)) as watch:
        assert not watch.has_ended(0)
        assert not watch.has_ended(1)
        LeaderLock(tmp_path).hold(1)
        lock = LeaderLock(tmp_path)
        lock.hold(2)
        assert [path.name for path in tmp_path.iterdir()] == ["leader-2.lock"]
        lock.close()
        assert not watch.has_ended(2)


def test_a_directory_without_locks_leaves_it_to_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    lock = LeaderLock(tmp_path)
    lock.hold(1)
    with closing(LeaderWatch(tmp_path)) as watch:
        assert not watch.has_ended(1)
    lock.close()
