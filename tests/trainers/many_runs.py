"""Runs many jobs in one process, one after the other: imports take longer than a tiny job.

`many_runs.py PROGRAM REQUEST ANSWER`: PROGRAM is the folder with the package, REQUEST a JSON list
of `{"variables", "memory"}` for each job, ANSWER becomes a list of `{"status", "log"}`. `memory`
is how many bytes of address space the job may add, null for all.
"""

import contextlib
import io
import json
import logging
import os
import resource
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Run them."""
    program, request, answer = sys.argv[1:]
    sys.path.insert(0, program)
    from scaimind_trainers.main import main as run  # type: ignore[import-not-found]

    answers = []
    for each in json.loads(Path(request).read_text()):
        os.environ.update(each["variables"])
        answers.append(_run(run, each["memory"]))
    Path(answer).write_text(json.dumps(answers))


def _run(run: Any, memory: int | None) -> dict[str, Any]:
    root = logging.getLogger()
    for handler in [*root.handlers]:
        root.removeHandler(handler)
    output = io.StringIO()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if memory is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, hard))
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = run([])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    return {"status": status, "log": output.getvalue()}


if __name__ == "__main__":
    main()
