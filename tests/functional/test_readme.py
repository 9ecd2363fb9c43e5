"""The README's lines, pasted into a shell as they stand."""

import json
import re
import subprocess
import time

import pytest

from tests.functional.stack import PATIENCE, PROJECT, Event, Stack, environ, events

BLOCKS = re.findall(r"^```bash\n(.*?)^```$", (PROJECT / "README.md").read_text(), re.M | re.S)


def block(holding: str) -> str:
    """The one block of the README with this text in it."""
    (found,) = (each for each in BLOCKS if holding in each)
    return str(found)


class Shell:
    """A terminal in the project's folder, into which the README's first lines were pasted."""

    def __init__(self, stack: Stack) -> None:
        self._environ = environ(stack.data_dir, SCAIMIND_PORT=stack.port)
        self._job = ""

    def _start(self, script: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ("bash", "-euo", "pipefail", "-c", f"{block('api=')}\njob={self._job}\n{script}"),
            cwd=PROJECT,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def submit(self) -> tuple[str, str]:
        """Submit the job: what was shown, and the job's id."""
        shown, job = self.paste(block("first steps") + "\necho; echo job-id: $job").split(
            "job-id: "
        )
        self._job = job.strip()
        return shown, self._job

    def paste(self, script: str) -> str:
        """Run lines, and return what they print."""
        process = self._start(script)
        output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        return output

    def watch(self, script: str) -> "Watch":
        """Run lines in a terminal of their own."""
        return Watch(self._start(script))


class Watch:
    """A stream that somebody follows."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def to_the_end(self) -> list[Event]:
        """Wait until the gateway ends the stream."""
        output, errors = self._process.communicate(timeout=PATIENCE)
        assert self._process.returncode == 0, errors
        return events(output)


def gauges(exposition: str) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in exposition.splitlines() if line)
    }


@pytest.fixture(scope="module")
def shell(stack: Stack) -> Shell:
    return Shell(stack)


def test_the_lines_of_the_readme_work_as_they_stand(shell: Shell, stack: Stack) -> None:
    shown, job_id = shell.submit()
    assert "HTTP 201" in shown
    assert re.fullmatch(r"[A-Za-z0-9_-]+", job_id)

    # Another terminal finds the job.
    assert shell.paste(block("page_size=1") + "\necho $job").strip() == job_id

    # Three people follow the log, and one the metrics.
    watching = [shell.watch(block("/logs?")) for _ in range(3)]
    measuring = shell.watch(block("/metrics/stream"))
    expected = {
        "scaimind_upstream_streams": 1.0,
        'scaimind_watchers{kind="logs"}': 3.0,
        'scaimind_watchers{kind="metrics"}': 1.0,
    }
    deadline = time.monotonic() + PATIENCE
    while (seen := gauges(shell.paste(block("grep -E")))) != expected:
        assert seen.get("scaimind_upstream_streams", 0) <= 1
        assert stack.get(f"/jobs/{job_id}")["status"] != "COMPLETED", seen
        assert time.monotonic() < deadline, seen
        time.sleep(0.1)

    logs = [watch.to_the_end() for watch in watching]
    metrics = measuring.to_the_end()

    entries = [
        [(event.id, event.data["message"]) for event in log if event.name == "log"] for log in logs
    ]
    assert entries[0] == entries[1] == entries[2]
    assert len({id for id, _ in entries[0]}) == len(entries[0]) > 100
    assert any("It writes: " in message for _, message in entries[0])
    assert [log[-1].name for log in logs] == ["end"] * 3
    assert {log[-1].data["status"] for log in logs} == {"COMPLETED"}

    losses = [event.data["loss"] for event in metrics if event.name == "metrics"]
    assert len(losses) > 3
    assert losses[0] > 1.2 * losses[-1]
    assert metrics[-1].name == "end"

    result = shell.paste(block("report.json"))
    job, _ = json.JSONDecoder().raw_decode(result)
    assert job["data"]["status"] == "COMPLETED"
    assert "model.npz" in result
    report = json.loads(result[result.index('{\n  "steps"') :])
    assert report["validation_loss"] < 2 < 4 < report["untrained_loss"]

    steered = shell.paste(block("/cancel"))
    assert '"total_nodes": 1' in steered
    assert steered.count('"FAILED_PRECONDITION"') == 3
    assert "Traceback" not in steered


def test_every_setting_is_in_the_documentation() -> None:
    from app.configuration.reference import as_markdown
    from app.gateway.settings import SECTIONS

    documented = (PROJECT / "docs" / "configuration.md").read_text()
    assert documented == as_markdown(SECTIONS.values()), (
        "run: python -m app settings > docs/configuration.md"
    )
