"""Runs whose runner is gone, those of coordinators without levels of isolation among them."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.coordinator.engines.local import launcher
from app.coordinator.isolation.ownership import give_to_job, open_to_job
from app.coordinator.isolation.uids import JobUids, NoUid
from app.coordinator.storage.job_directory import JobDir, RunDir
from app.coordinator.storage.process_identity import process_identity
from app.files.json_files import write_json
from tests.coordinator.test_launcher import run_of

SLEEPS = "import time; time.sleep(600)"


@contextmanager
def process_of(directory: RunDir | None, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that bears the mark of the run, if any."""
    mark = {"SCAIMIND_METRICS_FILE": str(directory.metrics_file)} if directory is not None else {}
    with subprocess.Popen([sys.executable, "-c", SLEEPS], env=mark, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def gone_mark() -> dict[str, Any]:
    """What tells of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        mark = process_identity(process.pid)
        process.communicate(b"\n")
    return mark


def test_a_run_of_an_earlier_coordinator_is_buried_with_its_groups(tmp_path: Path) -> None:
    directory, spec = run_of(tmp_path, "")
    directory.path.mkdir(parents=True)
    write_json(directory.spec, spec)
    other = JobDir(tmp_path / "jobs/other").run(1)
    with (
        process_of(directory, start_new_session=True) as rank,
        process_of(directory, start_new_session=True) as escaped,
        process_of(other, start_new_session=True) as foreign,
    ):
        write_json(directory.runner, {**gone_mark(), "process_groups": [rank.pid]})
        end = launcher.read_end(directory)
        assert (end.exit_code, end.transient) == (None, True)
        assert (rank.wait(), escaped.wait()) == (-signal.SIGKILL, -signal.SIGKILL)
        assert foreign.poll() is None


async def test_a_run_of_an_earlier_coordinator_is_found_and_stopped(tmp_path: Path) -> None:
    directory, spec = run_of(tmp_path, SLEEPS)
    assert "isolation" not in spec
    handle = launcher.start(directory, spec)
    while not directory.runner.exists():  # noqa: ASYNC110  # a file
        await asyncio.sleep(0.01)
    found = await launcher.find(directory)
    assert found is not None
    found.signal(signal.SIGUSR1)
    await found.gone()
    await handle.gone()
    for each in (handle, found):
        each.close()
    end = launcher.read_end(directory)
    assert (end.exit_code, end.stopped) == (-9, True)


def test_a_number_that_another_process_has_now_is_nobody_to_end(tmp_path: Path) -> None:
    directory, spec = run_of(tmp_path, "")
    directory.path.mkdir(parents=True)
    isolation = {"level": "namespaces", "uid": None}
    write_json(directory.spec, {**spec, "isolation": isolation})
    with process_of(None) as foreign:
        mark = {**process_identity(foreign.pid), "started": "another"}
        write_json(directory.runner, {**gone_mark(), "sandbox": [mark]})
        launcher.read_end(directory)
        assert foreign.poll() is None
        assert psutil.pid_exists(foreign.pid)


def test_a_user_id_belongs_to_one_run_at_a_time(tmp_path: Path) -> None:
    ids = range(61708, 61710)
    uids = JobUids(tmp_path / "uids", ids)
    first, second, third = (JobDir(tmp_path / f"jobs/{n}").run(1) for n in range(3))
    for run in (first, second, third):
        run.path.mkdir(parents=True)
    given = {uids.take(first.path), uids.take(second.path)}
    assert given == set(ids)
    # A coordinator that starts anew finds them in the directory.
    uids.close()
    with closing(JobUids(tmp_path / "uids", ids)) as anew:
        assert anew.take(first.path) in given
    with pytest.raises(NoUid, match="job_uids"):
        uids.take(third.path)
    write_json(second.exit, {})
    freed = uids.take(third.path)
    write_json(first.exit, {})
    again = first.job.run(2)
    again.path.mkdir()
    assert {uids.take(again.path)} == given - {freed}, "the job's own, whose its files are"


def test_links_are_not_followed_when_files_change_hands(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("mine")
    canary.chmod(0o600)
    own = tmp_path / "jobs/work"
    deep = own / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    (deep / "file").chmod(0o600)
    (deep / "link").symlink_to(canary)
    (own / "folder").symlink_to(tmp_path)
    before = canary.stat()
    uid = (os.getuid() and os.getuid()) or 60706
    give_to_job([str(own)], uid)
    open_to_job([str(own), str(canary)], reached=(), roots=[str(tmp_path / "jobs")])
    after = canary.stat()
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)
    assert (deep / "link").lstat().st_uid == uid
    assert (deep / "file").stat().st_uid == uid
    assert (deep / "file").stat().st_mode & 0o777 == 0o604
