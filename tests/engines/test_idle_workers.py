"""Workers of Ray that do nothing are found by their titles and their outputs."""

import os
import subprocess
import sys
from pathlib import Path

#: A node's process: its workers are its children, and one more ends those that do nothing. Each
#: waits for the end of its stdin.
_NODE = """
import subprocess, sys
folder = sys.argv[1]
workers = {}
for name, title, job in (
    ("idle", "ray::IDLE", "02000000"),
    ("busy", "ray::NodeAgentHost", "02000000"),
    ("other", "ray::IDLE", "01000000"),
):
    with open(f"{folder}/worker-ab-{job}-{len(workers)}.out", "wb") as output:
        workers[name] = subprocess.Popen(
            [title], executable="/bin/cat", stdin=subprocess.PIPE, stdout=output
        )
code = '''
import sys
from app.coordinator.engines.ray.idle_workers import end_idle_workers
sys.exit(end_idle_workers())
'''
with open(f"{folder}/worker-ab-02000000-9.out", "wb") as output:
    ended = subprocess.run([sys.executable, "-c", code], stdout=output).returncode
statuses = []
for name, worker in workers.items():
    worker.stdin.close()
    statuses.append(worker.wait())
print(ended, *statuses)
"""


def test_only_those_of_the_same_job_are_ended_that_do_nothing(tmp_path: Path) -> None:
    """Others may be somebody's, or have what somebody else made."""
    done = subprocess.run(
        [sys.executable, "-c", _NODE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.split() == ["1", "-9", "0", "0"]
