"""The worker that asks the trainers for their schema: it becomes their process, confined."""

import os
import sys

from app.coordinator.trainers.program import OPTIONS
from app.coordinator.trainers.variables import OFFLINE


def work(python: str, launcher: str, temporary: str) -> int:
    """Become the trainers' program, which prints the schema on stdout and may write into
    `temporary`. Raises OSError."""
    environment = {
        name: os.environ[name] for name in ("PATH", "LANG", "OMP_NUM_THREADS") if name in os.environ
    }
    environment |= {"HOME": temporary, "TMPDIR": temporary}
    sys.stdout.flush()
    os.execve(python, [python, *OPTIONS, launcher, "schema"], {**environment, **OFFLINE})
