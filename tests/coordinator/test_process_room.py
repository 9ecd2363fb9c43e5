"""How many processes all runs together may have, from files as the kernel has them."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from app.coordinator.resources import process_room
from app.coordinator.resources.process_room import ProcessRoom, Tasks, find_process_room

TASKS = Tasks(others=300, own=200, of_runs=40)


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(process_room, "_count_tasks", lambda: TASKS)
    kernel = tmp_path / "proc/sys/kernel"
    kernel.mkdir(parents=True)
    (kernel / "pid_max").write_text("4194304\n")
    (kernel / "threads-max").write_text("2000000\n")
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/cgroup").write_text("8:cpu,pids:/pod/one\n4:memory:/m\n0::/pod/two\n")
    return tmp_path / "proc"


def _group(path: Path, limit: str, current: int = 0) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "pids.max").write_text(f"{limit}\n")
    (path / "pids.current").write_text(f"{current}\n")


@pytest.mark.parametrize("where", ["pod", "pod/two", "pids/pod", "pids/pod/one"])
def test_the_tightest_group_is_the_bound(tmp_path: Path, proc: Path, where: str) -> None:
    mounted = tmp_path / "cgroup"
    for each in ("pod", "pod/two", "pids/pod", "pids/pod/one"):
        _group(mounted / each, "max")
    _group(mounted / where, "5000", 140)
    room = find_process_room(runs=4, mounted=mounted, proc=proc)
    assert room == ProcessRoom(5000 - 100 - 512 - 4 * 8, f"{mounted / where}/pids.max", 5000)


def test_a_quarter_of_a_small_bound_is_kept(tmp_path: Path, proc: Path) -> None:
    _group(tmp_path / "cgroup/pod", "1000", 140)
    room = find_process_room(runs=4, mounted=tmp_path / "cgroup", proc=proc)
    assert room.left == 1000 - 100 - 250 - 4 * 8


def test_what_is_taken_of_pid_max_is_not_given_again(tmp_path: Path, proc: Path) -> None:
    (proc / "sys/kernel/pid_max").write_text("10000\n")
    room = find_process_room(runs=1, mounted=tmp_path, proc=proc)
    assert room.source == str(proc / "sys/kernel/pid_max")
    assert room.left == 10_000 - 300 - 512 - 8


def test_runs_that_go_on_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    # With the arguments of a runner, and a process of its run.
    program = "import subprocess, sys; subprocess.run(['cat'])"
    argv = [sys.executable, "-c", program, "app.coordinator.engines.local.runner"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as runner:
        children = Path(f"/proc/{runner.pid}/task/{runner.pid}/children")
        while not (child := children.read_text()):
            os.sched_yield()
        mine = psutil.Process()
        seen = [mine, psutil.Process(runner.pid), psutil.Process(int(child))]
        monkeypatch.setattr(psutil, "process_iter", lambda: seen)
        tasks = process_room._count_tasks()
        assert tasks.of_runs == 2
        assert tasks.others == tasks.own == mine.num_threads()


def test_the_users_own_limit_binds_all_but_root(
    tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4000, 4000))
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert find_process_room(runs=1, mounted=tmp_path, proc=proc).source != "RLIMIT_NPROC"
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert find_process_room(runs=1, mounted=tmp_path, proc=proc) == ProcessRoom(
        4000 - 200 - 512 - 8, "RLIMIT_NPROC", 4000
    )
