"""The lines of docs/http.md, pasted into a shell as they stand."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest

from tests.functional.stack import PATIENCE, PROJECT, Event, Stack, environ, events
from tests.programs import program

BLOCKS = re.findall(r"^```bash\n(.*?)^```$", (PROJECT / "docs/http.md").read_text(), re.M | re.S)


def block(holding: str) -> str:
    """The one block of the page with this text in it."""
    (found,) = (each for each in BLOCKS if holding in each)
    return str(found)


class Watch:
    """A stream that somebody follows in a terminal of their own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._events: list[Event] = []
        self._came = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="a stream")
        self._reader.start()

    def until(self, holds: Callable[[list[Event]], bool]) -> list[Event]:
        """Wait until what came so far is enough; the events that came."""
        with self._came:
            self._came.wait_for(
                lambda: holds(self._events) or not self._reader.is_alive(), PATIENCE
            )
            assert holds(self._events), [event.data for event in self._events[-5:]]
            return list(self._events)

    def to_the_end(self) -> list[Event]:
        """Wait until the gateway ends the stream."""
        self._reader.join(PATIENCE)
        assert self._process.wait(PATIENCE) == 0
        return self._events

    def leave(self) -> None:
        """End the watching, as Ctrl-C does; nothing if it has ended."""
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as said:
            for block in _blocks(said):
                with self._came:
                    self._events += events(block)
                    self._came.notify_all()
        with self._came:
            self._came.notify_all()


def _blocks(said: Iterable[str]) -> Iterator[str]:
    """Cut a stream at its blank lines."""
    lines: list[str] = []
    for line in said:
        if line == "\n":
            yield "".join(lines)
            lines = []
        else:
            lines.append(line)


class Shell:
    """A terminal in the project's folder, into which the page's first lines were pasted."""

    def __init__(self, stack: Stack) -> None:
        program("curl")
        self._environ = environ(stack.data_dir, SCAIMIND_PORT=stack.port)
        self._job = ""
        self._watches: list[Watch] = []

    def _start(self, script: str, *, stderr: int) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ("bash", "-euo", "pipefail", "-c", f"{block('api=')}\njob={self._job}\n{script}"),
            cwd=PROJECT,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def submit(self, *, instead: tuple[str, str] = ("", "")) -> tuple[str, str]:
        """Submit the job: what was shown, and the job's id. `instead` replaces a part of it."""
        lines = block("first steps")
        assert instead[0] in lines
        script = lines.replace(*instead) if instead[0] else lines
        shown, job = self.paste(script + "\necho; echo job-id: $job").split("job-id: ")
        self._job = job.strip()
        return shown, self._job

    def paste(self, script: str) -> str:
        """Run lines, and return what they print."""
        process = self._start(script, stderr=subprocess.PIPE)
        output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        return output

    def watch(self, script: str) -> Watch:
        """Run the line of a stream in a terminal of its own."""
        # exec: so that a signal meets curl, as Ctrl-C does.
        watch = Watch(self._start(f"exec {script}", stderr=subprocess.DEVNULL))
        self._watches.append(watch)
        return watch

    def close(self) -> None:
        """Leave all streams."""
        for watch in self._watches:
            watch.leave()


def gauges(exposition: str) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in exposition.splitlines() if line)
    }


@pytest.fixture(scope="module")
def shell(stack: Stack) -> Iterator[Shell]:
    terminal = Shell(stack)
    yield terminal
    terminal.close()


def entries(log: list[Event]) -> list[tuple[str, str]]:
    """Id and message of each entry."""
    return [(event.id, event.data["message"]) for event in log if event.name == "log"]


def says(beginning: str) -> Callable[[list[Event]], bool]:
    """Whether an entry begins so."""
    return lambda log: any(message.startswith(beginning) for _, message in entries(log))


def test_the_lines_of_the_page_work_as_they_stand(shell: Shell, stack: Stack) -> None:
    shown, job_id = shell.submit()
    assert "HTTP 201" in shown
    assert re.fullmatch(r"[A-Za-z0-9_-]+", job_id)

    # Another terminal finds the job.
    assert shell.paste(block("page_size=1") + "\necho $job").strip() == job_id

    # Three people follow the log, and one the metrics.
    watching = [shell.watch(block("/logs?tail=1000")) for _ in range(3)]
    measuring = shell.watch(block("/metrics/stream"))
    expected = {
        "scaimind_upstream_streams": 1.0,
        'scaimind_watchers{kind="logs"}': 3.0,
        'scaimind_watchers{kind="metrics"}': 1.0,
    }
    deadline = time.monotonic() + PATIENCE
    # Streams of tests before this one may linger at first.
    while not expected.items() <= (seen := gauges(shell.paste(block("grep -E")))).items():
        assert time.monotonic() < deadline, seen
        time.sleep(0.1)
    measuring.until(lambda came: sum(event.name == "metrics" for event in came) > 3)

    # All of what follows is while it runs: held back, it takes minutes.
    looked = shell.paste(block("$api/queue"))
    assert '"total_nodes": 1' in looked
    assert f'"job_id": "{job_id}"' in looked

    shell.paste(block("/pause"))
    assert stack.get(f"/jobs/{job_id}")["status"] == "PAUSED"
    assert '"error"' not in shell.paste(block("/resume"))
    for watch in watching:
        watch.until(says("Going on from step-"))
    measured = measuring.until(lambda came: True)
    measuring.until(lambda came: len(came) > len(measured))

    assert '"error"' not in shell.paste(block("/cancel"))
    logs = [watch.to_the_end() for watch in watching]
    assert [(log[-1].name, log[-1].data["status"]) for log in logs] == [("end", "CANCELLED")] * 3
    stored = stack.log(job_id)
    assert [[message for _, message in entries(log)] for log in logs] == [stored] * 3
    assert [entries(log) for log in logs] == [entries(logs[0])] * 3
    assert len({id for id, _ in entries(logs[0])}) == len(stored)

    metrics = measuring.to_the_end()
    assert metrics[-1].name == "end"
    losses = [event.data["loss"] for event in metrics if event.name == "metrics"]
    assert losses[0] > 1.2 * losses[-1]

    refused = shell.paste(block("/pause") + block("/resume") + block("/cancel"))
    assert refused.count('"FAILED_PRECONDITION"') == 3
    assert "Traceback" not in refused


def test_the_result_is_what_the_page_says(shell: Shell, stack: Stack) -> None:
    # The page's job in a hurry, as it says itself.
    _, job_id = shell.submit(instead=(', "steps_per_second": "20"', ""))
    watch = shell.watch(block("/logs?tail=1000"))
    result = shell.paste(block("report.json"))
    log = watch.to_the_end()
    assert log[-1].name == "end"
    assert log[-1].data["status"] == "COMPLETED", stack.get(f"/jobs/{job_id}")

    messages = [message for _, message in entries(log)]
    assert messages == stack.log(job_id)
    # The first step, and each fiftieth.
    assert sum(bool(re.match(r"Step \d+ of 6000: ", each)) for each in messages) == 121
    assert any(each.startswith("It writes: ") for each in messages)

    job, _ = json.JSONDecoder().raw_decode(result[result.index("{\n") :])
    assert job["data"]["status"] == "COMPLETED"
    assert "model.npz" in result
    report = json.loads(result[result.index('{\n  "steps"') :])
    assert report["validation_loss"] < 2 < 4 < report["untrained_loss"]


def test_every_setting_is_in_the_documentation() -> None:
    from app.configuration.reference import as_markdown
    from app.gateway.settings import SECTIONS

    documented = (PROJECT / "docs" / "configuration.md").read_text()
    assert documented == as_markdown(SECTIONS.values()), (
        "run: python -m app settings > docs/configuration.md"
    )
