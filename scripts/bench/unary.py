"""Measures what a request costs the gateway, beside floors under it, in one run.

    apt-get install wrk        # the load; as root
    .venv/bin/python -m scripts.bench.unary
    .venv/bin/python -m scripts.bench.unary --seconds 2 --rounds 3

Servers run alone on one core, wrk and the coordinator on another. In each round
all are measured in turn; printed is the median of the CPU time of the server's
process tree for a request. `gateway` has reads of its own for every request,
`shared` as many as its defaults make, with 50 clients who poll one job; the
floors are aiohttp that answers constant bytes, and aiohttp with a bare grpc.aio
call. The calls that the coordinator got are counted, and a storm of 500 clients
who each poll once a second is made at the end. Whatever else runs on the machine
spoils the numbers: its load is printed.
"""

import argparse
import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.fanout_rig import peers
from scripts.bench.fanout_rig.peers import Endpoint, await_port, free_port
from scripts.bench.fanout_rig.processes import (
    Cores,
    Dialog,
    RigError,
    environment,
    python,
    started,
    tree_of,
    usage_of,
)
from scripts.bench.fanout_rig.workloads import JOB

CLIENTS = 50
STORM_CLIENTS, STORM_SECONDS = 500, 5
#: Calls a second of the coordinator, and CPU time of the gateway for a request, in microseconds,
#: that the storm may cost.
STORM_CALLS, STORM_CPU = 50.0, 60.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What requests have cost."""

    requests: int
    #: CPU seconds of the server.
    cpu: float
    #: Calls that the coordinator got.
    calls: int

    @property
    def each(self) -> float:
        """Microseconds of CPU time for a request."""
        return self.cpu / max(self.requests, 1) * 1e6


def main() -> int:
    """Print the table and the storm; 1 if the storm costs more than it may."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        raise RigError("wrk is needed: apt-get install wrk")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unary-")))
        cores = Cores.of_this_machine()
        os.sched_setaffinity(0, {cores.load})
        gateway = stack.enter_context(peers.gateway(folder))
        emitter, port = stack.enter_context(coordinator(folder, cores))
        address = f"127.0.0.1:{port}"
        servers: dict[str, Endpoint] = {}
        for name, shared in (("gateway", "0"), ("shared", "0.02")):
            os.environ["SCAIMIND_UPSTREAM_SHARED_READS"] = shared
            served = gateway.serving(
                coordinator=address, watchers=1, core=cores.server, log=folder / name
            )
            servers[name] = stack.enter_context(served)
        for name in ("constant", "call"):
            servers[name] = stack.enter_context(floor(name, address, folder, cores))
        costs: dict[str, list[Cost]] = {name: [] for name in servers}
        for _ in range(given.rounds):
            for name, endpoint in servers.items():
                path = f"/v1/modules/scaimind/jobs/{JOB}"
                costs[name].append(loaded(endpoint, path, emitter, cores, given.seconds))
        print(f"load of the machine: {os.getloadavg()[0]:.1f}; GET /jobs/{{id}}, {CLIENTS} clients")
        for name, found in costs.items():
            each = statistics.median(cost.each for cost in found)
            calls = sum(cost.calls for cost in found) / sum(cost.requests for cost in found)
            print(f"{name:10} {each:7.1f} us of CPU a request, {calls:.3f} calls a request")
        storm = asyncio.run(polled(servers["shared"], emitter))
    calls_a_second = storm.calls / STORM_SECONDS
    good = calls_a_second <= STORM_CALLS and storm.each <= STORM_CPU
    print(
        f"storm: {STORM_CLIENTS} clients poll once a second: {calls_a_second:.0f} calls a second "
        f"(to reach: {STORM_CALLS:.0f}), {storm.each:.0f} us of CPU a request "
        f"(to reach: {STORM_CPU:.0f}): {'reached' if good else 'MISSED'}"
    )
    return int(not good)


@contextmanager
def coordinator(folder: Path, cores: Cores) -> Iterator[tuple[Dialog, int]]:
    """The rig's coordinator; the value has its dialog and port."""
    command = python("scripts.bench.fanout_rig.emitter", "--jobs", "1")
    log = folder / "emitter"
    with started(command, core=cores.load, log=log, env=environment(), piped=True) as process:
        dialog = Dialog(process, name="emitter", log=log)
        yield dialog, dialog.hear()["port"]


@contextmanager
def floor(kind: str, address: str, folder: Path, cores: Cores) -> Iterator[Endpoint]:
    """What lies under every gateway."""
    port = free_port()
    command = python("scripts.bench.fanout_rig.floors", kind, str(port), address)
    log = folder / kind
    with started(command, core=cores.server, log=log, env=environment()) as process:
        await_port(process, port, log)
        yield Endpoint(process.pid, port, "/")


def loaded(endpoint: Endpoint, path: str, emitter: Dialog, cores: Cores, seconds: int) -> Cost:
    """Have wrk ask for a path, and measure it."""
    headers = [part for header in endpoint.headers for part in ("-H", header)]
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", *headers]
    tree = tree_of(endpoint.pid)
    before, calls = usage_of(tree), emitter.ask("calls")["get_job"]
    said = subprocess.run(
        [*command, f"http://127.0.0.1:{endpoint.port}{path}"],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {cores.load}),
    ).stdout
    used = usage_of(tree).since(before).total
    if "Non-2xx" in said or (found := re.search(r"(\d+) requests in", said)) is None:
        raise RigError(f"wrk said:\n{said}")
    return Cost(int(found[1]), used, emitter.ask("calls")["get_job"] - calls)


async def polled(endpoint: Endpoint, emitter: Dialog) -> Cost:
    """Have many clients poll one job, each once a second at a moment of its own."""
    head = "\r\n".join(
        [f"GET /v1/modules/scaimind/jobs/{JOB} HTTP/1.1", "Host: bench", *endpoint.headers, "", ""]
    ).encode()
    count = 0

    async def poll(number: int, until: float) -> None:
        nonlocal count
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        due = start + number / STORM_CLIENTS
        while due < until:
            await asyncio.sleep(max(due - loop.time(), 0))
            writer.write(head)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RigError(f"a poll was answered {answer!r}")
            length = re.search(rb"(?i)content-length: (\d+)", answer)
            assert length is not None
            await reader.readexactly(int(length[1]))
            count += 1
            due += 1.0
        writer.close()

    start = asyncio.get_running_loop().time() + 1.0
    tree = tree_of(endpoint.pid)
    calls = emitter.ask("calls")["get_job"]
    polls = [
        asyncio.create_task(poll(number, start + STORM_SECONDS)) for number in range(STORM_CLIENTS)
    ]
    await asyncio.sleep(1.0)
    before = usage_of(tree)
    await asyncio.gather(*polls)
    used = usage_of(tree).since(before).total
    return Cost(count, used, emitter.ask("calls")["get_job"] - calls)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RigError as error:
        sys.exit(f"unary: {error}")
