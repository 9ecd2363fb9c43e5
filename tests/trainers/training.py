"""Runs the program that trains as the coordinator does, without one: real processes, real files."""

import json
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.coordinator.execution.job_config import to_dict
from app.coordinator.trainers.program import LAUNCHER, place_trainers
from app.files.directory import Directory
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest
from tests.ports import free_ports
from tests.trainers.warm_processes import Process, WarmStart

#: Seconds that a run may take.
LIMIT: Final = 900.0


@dataclass(frozen=True)
class Result:
    """A run that has ended."""

    #: Of the rank that failed first, or 0.
    status: int
    #: What all ranks printed.
    log: str
    #: By line of SCAIMIND_METRICS_FILE, in order.
    metrics: list[dict[str, Any]]
    folder: Path

    @property
    def output(self) -> Path:
        """SCAIMIND_OUTPUT_DIR."""
        return self.folder / "output"

    @property
    def checkpoints(self) -> list[Path]:
        """The complete ones, by their step."""
        found = (each for each in (self.folder / "checkpoints").iterdir() if each.is_dir())
        complete = (each for each in found if not each.name.startswith((".", "tmp-")))
        named = (each for each in complete if not each.name.endswith((".tmp", ".partial")))
        return sorted(named, key=lambda each: int(each.name.rpartition("-")[2]))

    def values(self, name: str) -> list[float]:
        """What the metrics say of one number, in order."""
        return [each[name] for each in self.metrics if name in each]


def job_config(
    training_type: str,
    *,
    model: Path | str,
    data: Path | list[dict[str, Any]],
    framework: str = "HF_TRAINER",
    hyperparameters: Mapping[str, object] | None = None,
    **sections: Mapping[str, Any],
) -> dict[str, Any]:
    """SCAIMIND_JOB_CONFIG of a job. `data` is one source, or the list of them.

    `sections` are merged into it: data_config={"seed": 1}, output_config={...},
    training_config={"framework": {"config": {...}}}.
    """
    config = {"job_id": "job-00000000000000000000", **to_dict(SubmitJobRequest(name="test"))}
    sources = [{"path": str(data)}] if isinstance(data, Path) else data
    given = {
        "training_config": {
            "training_type": training_type,
            "framework": {"type": framework},
            "hyperparameters": {
                name: str(value) for name, value in (hyperparameters or {}).items()
            },
            "base_model": {
                "model_id": str(model),
                **({"local_path": str(model)} if isinstance(model, Path) else {}),
            },
        },
        "data_config": {
            "gradient_accumulation_steps": 1,
            "sources": [{"local_path": each["path"], **each} for each in sources],
        },
    }
    return _merged(_merged(config, given), sections)


def _merged(into: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(into)
    for name, value in other.items():
        before = made.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            made[name] = _merged(before, value)
        else:
            made[name] = value
    return made


class Runner:
    """Runs jobs in folders of their own, below one folder. Close it.

    Their processes are forked from two that have the libraries imported, by turns: so what two
    runs have alike is not what both have of one process, such as the order of its sets.
    """

    def __init__(self, python: Path, folder: Path, launcher: Path | None = None) -> None:
        """`launcher` starts the program instead of its own launcher."""
        self.python = python
        self.folder = folder
        self.program = folder / "program"
        self.program.mkdir()
        with Directory.open(self.program) as program:
            place_trainers(program, threading.Event())
        self.launcher = launcher or self.program / LAUNCHER
        self._runs = 0
        self._warm: dict[int, WarmStart] = {}

    def close(self) -> None:
        """End what it has started."""
        for each in self._warm.values():
            each.close()

    def _started(
        self, variables: Mapping[str, str], folder: Path, log: Path, hold_at: Sequence[str]
    ) -> Process:
        turn = self._runs % 2
        if turn not in self._warm:
            output = self.folder / f"warm-start-{turn}"
            self._warm[turn] = WarmStart(self.python, self.program, self.launcher, output)
        texts = [each for each in hold_at if each]
        return self._warm[turn].start(variables, folder / "work", log, texts)

    def __call__(
        self,
        config: Mapping[str, Any],
        *,
        folder: Path | None = None,
        resume_from: Path | None = None,
        world_size: int = 1,
        stop_at: str = "",
        kill_at: str = "",
        environment: Mapping[str, str] | None = None,
        limit: float = LIMIT,
        disks: Sequence[Path] = (),
    ) -> Result:
        """Run a job to its end.

        A `folder` is that of an earlier result, whose run goes on there. When a line of the
        log contains `stop_at`, every rank is asked to leave (SIGTERM); with `kill_at` they
        are killed. The rank that printed it does nothing meanwhile. With `disks`, each rank is
        on a node of its own that has checkpoints and output there, and goes on from what is in
        `resume`.
        """
        self._runs += 1
        folder = folder or self.folder / f"job-{self._runs}"
        for name in ("work", "output", "checkpoints", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        metrics = folder / f"metrics-{self._runs}.jsonl"
        metrics.touch()
        log = folder / f"log-{self._runs}"
        variables = {
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HOME": str(folder / "work"),
            "TMPDIR": str(folder / "tmp"),
            "CUDA_VISIBLE_DEVICES": "",
            "SCAIMIND_TEST_PROGRAM": str(self.program),
            "SCAIMIND_JOB_ID": str(config["job_id"]),
            "SCAIMIND_JOB_CONFIG": str(folder / "config.json"),
            "SCAIMIND_OUTPUT_DIR": str(folder / "output"),
            "SCAIMIND_CHECKPOINT_DIR": str(folder / "checkpoints"),
            "SCAIMIND_RESUME_FROM": str(resume_from or ""),
            "SCAIMIND_METRICS_FILE": str(metrics),
            **(environment or {}),
        }
        log.touch()
        processes: list[Process] = []
        try:
            for number, ranks in enumerate(ranks_of(world_size)):
                own = {**variables, **ranks}
                if disks:
                    own |= _on_own_disk(disks[number], number, resume=bool(resume_from))
                processes.append(self._started(own, folder, log, [stop_at, kill_at]))
            status = _follow(
                processes, log, {stop_at: signal.SIGTERM, kill_at: signal.SIGKILL}, limit
            )
        finally:
            for each in processes:
                each.end()
        lines = metrics.read_text().splitlines()
        return Result(
            status, log.read_text(errors="replace"), [json.loads(each) for each in lines], folder
        )


def _on_own_disk(disk: Path, number: int, *, resume: bool) -> dict[str, str]:
    for name in ("output", "checkpoints", "tmp"):
        (disk / name).mkdir(parents=True, exist_ok=True)
    return {
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "NODE_RANK": str(number),
        "TMPDIR": str(disk / "tmp"),
        "SCAIMIND_SHARED_DISK": "0",
        "SCAIMIND_OUTPUT_DIR": str(disk / "output"),
        "SCAIMIND_CHECKPOINT_DIR": str(disk / "checkpoints"),
        "SCAIMIND_RESUME_FROM": str(disk / "resume") if resume else "",
    }


def ranks_of(world_size: int) -> list[dict[str, str]]:
    if world_size == 1:
        return [{}]
    (port,) = free_ports(1)
    shared = {
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return [{"RANK": str(at), "LOCAL_RANK": str(at), **shared} for at in range(world_size)]


def _follow(
    processes: list[Process],
    log: Path,
    signals: Mapping[str, signal.Signals],
    limit: float,
) -> int:
    """Wait for all; one that fails ends the others, as the coordinator does it."""
    waiting = {text: number for text, number in signals.items() if text}
    end = time.monotonic() + limit
    while None in (codes := [each.poll() for each in processes]):
        if failed := next((code for code in codes if code), 0):
            return failed
        if time.monotonic() > end:
            raise AssertionError(f"still running after {limit:g} s:\n{log.read_text()[-8000:]}")
        for text in [each for each in waiting if each in log.read_text(errors="replace")]:
            number = waiting.pop(text)
            for process in processes:
                process.send_signal(number)
                process.send_signal(signal.SIGCONT)
        # Neither a process's end nor a line of a file can be waited for together with the other.
        time.sleep(0.05)
    return next((code for code in codes if code), 0)
