"""The Python client and the command `scaimind`, against whole stacks."""

import asyncio
import os
import pty
import re
import shlex
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from scaimind import AsyncClient, Client, Gap, LogLine
from scaimind.core.events import JobChanged

from tests.functional.stack import PATIENCE, PROJECT, Stack
from tests.programs import program

COMMAND = (sys.executable, "-m", "scaimind")
AGAIN = ("name", "training_config", "data_config", "resource_config")
FAILING = "raise SystemExit(3)\n"
COUNTING = """
import time
for at in range(1, {last} + 1):
    print(f"line {{at}}", flush=True)
    time.sleep(0.002)
"""


def environment(stack: Stack) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SCAIMIND_")}
    return ours | {
        "SCAIMIND_URL": stack.url,
        "SCAIMIND_API_KEY": stack.key,
        "PYTHONPATH": str(PROJECT / "clients/python"),
    }


def command(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (sys.executable, "-m", "scaimind", *arguments),
        env=environment(stack),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def scripts(stack: Stack) -> str:
    """Scripts in the tenant's folder; their URL."""
    folder = stack.data_dir / "drive/local/client"
    folder.mkdir(exist_ok=True)
    (folder / "failing.py").write_text(FAILING)
    (folder / "endless.py").write_text(COUNTING.format(last=10**9))
    return "scaidrive://local/client"


def submit(stack: Stack, script: str, *more: str) -> "subprocess.CompletedProcess[str]":
    return command(
        stack, "jobs", "submit", script, "--data", "scaidrive://local/corpus.jsonl", *more
    )


def test_a_submission_that_is_followed_has_the_jobs_status(stack: Stack, scripts: str) -> None:
    done = submit(stack, "scaidrive://local/train.py", "--hp", "steps=20", "--follow")
    assert done.returncode == 0, done.stderr
    assert "Step 20 of 20" in done.stdout
    failed = submit(stack, f"{scripts}/failing.py", "--follow")
    assert failed.returncode == 1, failed.stderr
    assert "exited with status 3" in failed.stdout


def test_a_job_that_is_cancelled_ends_a_wait_with_three(stack: Stack, scripts: str) -> None:
    made = submit(stack, f"{scripts}/endless.py")
    job_id = made.stdout.split("\t")[0]
    late = command(stack, "jobs", "wait", job_id, "--timeout", "0.5s")
    assert late.returncode == 124
    assert command(stack, "jobs", "cancel", job_id).returncode == 0
    waited = command(stack, "jobs", "wait", job_id)
    assert (waited.returncode, waited.stdout) == (3, f"{job_id}\tCANCELLED\n")

    assert command(stack, "jobs", "delete", job_id).returncode == 0
    for words in (("logs", "-f"), ("wait",), ("delete",)):
        refused = command(stack, "jobs", *words, job_id)
        assert refused.returncode == 6, refused
        assert len(refused.stderr.splitlines()) == 1


def test_wrong_fields_are_shown_at_their_line(stack: Stack, tmp_path: Path) -> None:
    body = tmp_path / "job.yaml"
    body.write_text("name: x\ntraining_config:\n  training_type: SFT\n  max_retriez: 3\n")
    refused = command(stack, "jobs", "submit", "-f", str(body))
    assert refused.returncode == 6
    assert f"{body}:4: training_config.max_retriez: " in refused.stderr


def test_a_job_that_is_not_there_is_a_refusal_of_one_line(stack: Stack) -> None:
    refused = command(stack, "jobs", "get", "job-none")
    assert refused.returncode == 6
    assert len(refused.stderr.strip().splitlines()) == 1


def test_a_wait_goes_on_through_a_pause_and_says_so(stack: Stack, scripts: str) -> None:
    job_id = submit(stack, f"{scripts}/endless.py").stdout.split("\t")[0]
    stack.await_status(job_id, "TRAINING")
    waiting = subprocess.Popen(
        (*COMMAND, "jobs", "wait", job_id),
        env=environment(stack),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with waiting:
        assert waiting.stderr is not None
        assert command(stack, "jobs", "pause", job_id, "--wait").returncode == 0
        assert waiting.stderr.readline() == f"{job_id} is PAUSED; the wait goes on.\n"
        assert command(stack, "jobs", "cancel", job_id).returncode == 0
        assert waiting.communicate(timeout=PATIENCE) == (f"{job_id}\tCANCELLED\n", "")
    assert waiting.returncode == 3


def test_no_answer_has_a_status_of_its_own(stack: Stack) -> None:
    nobody = environment(stack) | {"SCAIMIND_URL": "http://127.0.0.1:1"}
    for words in (("jobs", "logs", "-f", "job-x"), ("jobs", "wait", "job-x"), ("queue",)):
        done = subprocess.run(
            (*COMMAND, *words), env=nobody, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 5, done.stderr
        assert "Traceback" not in done.stderr


def test_a_job_is_known_to_streams_as_soon_as_it_is_submitted(stack: Stack, scripts: str) -> None:
    with Client(stack.url, stack.key) as client:
        submitted = submit(stack, f"{scripts}/endless.py").stdout.split("\t")[0]
        body = {name: client.jobs.get(submitted).raw[name] for name in AGAIN}
        # It keeps the gateway's record of the tenant's jobs alive.
        held = client.events()
        next(held)
        for _ in range(10):
            job_id = client.jobs.submit(body).job_id
            events = client.events(job_id=job_id)
            changed = next(events)
            assert isinstance(changed, JobChanged)
            assert changed.job.job_id == job_id
            events.close()
            client.jobs.cancel(job_id)
        client.jobs.cancel(submitted)
        held.close()


def test_a_hundred_waits_are_one_upstream_stream(stack: Stack, scripts: str) -> None:
    job_id = submit(stack, f"{scripts}/endless.py").stdout.split("\t")[0]

    # Streams of other tests' jobs may still linger.
    before = _gauge(stack, "scaimind_upstream_streams ")

    async def wait() -> list[dict[str, str]]:
        async with AsyncClient(stack.url, stack.key) as client:
            waits = [asyncio.create_task(client.jobs.wait(job_id)) for _ in range(100)]
            async with asyncio.timeout(PATIENCE):
                # Of another process, which says nothing by itself.
                while await asyncio.to_thread(_gauge, stack, "scaimind_watchers{") < 100:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert (
                await asyncio.to_thread(_gauge, stack, "scaimind_upstream_streams ") <= before + 1
            )
            await client.jobs.cancel(job_id)
            return await asyncio.gather(*waits)

    assert asyncio.run(wait()) == [{job_id: "CANCELLED"}] * 100


def _gauge(stack: Stack, name: str) -> float:
    with urllib.request.urlopen(f"{stack.url}/metrics", timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_a_follower_survives_a_killed_gateway_and_a_killed_coordinator(tmp_path: Path) -> None:
    with Stack(tmp_path / "var") as stack:
        folder = stack.data_dir / "drive/local"
        (folder / "counting.py").write_text(COUNTING.format(last=3000))
        job_id = submit(stack, "scaidrive://local/counting.py").stdout.split("\t")[0]
        lines: list[int] = []
        with Client(stack.url, stack.key) as client:
            log = client.jobs.logs(job_id, tail=1_000_000)
            victims = [(300, ("app", "serve")), (1200, ("app", "coordinator"))]
            for item in log:
                assert not isinstance(item, Gap), item
                assert isinstance(item, LogLine)
                if item.source != "stdout":
                    continue
                lines.append(int(item.message.removeprefix("line ")))
                if victims and lines[-1] >= victims[0][0]:
                    stack.child(*victims.pop(0)[1]).kill()
        assert lines == list(range(1, 3001))
        assert log.status == "COMPLETED"


class Terminal:
    """A command in a pseudo-terminal, which sends Ctrl-C as a person's does."""

    def __init__(self, stack: Stack, *command: str) -> None:
        self._ours, theirs = pty.openpty()
        # A terminal drops at Ctrl-C what it was sent and has not shown yet; this one does not.
        mode = termios.tcgetattr(theirs)
        mode[3] |= termios.NOFLSH
        termios.tcsetattr(theirs, termios.TCSANOW, mode)
        # --ctty: the terminal is the command's own, so that what is typed becomes signals.
        self.process = subprocess.Popen(
            (program("setsid"), "--ctty", *command),
            env=environment(stack),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def until(self, holds: Callable[[str], bool]) -> str:
        """Read until what was said is enough, or to the end; what was said."""
        said = ""
        # OSError is what Linux says of a terminal whose other end is closed.
        with suppress(OSError):
            while not holds(said) and (piece := os.read(self._ours, 65536)):
                said += piece.decode(errors="replace")
        return said

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def close(self) -> int:
        """End it if it still runs; its status."""
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait(PATIENCE)
            os.close(self._ours)


def test_ctrl_c_leaves_the_job_and_says_how_to_go_on(
    stack: Stack, scripts: str, record_property: Callable[[str, object], None]
) -> None:
    job_id = submit(stack, f"{scripts}/endless.py").stdout.split("\t")[0]
    terminal = Terminal(stack, *COMMAND, "jobs", "logs", "-f", job_id)
    shown = terminal.until(lambda said: "line 5" in said and "TRAINING" in said)
    terminal.type("\x03")
    typed = time.monotonic()
    said = terminal.until(lambda _: False)
    record_property("seconds from Ctrl-C to the end", time.monotonic() - typed)
    assert terminal.close() == 130, said
    assert f"{job_id} is still TRAINING. Continue with:" in said
    assert "Traceback" not in said

    # What was printed and what comes behind the cursor are the whole log.
    (cursor,) = re.findall(r"--after (\S+)", said)
    again = Terminal(stack, *COMMAND, "jobs", "logs", "-f", job_id, "--after", cursor)
    more = again.until(lambda said: said.count("line ") > 5)
    again.type("\x03")
    more += again.until(lambda _: False)
    assert again.close() == 130
    # The terminal echoes Ctrl-C wherever the output is then, within a line too.
    whole = (shown + said + more).replace("^C", "")
    lines = [int(each) for each in re.findall(r"line (\d+)\r?\n", whole)]
    assert lines == list(range(1, len(lines) + 1))
    assert command(stack, "jobs", "cancel", job_id).returncode == 0


def test_a_closed_pipe_is_silent_on_a_terminal(stack: Stack, scripts: str) -> None:
    job_id = submit(stack, f"{scripts}/endless.py").stdout.split("\t")[0]
    script = f"{shlex.join(COMMAND)} jobs logs -f {job_id} | head -1; echo ${{PIPESTATUS[*]}}"
    terminal = Terminal(stack, "bash", "-c", script)
    said = terminal.until(lambda _: False)
    assert terminal.close() == 0
    # 128 and SIGPIPE, as of any other program.
    assert said.splitlines()[-1] == "141 0"
    assert "Traceback" not in said
    assert command(stack, "jobs", "cancel", job_id).returncode == 0
