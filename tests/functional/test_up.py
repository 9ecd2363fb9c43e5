"""Start, stop, crash and start again: nothing is lost, and nothing is left behind."""

import json
import os
import pty
import re
import signal
import stat
import subprocess
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.functional.stack import PATIENCE, PROJECT, Stack, gone, start
from tests.processes import command_line, descendants, lives, name_of


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(tmp_path: Path, number: signal.Signals) -> None:
    with Stack(tmp_path / "var") as stack:
        processes = stack.processes()
        assert {"postgres", "python"} <= {name_of(each).rstrip("0123456789.") for each in processes}

        assert stack.stop(number) == 0

        assert [each for each in processes if lives(each)] == []
        assert stack.lines[-2:] == ["Stopping", "Stopped"]


def test_it_stops_though_its_terminal_is_gone(tmp_path: Path) -> None:
    process = start(tmp_path / "var")
    assert process.stdout is not None
    with process.stdout as said:
        while not said.readline().startswith("Ready: "):
            assert process.poll() is None
    children = descendants(process.pid)
    process.send_signal(signal.SIGHUP)
    assert process.wait(PATIENCE) == 0
    assert [each for each in children if lives(each)] == []


def test_the_second_start_knows_what_the_first_one_did(tmp_path: Path) -> None:
    data_dir = tmp_path / "var"
    script = data_dir / "drive" / "local" / "train.py"
    with Stack(data_dir) as first:
        key = first.key
        assert not any(key in line for line in first.lines)
        (told,) = (line for line in first.lines if line.startswith("API key of tenant local"))
        assert told.endswith(f" in {data_dir / 'api-key'}")
        assert sum(first.url in line for line in first.lines) == 1
        job_id = first.submit(steps="50")
        first.await_status(job_id, "COMPLETED")
        log = first.log(job_id)
        script.write_text(script.read_text() + "# mine\n")

    with Stack(data_dir) as second:
        assert second.key == key
        assert not any(key in line for line in second.lines)
        assert second.get(f"/jobs/{job_id}")["status"] == "COMPLETED"
        assert second.log(job_id) == log
    assert script.read_text().endswith("# mine\n")


def test_a_first_start_shows_the_key_on_a_terminal(tmp_path: Path) -> None:
    data_dir = tmp_path / "var"
    ours, theirs = pty.openpty()
    with open(ours, encoding="utf-8", errors="replace", newline="\n") as said:
        process = start(data_dir, stdout=theirs)
        os.close(theirs)
        lines = [said.readline()]
        while "Ready: " not in lines[-1]:
            assert process.poll() is None, lines
            lines.append(said.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    key = (data_dir / "api-key").read_text().strip()
    assert sum(key in line for line in lines) == 1


def test_the_banners_command_prints_a_token(stack: Stack) -> None:
    (line,) = (each for each in stack.lines if each.startswith("Tokens: "))
    command = line.partition("(to print one: ")[2].removesuffix(")")
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SCAIMIND_")}
    done = subprocess.run(
        ("sh", "-c", command),
        cwd=PROJECT,
        env=ours,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(".") == 2


def test_the_bare_address_and_the_version_are_for_browsers_and_tools(stack: Stack) -> None:
    with urllib.request.urlopen(f"{stack.url}/", timeout=PATIENCE) as page:
        assert page.url == f"{stack.url}/console"
    with urllib.request.urlopen(f"{stack.url}/version", timeout=PATIENCE) as answer:
        version = json.load(answer)["data"]
    assert version["name"] == "scaimind-gateway"
    assert version["commit"] is None or re.fullmatch(r"[0-9a-f]{40}", version["commit"])


def test_secrets_are_for_their_owner_alone(stack: Stack) -> None:
    for name in ("api-key", "coordinator-secret"):
        assert stat.S_IMODE((stack.data_dir / name).stat().st_mode) == 0o600
    for log in (stack.data_dir / "logs").iterdir():
        assert stack.key not in log.read_text()


def test_a_running_job_goes_on_at_the_next_start(tmp_path: Path) -> None:
    data_dir = tmp_path / "var"
    with Stack(data_dir) as first:
        job_id = first.submit(steps="1500", log_interval="10")
        first.await_status(job_id, "TRAINING")
        _await_message(first, job_id, "Step 100 of")
        processes = first.processes()
        assert any(str(data_dir) in each.cwd() for each in processes if _is_training(each))

        first.stop(signal.SIGTERM)

        assert [each for each in processes if lives(each)] == []

    with Stack(data_dir) as second:
        job = second.await_status(job_id, "COMPLETED", "FAILED")
        assert job["status"] == "COMPLETED", second.log(job_id)
        messages = second.log(job_id)
    assert any(message.startswith("Going on from step-") for message in messages)
    steps = [message for message in messages if message.startswith("Step 1 of")]
    assert len(steps) == 1, "it began anew"


def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    data_dir = tmp_path / "var"
    with Stack(data_dir) as first:
        job_id = first.submit(steps="1500", log_interval="10")
        _await_message(first, job_id, "Step 100 of")
        processes = first.processes()
        assert any(_is_training(each) for each in processes)
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
        # The next start waits for what is still stopping.
        with Stack(data_dir) as second:
            assert gone(processes) == []
            job = second.await_status(job_id, "COMPLETED", "FAILED")
            assert job["status"] == "COMPLETED", second.log(job_id)


@pytest.mark.parametrize(
    ("child", "name"), [(("app", "serve"), "The gateway"), (("app", "coordinator"), "The coordin")]
)
def test_what_crashes_is_started_again(tmp_path: Path, child: tuple[str, ...], name: str) -> None:
    with Stack(tmp_path / "var") as stack:
        job_id = stack.submit(steps="20")
        stack.await_status(job_id, "COMPLETED")
        crashed = stack.child(*child)

        crashed.kill()

        said = stack.await_line(name)
        assert "exited by SIGKILL; restarting in 0.5 s" in said
        _await_readiness(stack)
        assert stack.child(*child).pid != crashed.pid
        assert stack.get(f"/jobs/{job_id}")["status"] == "COMPLETED"


def test_a_database_that_crashes_is_started_again(tmp_path: Path) -> None:
    with Stack(tmp_path / "var") as stack:
        (crashed,) = (
            each
            for each in psutil.Process(stack.process.pid).children()
            if name_of(each) == "postgres"
        )
        crashed.kill()
        stack.await_line("PostgreSQL exited by SIGKILL")
        _await_readiness(stack)
        assert stack.get("/jobs")["jobs"] == []


def test_a_deep_path_is_no_hindrance(tmp_path: Path) -> None:
    # Longer than a Unix socket's path may be.
    data_dir = tmp_path.joinpath(*["a folder with a long name"] * 5, "var")
    with Stack(data_dir) as stack:
        assert stack.get("/jobs")["jobs"] == []
        folder = _socket_folder(data_dir)
        assert folder.exists()
    assert not folder.exists()


def _socket_folder(data_dir: Path) -> Path:
    return Path((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[4])


def _is_training(process: psutil.Process) -> bool:
    return any(argument.endswith("train.py") for argument in command_line(process))


def _await_message(stack: Stack, job_id: str, beginning: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not any(message.startswith(beginning) for message in stack.log(job_id)):
        assert time.monotonic() < deadline, stack.log(job_id)
        time.sleep(0.1)


def _await_readiness(stack: Stack) -> None:
    """Wait until all is well again: the gateway may still be down when this begins."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            stack.get("/jobs")
            return
        except OSError:
            assert time.monotonic() < deadline, os.linesep.join(stack.lines)
            time.sleep(0.1)
