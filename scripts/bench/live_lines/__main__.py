"""How long a line is on its way to a watcher, from a Ray cluster and from one machine.

    .venv/bin/python -m scripts.bench.live_lines [--jobs 10] [--rounds 3] [--hops]

A head and three workers run on this machine, as in tests/cluster, in the
environment of `scripts/venv ray`. Once all jobs of both engines run, each with a
coordinator of its own, the jobs of one write 20 lines a second with the time, for a
second, and then those of the other, in turns; a watcher of the coordinator's own for
each compares the time with its clock. The target: the median of
the cluster's is at most twice that of one machine, in the middle of the rounds.

With --hops, the programs note when a line passes them, and what each hop took
is printed, too. The notes take some of the time themselves.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Final

from generated.mindcoordinator.v1.cluster_pb2 import ListNodesRequest
from scripts.bench.live_lines.hops import Note, hooked, read_notes
from scripts.bench.live_lines.report import Seen, table
from tests.cluster.coordinators import client, coordinator
from tests.cluster.rig import RayCluster, ray_cluster, ray_python
from tests.coordinator.harness import Client

LIMIT: Final = 2.0
LINES: Final = 20
BURSTS: Final = 8
PORT: Final = 26579
ENGINES: Final = ("ray", "local")
SCRIPT: Final = f"""
import os, time
print("ready", flush=True)
for burst in range({BURSTS}):
    while not os.path.exists(os.environ["SCAIMIND_CHECKPOINT_DIR"] + f"/go-{{burst}}"):
        time.sleep(0.05)
    for number in range({LINES}):
        time.sleep(0.05)
        print("at", time.time_ns(), flush=True)
"""


class Jobs:
    """The jobs of one engine, and their watchers."""

    def __init__(self, user: Client, count: int) -> None:
        self._user = user
        self._count = count
        self._job_ids: list[str] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._ready = asyncio.Barrier(count + 1)
        self._whole = asyncio.Event()
        #: What the watchers have got.
        self.lines: list[Seen] = []

    async def start(self) -> None:
        """Submit them, and wait until all run."""
        self._job_ids = [await self._user.submit(SCRIPT) for _ in range(self._count)]
        self._watchers = [
            asyncio.create_task(self._watch(each), name=f"watcher of {each}")
            for each in self._job_ids
        ]
        await self._ready.wait()

    async def burst(self, number: int) -> None:
        """Have them write, and wait for all of it."""
        self._whole.clear()
        await asyncio.to_thread(self._go, number)
        await self._whole.wait()

    async def end(self) -> None:
        """Wait for their ends."""
        await asyncio.gather(*self._watchers)

    async def _watch(self, job_id: str) -> None:
        async for message in self._user.watch(job_id):
            now = time.time_ns()
            if any(entry.message == "ready" for entry in message.logs):
                await self._ready.wait()
            self.lines.extend(
                Seen(
                    job_id,
                    entry.offset,
                    written=int(entry.message.split()[1]),
                    read=entry.timestamp.ToNanoseconds(),
                    seen=now,
                )
                for entry in message.logs
                if entry.message.startswith("at ")
            )
            if self.lines and len(self.lines) % (self._count * LINES) == 0:
                self._whole.set()

    def _go(self, number: int) -> None:
        for job_id in self._job_ids:
            jobs = self._user.drive / self._user.tenant / "jobs"
            (jobs / job_id / "checkpoints" / f"go-{number}").touch()


def main() -> int:
    """Print milliseconds and their ratio; 1 if the target is missed."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hops", action="store_true", help="print what each hop took")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder, data, hook, notes = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir="/tmp")))
            for prefix in ("ray", "live-lines-", "hook-", "notes-")
        )
        paths = (hooked(hook, notes),) if given.hops else ()
        cluster = stack.enter_context(
            ray_cluster(ray_python(), folder, port=PORT, workers=3, paths=paths)
        )
        found = asyncio.run(_measured(cluster, data, given.jobs, given.rounds))
        memory = cluster.memory()
        noted = list(read_notes(notes))
    print(f"{given.jobs} jobs, {20 * given.jobs} lines a second, ms from the job to a watcher:")
    for engine in ENGINES:
        delays = [line.delay for lines in found[engine] for line in lines]
        p50, p90, p99 = (statistics.quantiles(delays, n=100)[at - 1] for at in (50, 90, 99))
        print(f"  {engine:5}  p50 {p50:6.2f}  p90 {p90:6.2f}  p99 {p99:7.2f}  {len(delays)} lines")
    ratios = [
        _median(ray) / _median(local)
        for ray, local in zip(*(found[engine] for engine in ENGINES), strict=True)
    ]
    ratio = statistics.median(ratios)
    rounds = ", ".join(f"{each:.2f}" for each in ratios)
    print(f"  p50 of ray to local: {ratio:.2f} times (target: {LIMIT:g}; by round: {rounds})")
    if given.hops:
        _print_hops(found, noted)
    started = ", ".join(f"{name} {took:.0f} s" for name, took in cluster.started_in.items())
    print(f"the cluster: {memory / 1e6:.0f} MB without runs; started in: {started}")
    return int(ratio > LIMIT)


def _median(lines: Sequence[Seen]) -> float:
    return statistics.median(line.delay for line in lines)


def _print_hops(found: dict[str, list[list[Seen]]], notes: Sequence[Note]) -> None:
    for engine in ENGINES:
        print(f"{engine}, us that a hop took, the middle:")
        lines = [line for each in found[engine] for line in each]
        for label, took in table(engine, lines, notes):
            print(f"  {took:6.0f}  {label}")


async def _measured(
    cluster: RayCluster, data: Path, jobs: int, rounds: int
) -> dict[str, list[list[Seen]]]:
    """Return the lines of each round."""
    found: dict[str, list[list[Seen]]] = {engine: [] for engine in ENGINES}
    for number in range(rounds):
        async with AsyncExitStack() as stack:
            each = {}
            for engine in ENGINES:
                path = data / f"{engine}-{number}"
                running = await stack.enter_async_context(coordinator(cluster, path, engine=engine))
                user = await stack.enter_async_context(client(running, path))
                await _until_online(user, 3 if engine == "ray" else 1)
                each[engine] = Jobs(user, jobs)
                await each[engine].start()
            for burst in range(BURSTS):
                for engine in ENGINES:
                    await each[engine].burst(burst)
            for engine in ENGINES:
                await each[engine].end()
                found[engine].append(each[engine].lines)
        await asyncio.to_thread(cluster.end_actors)
    return found


async def _until_online(user: Client, nodes: int) -> None:
    while True:
        answer = await user.call("ListNodes", ListNodesRequest(status_filter="ONLINE"))
        if len(answer.nodes) >= nodes:
            return
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
