"""Measures what a request costs the gateway, beside the usual way and floors, in one run.

    apt-get install wrk        # the load; as root
    scripts/venv bench         # what the usual way is made of
    .venv/bin/python -m scripts.bench.unary
    .venv/bin/python -m scripts.bench.unary --seconds 1 --rounds 3

Servers run alone on one core, wrk and the coordinator on another. In each round
all are measured in turn; printed is the median of the CPU time of the server's
process tree for a request. `gateway` makes a call of its own for every request, and
logs each; `shared` as many as its defaults make, with 50 clients who ask for the same.
`usual` is FastAPI with pydantic, grpc.aio and MessageToDict (scripts/bench/peers/),
which logs nothing; it runs in an environment of its own (`scripts/venv bench --path`) and
is left out where there is none. The floors are aiohttp
that answers constant bytes, and aiohttp with a bare grpc.aio call. At the end a storm
of 500 clients who each poll once a second, as many times as there are rounds, in turn with
constant bytes, which cost there several times what they do under load. Whatever else runs on
the machine spoils the numbers: its load is printed.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.schemas.jobs import SubmitJobSchema
from scripts.bench.fanout_rig import peers
from scripts.bench.fanout_rig.peers import Endpoint, await_port, free_port
from scripts.bench.fanout_rig.processes import (
    ROOT,
    Cores,
    Dialog,
    RigError,
    cpu_of,
    environment,
    python,
    started,
    tree_of,
)
from scripts.bench.fanout_rig.workloads import JOB
from scripts.bench.peers.coordinator import CHANGED

#: Clients of a question, and of one that takes long: what is begun and not answered when the
#: measurement ends has cost, and counts for nothing.
CLIENTS, FEW_CLIENTS = 50, 8
STORM_CLIENTS, STORM_SECONDS = 500, 5
#: Calls a second of the coordinator, and CPU time of the gateway for a request, in microseconds,
#: that the storm may cost.
STORM_CALLS, STORM_CPU = 50.0, 60.0
PREFIX = "/v1/modules/scaimind"
#: What a request to the usual way has as its token.
TOKEN = "bench-token"  # noqa: S105 - between two processes of one benchmark, on loopback


@dataclass(frozen=True, slots=True)
class Question:
    """A request that is made again and again."""

    name: str
    path: str
    #: JSON that is posted; empty for GET.
    body: str = ""
    clients: int = CLIENTS


JOB_QUESTION = Question("GET job", f"{PREFIX}/jobs/{JOB}")
PAGE_QUESTION = Question("GET 100 jobs", f"{PREFIX}/jobs?page_size=100", clients=FEW_CLIENTS)
QUESTIONS = (
    JOB_QUESTION,
    Question("GET 20 jobs", f"{PREFIX}/jobs?page_size=20", clients=FEW_CLIENTS),
    PAGE_QUESTION,
    # The coordinator's jobs are others in each answer.
    Question(
        "100 changed", f"{PREFIX}/jobs?page_size=100&page_token={CHANGED}", clients=FEW_CLIENTS
    ),
    Question("POST job", f"{PREFIX}/jobs", json.dumps(SubmitJobSchema.EXAMPLE)),
    Question("GET health", "/health"),
)


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


class Rig:
    """The servers, each idle until it is loaded."""

    def __init__(self, servers: dict[str, Endpoint], coordinator: Dialog, cores: Cores) -> None:
        self.servers = servers
        self._coordinator = coordinator
        self._cores = cores

    def measure(
        self, questions: Sequence[Question], *, rounds: int, seconds: int
    ) -> dict[tuple[str, str], Cost]:
        """The median cost by question and server."""
        found: dict[tuple[str, str], list[Cost]] = {}
        for _ in range(rounds):
            for question in questions:
                for name, endpoint in self.servers.items():
                    if question is JOB_QUESTION or name in ("gateway", "usual"):
                        cost = self._loaded(endpoint, question, seconds)
                        found.setdefault((question.name, name), []).append(cost)
        # The middle one, whole: the calls are of the same run.
        return {
            key: sorted(costs, key=lambda cost: cost.each)[len(costs) // 2]
            for key, costs in found.items()
        }

    def _loaded(self, endpoint: Endpoint, question: Question, seconds: int) -> Cost:
        """Have wrk ask, and measure the server."""
        headers = [part for header in endpoint.headers for part in ("-H", header)]
        script = []
        if question.body:
            headers += ["-H", "Content-Type: application/json"]
            script = ["-s", str(_posting(question.body))]
        url = f"http://127.0.0.1:{endpoint.port}{question.path}"
        tree = tree_of(endpoint.pid)
        before, calls = cpu_of(tree), self._calls()
        said = subprocess.run(
            ["wrk", "-t1", f"-c{question.clients}", f"-d{seconds}s", *headers, *script, url],
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {self._cores.load}),
        ).stdout
        used = cpu_of(tree) - before
        if "Non-2xx" in said or (count := re.search(r"(\d+) requests in", said)) is None:
            raise RigError(f"{question.name}: wrk said:\n{said}")
        return Cost(int(count[1]), used, self._calls() - calls)

    def storm(self, name: str) -> Cost:
        """Have many clients poll one job of a server."""
        endpoint = self.servers[name]
        tree = tree_of(endpoint.pid)
        count, (before, calls), (after, all_calls) = asyncio.run(
            _polled(endpoint, measure=lambda: (cpu_of(tree), self._calls()))
        )
        return Cost(count, after - before, all_calls - calls)

    def _calls(self) -> int:
        return sum(self._coordinator.ask("calls").values())


def main() -> int:
    """Print the tables; 1 if the storm costs more than it may."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with rig() as servers:
        costs = servers.measure(QUESTIONS, rounds=given.rounds, seconds=given.seconds)
        storms = [(servers.storm("shared"), servers.storm("constant")) for _ in range(given.rounds)]
    names = list(servers.servers)
    shown = f"{os.getloadavg()[0]:.1f}"
    print(f"us of CPU a request, {FEW_CLIENTS} or {CLIENTS} clients; load of the machine {shown}")
    print(f"{'':14}" + "".join(f"{name:>10}" for name in names))
    for question in QUESTIONS:
        each = (costs.get((question.name, name)) for name in names)
        cells = "".join(f"{'':>10}" if cost is None else f"{cost.each:10.1f}" for cost in each)
        print(f"{question.name:14}{cells}")
    for text, ratio in ratios(costs).items():
        print(f"{text}: {ratio:.2f}")
    for storm, floor in storms:
        ratio = storm.each / floor.each
        print(f"storm, a round: {storm.each:.0f}; constant bytes {floor.each:.0f}: {ratio:.2f}")
    storm, floor = sorted(storms, key=lambda pair: pair[0].each)[len(storms) // 2]
    calls = storm.calls / STORM_SECONDS
    good = calls <= STORM_CALLS and storm.each <= STORM_CPU
    print(
        f"storm: {STORM_CLIENTS} clients poll once a second: {calls:.0f} calls a second "
        f"(to reach: {STORM_CALLS:.0f}), {storm.each:.0f} us of CPU a request "
        f"(to reach: {STORM_CPU:.0f}): {'reached' if good else 'MISSED'}; "
        f"constant bytes cost {floor.each:.0f}, one at a time"
    )
    return int(not good)


def ratios(costs: dict[tuple[str, str], Cost]) -> dict[str, float]:
    """The gateway against the bare call, and the usual way against the gateway."""
    found = {
        "gateway / bare call, GET job": costs[JOB_QUESTION.name, "gateway"].each
        / costs[JOB_QUESTION.name, "call"].each
    }
    for (question, name), cost in costs.items():
        if name == "usual":
            found[f"usual / gateway, {question}"] = cost.each / costs[question, "gateway"].each
    return found


@contextmanager
def rig() -> Iterator[Rig]:
    """All servers, on two cores of this machine: the caller stays on the load's from here on."""
    if shutil.which("wrk") is None:
        raise RigError("wrk is needed: apt-get install wrk")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unary-")))
        cores = Cores.of_this_machine()
        os.sched_setaffinity(0, {cores.load})
        gateway = stack.enter_context(peers.gateway(folder))
        emitter, port = stack.enter_context(_coordinator(folder, cores))
        address = f"127.0.0.1:{port}"
        servers: dict[str, Endpoint] = {}
        for name, shared in (("gateway", "0"), ("shared", "0.02")):
            served = gateway.serving(
                coordinator=address,
                watchers=1,
                core=cores.server,
                log=folder / name,
                settings={
                    "SCAIMIND_UPSTREAM_SHARED_READS": shared,
                    "SCAIMIND_LOG_LEVEL": "info",
                },
            )
            servers[name] = stack.enter_context(served)
        usual = usual_python()
        if usual.exists():
            command = [str(usual), str(ROOT / "scripts/bench/peers/usual.py")]
            served = _peer(command, (address, TOKEN), folder / "usual", cores)
            servers["usual"] = stack.enter_context(served)
        else:
            print(f"no {usual}: scripts/venv bench makes it", file=sys.stderr)
        for name in ("constant", "call"):
            command = python("scripts.bench.fanout_rig.floors", name)
            served = _peer(command, (address,), folder / name, cores)
            servers[name] = stack.enter_context(served)
        yield Rig(servers, emitter, cores)


def usual_python() -> Path:
    """The Python of the usual way's environment, which may not be there."""
    asked = (ROOT / "scripts/venv", "bench", "--path")
    folder = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return Path(folder, "bin/python")


@contextmanager
def _coordinator(folder: Path, cores: Cores) -> Iterator[tuple[Dialog, int]]:
    """What all of them ask; the value has its dialog and port."""
    command = python("scripts.bench.peers.coordinator")
    log = folder / "coordinator"
    with started(command, core=cores.load, log=log, env=environment(), piped=True) as process:
        dialog = Dialog(process, name="coordinator", log=log)
        yield dialog, dialog.hear()["port"]


@contextmanager
def _peer(
    command: list[str], arguments: tuple[str, ...], log: Path, cores: Cores
) -> Iterator[Endpoint]:
    """A server that takes its port and what else it needs as arguments."""
    port = free_port()
    command = [*command, str(port), *arguments]
    with started(command, core=cores.server, log=log, env=environment()) as process:
        await_port(process, port, log)
        yield Endpoint(process.pid, port, "/", (f"Authorization: Bearer {TOKEN}",))


def _posting(body: str) -> Path:
    """A script that has wrk post a body."""
    script = Path(tempfile.gettempdir(), f"unary-post-{os.getpid()}.lua")
    script.write_text(f'wrk.method = "POST"\nwrk.body = {json.dumps(body)}\n')
    return script


async def _polled(
    endpoint: Endpoint, *, measure: Callable[[], tuple[float, int]]
) -> tuple[int, tuple[float, int], tuple[float, int]]:
    """Have many clients poll one job, each once a second at a moment of its own.

    Returns how often they did, and what `measure` returned when all were connected, and when
    they had polled.
    """
    head = "\r\n".join(
        [f"GET {PREFIX}/jobs/{JOB} HTTP/1.1", "Host: bench", *endpoint.headers, "", ""]
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
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    start = asyncio.get_running_loop().time() + 1.0
    async with asyncio.TaskGroup() as polls:
        for number in range(STORM_CLIENTS):
            polls.create_task(poll(number, start + STORM_SECONDS), name=f"poll-{number}")
        await asyncio.sleep(1.0)
        began = measure()
    ended = measure()
    for writer in writers:
        writer.close()
    return count, began, ended


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RigError as error:
        sys.exit(f"unary: {error}")
