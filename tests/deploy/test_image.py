"""The image: its Dockerfile is linted, and followed into a clean root that then has to serve."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import psutil
import pytest

from scripts.image_check import Ignored

PROJECT = Path(__file__).parents[2]


def test_the_dockerfile_is_well_written() -> None:
    hadolint = Path(sysconfig.get_path("scripts"), "hadolint")
    done = subprocess.run(
        [hadolint, "Dockerfile"], cwd=PROJECT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout


def test_nothing_is_installed_in_the_last_stage() -> None:
    last_stage = (PROJECT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert "\nCOPY --from=build " in last_stage
    assert "\nRUN " not in last_stage


@pytest.mark.parametrize("page", ["kubernetes.md", "cluster.md", "operations.md"])
def test_what_the_pages_build_is_sent_to_the_engine(page: str) -> None:
    locks = re.findall(r"--build-arg LOCK=(\w+)", (PROJECT / "docs" / page).read_text())
    assert locks
    ignored = Ignored(PROJECT)
    for lock in (*locks, "gateway"):
        path = PROJECT / "requirements" / f"{lock}.txt"
        assert path.is_file()
        assert not ignored.leaves_out(path)


needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="namespaces and chroot need Linux and root",
)


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal; see proc(5)."""
    (caught,) = re.findall(r"SigCgt:\t(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(caught, 16) >> (number - 1) & 1)


@needs_namespaces
def test_as_process_1_it_can_be_stopped_while_it_starts(tmp_path: Path) -> None:
    # Something that it imports takes its time.
    (tmp_path / "uvloop.py").write_text("import time; time.sleep(600)")
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "app", "serve"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            children = psutil.Process(process.pid).children()
            if children and handles(children[0].pid, signal.SIGTERM):
                break
            time.sleep(0.02)
        children[0].send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == 128 + signal.SIGTERM
        finally:
            process.kill()


@needs_namespaces
def test_the_image_is_built_serves_unprivileged_and_read_only_and_stops() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/image_check.py"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
