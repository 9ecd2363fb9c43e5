"""`python -m app up` as a process, as a person at a terminal has it."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil

from app.local.child import dying_with_parent
from tests.processes import command_line, descendants
from tests.secrecy import written

PROJECT = Path(__file__).parent.parent.parent
#: Seconds after which a test that waits gives up: a net, not an expectation. A job that asks for
#: no cores comes last on the machine, and the example trains for a while.
PATIENCE = 300.0

_READY = re.compile(r"Ready: (http://127\.0\.0\.1:(\d+)) ")


#: Where the command `scaimind` is.
CLIENT = PROJECT / "clients/python"


def with_profile(home: Path) -> dict[str, str]:
    """Settings with which `up` writes the profile of the command into a folder `config`."""
    return {
        "SCAIMIND_NO_PROFILE": "",
        "XDG_CONFIG_HOME": str(home / "config"),
        "PYTHONPATH": str(CLIENT),
    }


def environ(data_dir: Path, **more: str) -> dict[str, str]:
    """An environment that holds no setting but these; the tester's profiles are left alone."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SCAIMIND_")}
    given = {"SCAIMIND_DATA_DIR": str(data_dir), "SCAIMIND_PORT": "0", "SCAIMIND_NO_PROFILE": "1"}
    return {**ours, **given, **more}


#: Whatever else the machine does, a stack answers.
_PATIENT = {
    "SCAIMIND_DATABASE_CONNECT_TIMEOUT": "60",
    "SCAIMIND_DATABASE_STATEMENT_TIMEOUT": "60",
    "SCAIMIND_UPSTREAM_UNARY_TIMEOUT": "60",
    "SCAIMIND_UPSTREAM_SUBMIT_TIMEOUT": "60",
    "SCAIMIND_AUTH_HTTP_TIMEOUT": "60",
    "SCAIMIND_DRIVE_CALL_TIMEOUT": "60",
}
#: The server's command, in this checkout.
IN_CHECKOUT = (sys.executable, "-m", "app")


def start(
    data_dir: Path,
    *,
    within: Sequence[str] = (),
    command: Sequence[str] = IN_CHECKOUT,
    cwd: Path | str = PROJECT,
    stdout: int = subprocess.PIPE,
    **settings: str,
) -> "subprocess.Popen[str]":
    """Start `up`, in a session of its own; what it says comes through a pipe, or goes to `stdout`.

    `within` is a command that becomes the one behind it; `command` is the server's.
    """
    return subprocess.Popen(
        # Tests that are killed leave nothing behind either.
        dying_with_parent((*within, *command, "up"), signal_number=signal.SIGINT),
        cwd=cwd,
        env=environ(data_dir, **{**_PATIENT, **settings}),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


class Stack:
    """One run of `up`; left as a context, it is stopped as by Ctrl-C."""

    def __init__(
        self,
        data_dir: Path,
        *,
        within: Sequence[str] = (),
        command: Sequence[str] = IN_CHECKOUT,
        cwd: Path | str = PROJECT,
        **settings: str,
    ) -> None:
        self.data_dir = data_dir
        #: What it has said so far, without line ends.
        self.lines: list[str] = []
        self.url = ""
        self.port = ""
        self._said_more = threading.Condition()
        self.process = start(
            data_dir, within=within, command=command, cwd=cwd, stdout=subprocess.PIPE, **settings
        )
        self._reader = threading.Thread(target=self._read, name="up's output")
        self._reader.start()

    def __enter__(self) -> Self:
        try:
            ready = _READY.match(self.await_line("Ready: "))
        except BaseException:
            self.stop()
            raise
        assert ready is not None
        self.url, self.port = ready.groups()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def config_home(self) -> Path:
        """Where the profile is that it writes if it is given `with_profile`."""
        return self.data_dir.parent / "config"

    @property
    def key(self) -> str:
        """The API key of the first start."""
        return (self.data_dir / "api-key").read_text().strip()

    def await_line(self, beginning: str, *, after: int = 0) -> str:
        """Wait until a line that begins so is said; the first `after` lines do not count."""

        def found() -> str | None:
            return next((line for line in self.lines[after:] if line.startswith(beginning)), None)

        with self._said_more:
            self._said_more.wait_for(
                lambda: found() is not None or not self._reader.is_alive(), PATIENCE
            )
            line = found()
        assert line is not None, f"no line {beginning!r} in: {self.lines}"
        return line

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal if it still runs, and return the status that it left with."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self._reader.join(PATIENCE)
            assert self.process.stdout is not None
            self.process.stdout.close()
        return status

    def processes(self) -> list[psutil.Process]:
        """Everything that it started and that runs now, and what those started."""
        return descendants(self.process.pid)

    def child(self, *arguments: str) -> psutil.Process:
        """The child whose command line ends with the arguments; waited for, if it is not there."""
        wanted = list(arguments)
        deadline = time.monotonic() + PATIENCE
        while True:
            children = psutil.Process(self.process.pid).children()
            lines = {each: command_line(each) for each in children}
            if found := [each for each in children if lines[each][-len(wanted) :] == wanted]:
                (one,) = found
                return one
            assert time.monotonic() < deadline, list(lines.values())
            time.sleep(0.05)

    def get(self, path: str) -> Any:
        """GET below the API's root with the key; the `data` of the answer."""
        request = urllib.request.Request(
            f"{self.url}/v1/modules/scaimind{path}",
            headers={"Authorization": f"Bearer {self.key}"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["data"]

    def delete(self, path: str) -> None:
        """DELETE below the API's root with the key."""
        request = urllib.request.Request(
            f"{self.url}/v1/modules/scaimind{path}",
            headers={"Authorization": f"Bearer {self.key}"},
            method="DELETE",
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            answer.read()

    def post(self, path: str, body: Any) -> Any:
        """POST below the API's root with the key; the `data` of the answer."""
        request = urllib.request.Request(
            f"{self.url}/v1/modules/scaimind{path}",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["data"]

    def submit(
        self,
        *,
        name: str = "a test's",
        script: str = "train.py",
        labels: Mapping[str, str] | None = None,
        gpus: int = 0,
        checkpoints: int = 0,
        **hyperparameters: str,
    ) -> str:
        """Submit the example, or another script on the drive; the job's id.

        `checkpoints` are the steps between two; 0 leaves it to the script.
        """
        body = {
            "name": name,
            "training_config": {
                "training_type": "CONTINUED_PRETRAIN",
                "base_model": {"model_id": "none"},
                "framework": {
                    "type": "CUSTOM",
                    "custom_script_path": f"scaidrive://local/{script}",
                },
                "hyperparameters": hyperparameters,
            },
            "data_config": {"sources": [{"path": "scaidrive://local/corpus.jsonl"}]},
            "resource_config": {"gpu_count": gpus} if gpus else {},
            "output_config": {"checkpoint_interval_steps": checkpoints} if checkpoints else {},
            "labels": dict(labels or {}),
        }
        return str(self.post("/jobs", body)["job_id"])

    def log(self, job_id: str) -> list[str]:
        """The messages of a job's log up to now."""
        request = urllib.request.Request(
            f"{self.url}/v1/modules/scaimind/jobs/{job_id}/logs?follow=false&tail=10000",
            headers={"Authorization": f"Bearer {self.key}"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            body = answer.read().decode()
        return [event.data["message"] for event in events(body) if event.name == "log"]

    def await_status(self, job_id: str, *wanted: str) -> dict[str, Any]:
        """Wait until a job is in one of these states."""
        deadline = time.monotonic() + PATIENCE
        while True:
            job: dict[str, Any] = self.get(f"/jobs/{job_id}")
            if job["status"] in wanted:
                return job
            assert time.monotonic() < deadline, job
            time.sleep(0.1)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            written("up", line)
            with self._said_more:
                self.lines.append(line.rstrip("\n"))
                self._said_more.notify_all()
        with self._said_more:
            self._said_more.notify_all()


class Event:
    """One Server-Sent Event."""

    def __init__(self, block: str) -> None:
        fields = dict(
            line.split(": ", 1)
            for line in block.split("\n")
            if ": " in line and not line.startswith(":")
        )
        self.id = fields.get("id", "")
        self.name = fields.get("event", "")
        self.data: Any = json.loads(fields["data"]) if "data" in fields else None


def events(body: str) -> list[Event]:
    """The events in what a stream sent."""
    return [event for block in body.split("\n\n") if (event := Event(block)).data is not None]


def gone(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Wait for processes to end; those that did not."""
    return psutil.wait_procs(processes, timeout=PATIENCE)[1]
