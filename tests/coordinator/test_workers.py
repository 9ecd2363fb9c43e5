"""Workers are confined and bounded, and nothing of them is left."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.coordinator.isolation.system_paths import landlock_version, system_paths
from app.coordinator.workers.rules import Rules
from app.coordinator.workers.running import Outcome, run_worker
from app.files.copying import Abandoned
from app.files.directory import Directory

PATIENCE = 60.0
MIB = 1024 * 1024

needs_landlock = pytest.mark.skipif(landlock_version() == 0, reason="no Landlock")


def run(
    tmp_path: Path,
    *arguments: str,
    descriptors: tuple[int, ...] = (),
    abandoned: threading.Event | None = None,
    writable: tuple[str, ...] = (),
) -> Outcome:
    rules = Rules(
        readable=system_paths([tmp_path]),
        writable=writable,
        memory_bytes=256 * MIB,
        file_bytes=4096,
    )
    return run_worker(
        "tests.coordinator.probing_worker",
        rules,
        *arguments,
        descriptors=descriptors,
        most_output=MIB,
        abandoned=abandoned or threading.Event(),
    )


def until_all_ended(reading: int) -> bytes:
    """What comes from a pipe until all that held its other end have ended."""
    told = b""
    with os.fdopen(reading, "rb", buffering=0) as file:
        while select.select([file], [], [], PATIENCE)[0]:
            data = file.read(4096)
            if not data:
                return told
            told += data
    raise AssertionError("somebody still holds the pipe")


@needs_landlock
def test_a_worker_touches_nothing_but_what_its_rules_name(tmp_path: Path) -> None:
    canary = tmp_path / "canary" / "secret"
    canary.parent.mkdir()
    canary.write_text("secret")
    outcome = run(tmp_path, "touch", str(canary))
    assert outcome.output.decode().split("\n")[:5] == ["Permission denied"] * 5, outcome
    assert canary.read_text() == "secret"
    assert os.listdir(canary.parent) == ["secret"]


def test_a_worker_has_no_capability_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCAIMIND_COORDINATOR_API_SECRET", "of-the-parent")
    told = run(tmp_path, "status").output.decode().split()
    assert told == [
        *("CapInh:", "0" * 16, "CapPrm:", "0" * 16, "CapEff:", "0" * 16),
        *("CapAmb:", "0" * 16, "NoNewPrivs:", "1", "[]"),
    ]


@pytest.mark.skipif(landlock_version() < 4, reason="this Landlock does not know TCP")
def test_a_worker_has_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        outcome = run(tmp_path, "connect", str(server.getsockname()[1]))
        assert outcome.status == 0, outcome
        assert not select.select([server], [], [], 0)[0]


def test_a_worker_that_says_too_much_is_ended(tmp_path: Path) -> None:
    outcome = run(tmp_path, "talk")
    assert (outcome.too_long, outcome.output) == (True, b"")


def test_what_a_worker_started_ends_with_it(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        outcome = run(tmp_path, "breed", str(writing), descriptors=(writing,))
    finally:
        os.close(writing)
    assert outcome.status == 7
    # Some of them wrote before they ended; the end of the file is the end of them all.
    assert set(until_all_ended(reading)) <= {ord("+")}


def test_a_worker_ends_when_nobody_wants_it_any_more(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    abandoned = threading.Event()

    def give_up() -> None:
        os.read(reading, 1)
        abandoned.set()

    giving_up = threading.Thread(target=give_up)
    giving_up.start()
    try:
        with pytest.raises(Abandoned):
            run(tmp_path, "wait", str(writing), descriptors=(writing,), abandoned=abandoned)
    finally:
        os.close(writing)
        giving_up.join()
    assert until_all_ended(reading) == b""


def test_a_worker_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    program = f"""
import threading
from pathlib import Path
from tests.coordinator.test_workers import run
run(Path({str(tmp_path)!r}), "wait", "{writing}", descriptors=({writing},))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(
        [sys.executable, "-c", program], pass_fds=[writing], env=environment
    ) as parent:
        os.close(writing)
        assert os.read(reading, 1) == b"+"
        parent.kill()
        parent.wait()
        assert until_all_ended(reading) == b""


def test_memory_and_files_are_bounded(tmp_path: Path) -> None:
    assert run(tmp_path, "take").output == b"no memory\n"
    (tmp_path / "made").mkdir()
    with Directory.open(tmp_path / "made") as made:
        outcome = run(
            tmp_path,
            "write",
            str(made.descriptor),
            descriptors=(made.descriptor,),
            writable=(f"/proc/self/fd/{made.descriptor}",),
        )
    assert outcome.output == b"4096\nFile too large\n", outcome
    assert (tmp_path / "made" / "large").stat().st_size == 4096


def test_the_signal_that_ended_a_worker_is_told(tmp_path: Path) -> None:
    outcome = run(tmp_path, "crash")
    assert (outcome.status, outcome.output) == (-signal.SIGSEGV, b"before")


def test_an_exception_is_told_by_its_last_words(tmp_path: Path) -> None:
    outcome = run(tmp_path, "unknown")
    assert outcome.status == 1
    assert outcome.last_words.endswith("KeyError: 'unknown'\n")
