"""What tells processes apart."""

import os
import subprocess

from app.coordinator.storage.process_identity import living_marks, process_identity


def test_a_process_that_has_exited_has_no_mark() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert living_marks([gone.pid, os.getpid()]) == [process_identity(os.getpid())]
