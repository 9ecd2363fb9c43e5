"""What a worker may use and touch, and the command that starts one under such rules."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

#: What the first process of a worker is told its rules with.
RULES_VARIABLE: Final = "SCAIMIND_WORKER_RULES"
_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[3]
#: This project's own code.
OWN_CODE: Final = (str(_PACKAGE_ROOT / "app"), str(_PACKAGE_ROOT / "generated"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Of one worker."""

    #: Paths that it may read, beside this project's code. Those of the system and of Python
    #: have to be among them.
    readable: tuple[str, ...]
    #: Paths below which it may make, change and remove files.
    writable: tuple[str, ...] = ()
    #: Bytes of its data in memory; files that it maps do not count (RLIMIT_DATA).
    memory_bytes: int
    #: Bytes of the largest file that it writes.
    file_bytes: int = 0
    open_files: int = 256
    #: Seconds on a core until it is killed.
    cpu_seconds: int = 4 * 3600

    @classmethod
    def read(cls, text: str) -> "Rules":
        """Return what `command` wrote."""
        told: dict[str, Any] = json.loads(text)
        for name in ("readable", "writable"):
            told[name] = tuple(told[name])
        return cls(**told)


def command(module: str, rules: Rules, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Return the arguments and the environment of a process that runs a worker.

    `module` has a function `work` that takes the arguments and returns an exit
    status. It is called in a process that is confined already. SIGTERM to the
    process that is started ends the worker with all that it started, and so
    does the end of the thread that started it.
    """
    argv = [sys.executable, "-m", "app.coordinator.workers.first_process", module, *arguments]
    return argv, _environment(rules)


def _environment(rules: Rules) -> dict[str, str]:
    """Nothing of this process's environment: the API secret is in it."""
    values: Mapping[str, str] = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(_PACKAGE_ROOT),
        # One that gives memory back, and reserves none.
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        # No thread for each core.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        RULES_VARIABLE: json.dumps({**asdict(rules), "parent": os.getpid()}),
    }
    return dict(values)
