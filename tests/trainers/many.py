"""Runs many tiny jobs in one process of the environment for training."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.trainers import many_runs
from tests.trainers.training import Runner

#: Seconds that all of them may take.
_LIMIT: Final = 1800.0


@dataclass(frozen=True)
class Answer:
    """How one of them ended."""

    status: int
    log: str
    folder: Path

    @property
    def output(self) -> Path:
        """SCAIMIND_OUTPUT_DIR."""
        return self.folder / "output"

    @property
    def checkpoints(self) -> list[str]:
        """Names in SCAIMIND_CHECKPOINT_DIR that do not begin with a dot."""
        names = (each.name for each in (self.folder / "checkpoints").iterdir())
        return sorted(name for name in names if not name.startswith("."))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Lines of SCAIMIND_METRICS_FILE."""
        return [json.loads(line) for line in (self.folder / "metrics").read_text().splitlines()]


def run_many(
    runner: Runner,
    folder: Path,
    configs: Mapping[str, Mapping[str, Any]],
    *,
    memory: Mapping[str, int] | None = None,
) -> dict[str, Answer]:
    """Run each job to its end; `memory` is how many bytes some of them may add."""
    requests = []
    for name, config in configs.items():
        place = folder / name
        for each in ("output", "checkpoints"):
            (place / each).mkdir(parents=True)
        (place / "config").write_text(json.dumps(config))
        (place / "metrics").touch()
        requests.append(
            {
                "memory": (memory or {}).get(name),
                "variables": {
                    "SCAIMIND_JOB_ID": name,
                    "SCAIMIND_JOB_CONFIG": str(place / "config"),
                    "SCAIMIND_OUTPUT_DIR": str(place / "output"),
                    "SCAIMIND_CHECKPOINT_DIR": str(place / "checkpoints"),
                    "SCAIMIND_METRICS_FILE": str(place / "metrics"),
                },
            }
        )
    request, answer, temporary = folder / "request", folder / "answer", folder / "tmp"
    request.write_text(json.dumps(requests))
    temporary.mkdir()
    done = subprocess.run(
        [runner.python, "-P", many_runs.__file__, runner.program, request, answer],
        cwd=temporary,
        env={
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HOME": str(temporary),
            "TMPDIR": str(temporary),
            "CUDA_VISIBLE_DEVICES": "",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    answers = json.loads(answer.read_text())
    return {
        name: Answer(**each, folder=folder / name)
        for name, each in zip(configs, answers, strict=True)
    }
