"""Measures how many lines a second one process of a job can write to its watchers.

    .venv/bin/python -m scripts.bench.output
    .venv/bin/python -m scripts.bench.output --rates 50000,100000 --seconds 5 --size 100

`python -m app up` in a directory of its own runs a job whose process writes lines at a rate, or as
fast as they are taken (0), for so many seconds. One watcher checks that each came once and in
order. Printed is what the process could write a second (a full pipe holds it back), how long
lines took to reach the watcher, and the CPU time that each program needed for a line. Whatever
else runs on the machine spoils the numbers. Exits with 1 when a line was lost or doubled.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from scripts.bench.fanout_rig.client import watching
from scripts.bench.fanout_rig.peers import Endpoint
from scripts.bench.fanout_rig.processes import RigError, cpu_of, environment, python

PREFIX = "/v1/modules/scaimind"
#: Seconds within which the last line arrives.
PATIENCE = 120.0
#: Seconds between two writes of the process.
TICK = 0.004
#: Seconds that the process stays when it has written, so that its CPU time can be read.
STAYS = 3.0
#: Writes lines as the load client reads them. Its arguments are literals within.
SCRIPT = """
import os, time
rate, seconds, size, tick, stays = {arguments}
began = time.monotonic()
number, now = 0, began
while now < began + seconds:
    due = int((now - began) * rate) if rate else number + 200
    born = time.monotonic_ns()
    text = "".join(
        f"fanout t={{born:019d}} n={{n:010d}} ".ljust(size - 1, "x") + "\\n"
        for n in range(number + 1, due + 1)
    ).encode()
    number = due
    while text:
        text = text[os.write(1, text):]
    if rate:
        time.sleep(tick)
    now = time.monotonic()
print(f"wrote {{number}} began {{began}} ended {{time.monotonic()}}", flush=True)
time.sleep(stays)
"""
#: By what its command line has, the name of a program.
PROGRAMS = {
    "app.coordinator.engines.local.runner": "runner",
    "coordinator": "coordinator",
    "serve": "gateway",
    "lines.py": "process",
}


class Api:
    """The API of a stack of one machine, and the folders behind it."""

    def __init__(self, process: psutil.Process, url: str, folder: Path) -> None:
        self.process = process
        self.port = int(url.rpartition(":")[2])
        self.drive = folder / "drive/local"
        self.key = (folder / "api-key").read_text().strip()

    def ask(self, path: str, body: object = None) -> bytes:
        """GET, or POST of a body."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{PREFIX}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            found: bytes = answer.read()
        return found

    def submit(self, *arguments: float) -> str:
        """Submit a job that writes lines; its id."""
        (self.drive / "lines.py").write_text(SCRIPT.format(arguments=arguments))
        body = {
            "name": "lines",
            "training_config": {
                "training_type": "CONTINUED_PRETRAIN",
                "base_model": {"model_id": "none"},
                "framework": {"type": "CUSTOM", "custom_script_path": "scaidrive://local/lines.py"},
            },
            "data_config": {"sources": [{"path": "scaidrive://local/corpus.jsonl"}]},
            "resource_config": {},
        }
        job_id: str = json.loads(self.ask("/jobs", body))["data"]["job_id"]
        return job_id

    def cpu(self) -> dict[tuple[str, int], float]:
        """CPU seconds of the programs that a line goes through, by name and process id."""
        found = {}
        for each in self.process.children(recursive=True):
            with suppress(psutil.NoSuchProcess, OSError):
                words = each.cmdline()
                if names := [PROGRAMS[end] for end in PROGRAMS if _has(words, end)]:
                    found[names[0], each.pid] = cpu_of([each])
        return found


def _has(words: Sequence[str], end: str) -> bool:
    return any(word.endswith(end) for word in words)


@contextmanager
def stack() -> Iterator[Api]:
    """A stack that is ready."""
    with tempfile.TemporaryDirectory(prefix="output-") as folder:
        var = Path(folder, "var")
        settings = {
            "SCAIMIND_DATA_DIR": str(var),
            "SCAIMIND_PORT": "0",
            "SCAIMIND_NO_PROFILE": "1",
        }
        process = subprocess.Popen(
            python("app", "up"), env=environment(settings), stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if ready := re.match(r"Ready: (http://127\.0\.0\.1:\d+)", line):
                    yield Api(psutil.Process(process.pid), ready[1], var)
                    return
            raise RigError("the stack did not start")
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()


def measure(api: Api, rate: int, *, seconds: float, size: int) -> tuple[str, bool]:
    """Run a job; what is told of it, and whether every line came once."""
    before = api.cpu()
    job_id = api.submit(rate, seconds, size, TICK, STAYS)
    endpoint = Endpoint(
        api.process.pid,
        api.port,
        f"{PREFIX}/jobs/{job_id}/logs",
        (f"Authorization: Bearer {api.key}",),
    )
    log = api.drive.parent.parent / "client.log"
    with watching(endpoint, 1, core=max(os.sched_getaffinity(0)), log=log) as watcher:
        watcher.ask("begin")
        wrote = None
        while wrote is None:
            time.sleep(0.2)
            text = api.ask(f"/jobs/{job_id}/logs?follow=false&tail=20").decode()
            wrote = re.search(r"wrote (\d+) began ([\d.]+) ended ([\d.]+)", text)
        number, began, ended = int(wrote[1]), float(wrote[2]), float(wrote[3])
        said = watcher.ask(f"finish {number} {PATIENCE * 1000:.0f}", patience=PATIENCE + 10)
        window = watcher.ask("end")
    cpu: defaultdict[str, float] = defaultdict(float)
    for process, used in api.cpu().items():
        cpu[process[0]] += used - before.get(process, 0.0)
    clean = not (said["holes"] or said["missing_at_end"] or said["doubled"])
    costs = ", ".join(f"{name} {used / number * 1e6:.1f}" for name, used in sorted(cpu.items()))
    wanted = f"{rate:>8,} lines/s" if rate else "all it can     "
    return (
        f"{wanted}: wrote {number:,} in {ended - began:.2f} s, {number / (ended - began):,.0f} a "
        f"second; latency p50 {window['p50_us'] / 1e3:.0f} ms, p99 {window['p99_us'] / 1e3:.0f} "
        f"ms, most {window['max_us'] / 1e3:.0f} ms; CPU us a line: {costs}"
        f"{'' if clean else ': WRONG DELIVERY'}",
        clean,
    )


def main() -> int:
    """Print a line for each rate; 1 if a line was lost or doubled."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rates", type=lambda text: [*map(int, text.split(","))], default=[50_000, 100_000, 0]
    )
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--size", type=int, default=100, help="bytes of a line, with its break")
    given = parser.parse_args()
    good = True
    with stack() as api:
        for rate in given.rates:
            told, clean = measure(api, rate, seconds=given.seconds, size=given.size)
            print(told, flush=True)
            good &= clean
    return int(not good)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RigError as error:
        sys.exit(f"output: {error}")
