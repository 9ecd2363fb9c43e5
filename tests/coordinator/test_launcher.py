"""Runners, started and signalled without a coordinator."""

import asyncio
import errno
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.coordinator.engines.local import launcher
from app.coordinator.engines.local.runner import supervision
from app.coordinator.engines.local.runner_protocol import (
    RUN_VARIABLE,
    RUNNER_SIGNALS,
    reserve_exit,
)
from app.coordinator.logs import log as logs
from app.coordinator.storage.job_directory import JobDir, RunDir


def run_of(path: Path, script: str) -> tuple[RunDir, dict[str, Any]]:
    """A run whose job has the script `train.py`."""
    job = JobDir(path / "jobs/job-x")
    job.work.mkdir(parents=True)
    logs.create(job.log)
    (job.work / "train.py").write_text(script)
    spec = {
        "job_id": "job-x",
        "node_id": "local",
        "grace_seconds": 5.0,
        "notify": str(path / "nobody.sock"),
        "gpus": [],
        "announce": "It begins.",
        "metrics_before": 0,
        "ranks": [
            {
                "node_id": "local",
                "argv": [sys.executable, "train.py"],
                "cwd": str(job.work),
                "env": {},
            }
        ],
        "confinement": {"readable": ["/"], "writable": [str(job.work)]},
    }
    return job.run(1), spec


async def test_a_runner_is_asked_to_leave_while_it_starts(tmp_path: Path) -> None:
    directory, spec = run_of(tmp_path, "import time; time.sleep(600)")
    handle = launcher.start(directory, spec)
    # Python takes a tenth of a second to start: nobody listens yet.
    handle.signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        await handle.gone()
    handle.close()
    end = launcher.read_end(directory)
    assert (end.stopped, end.exit_code, end.failure) == (True, -signal.SIGTERM, "")


async def test_of_two_runners_of_a_run_one_carries_it_out(tmp_path: Path) -> None:
    directory, spec = run_of(tmp_path, "open('trace', 'a').write('ran\\n')")
    handles = [launcher.start(directory, spec) for _ in range(3)]
    async with asyncio.timeout(60):
        for handle in handles:
            await handle.gone()
            handle.close()
    assert (directory.job.work / "trace").read_text() == "ran\n"
    end = launcher.read_end(directory)
    assert (end.exit_code, end.failure) == (0, "")


def test_a_runner_that_cannot_end_what_is_left_does_not_say_that_its_run_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: int | None) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    directory, spec = run_of(tmp_path, "")
    directory.path.mkdir(parents=True)
    with ExitStack() as resources:
        monkeypatch.setattr(supervision, "end_descendants", refused)
        monkeypatch.setattr(supervision, "LEFT_PATIENCE", 0.0)
        monkeypatch.setenv(RUN_VARIABLE, str(directory.path))
        for number in (*RUNNER_SIGNALS, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
            resources.callback(signal.signal, number, signal.getsignal(number))
        resources.callback(signal.set_wakeup_fd, -1)
        reserve_exit(directory)
        run = supervision.Runner(directory, spec, resources)
        with pytest.raises(supervision.NotEnded):
            run.run()
    assert not directory.exit.exists()
    said = Path(logs.entries_path(directory.job.log)).read_bytes()
    assert b"It begins" in said
    assert b"could not be" not in said


def test_room_for_the_end_that_a_full_disk_refused_is_taken_later(
    tmp_path: Path,
) -> None:
    directory = JobDir(tmp_path).run(1)
    directory.path.mkdir(parents=True)
    # What a write leaves that the disk has no room for.
    reserve = directory.path / "exit.reserve"
    reserve.touch()
    reserve_exit(directory)
    size = reserve.stat().st_size
    assert size > 0
    reserve_exit(directory)
    assert reserve.stat().st_size == size
