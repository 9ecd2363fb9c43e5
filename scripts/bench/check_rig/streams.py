"""Fan-out beside nchan, gzip beside no gzip, and what a feed takes in beside a bare call."""

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.bench.check_rig.axis import Axis, Family, Measure
from scripts.bench.fanout import rig
from scripts.bench.fanout_rig.client import UNPACKING, compiled, watching
from scripts.bench.fanout_rig.measure import Bench
from scripts.bench.fanout_rig.peers import NCHAN_MODULE, Endpoint
from scripts.bench.fanout_rig.processes import (
    Dialog,
    RigError,
    cpu_of,
    environment,
    python,
    started,
    tree_of,
)

WATCHERS = 500
#: Lines a second, and for how many seconds: a few that are written one by one, however busy the
#: machine is, and many that are joined.
ALONE, JOINED, SECONDS = 25, 200, 3.0
#: Joins entries for 50 ms at any load: how many a write has does not follow the machine's speed.
JOINING = {f"SCAIMIND_HUB_FLUSH_{each}": "0.05" for each in ("MIN", "SOON", "MAX")}
#: Entries of a message, entries that are sent at once, and how often.
BATCH, BURST, BURSTS = 100, 5_000, 6
#: Watchers who get errors alone, beside the one who gets every line.
OTHERS = 99
#: Seconds within which the last line arrives on the busiest machine.
PATIENCE = 120

CPU_ALONE = "fan-out, each line alone: CPU"
CPU_JOINED = "fan-out, lines joined: CPU"
LATENCY = "fan-out, each line alone: p50"
GZIP_CPU, GZIP_BYTES = "gzip: CPU", "gzip: bytes"
INTAKE = "intake: CPU"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a delivered line has cost."""

    cpu: float
    bytes: float
    p50: float


@dataclass(frozen=True, slots=True)
class Station:
    """A server with its watchers, idle until lines come."""

    endpoint: Endpoint
    emitter: Dialog
    watchers: Dialog

    def burst(self, count: int) -> int:
        """Send lines at once; the number of the last, which has arrived."""
        last: int = self.emitter.ask(f"emit {count}")["last"]
        self.await_line(last)
        return last

    def await_line(self, last: int) -> None:
        """Wait until every watcher has a line. Raises `RigError` if one was lost or doubled."""
        said = self.watchers.ask(f"finish {last} {PATIENCE * 1000}", patience=PATIENCE + 10)
        wrong = {
            name: said[name]
            for name in ("holes", "missing_at_end", "doubled", "closed", "gap_events")
            if said[name]
        }
        if wrong:
            raise RigError(f"wrong delivery through {self.endpoint.path}: {wrong}")


def costs_of(stations: Sequence[tuple[Station, int]], *, seconds: float) -> list[Cost]:
    """What lines at these rates cost, from the first until every watcher has the last.

    All get theirs at the same time: whatever else the machine does, it does to all of them.
    """
    before = [cpu_of(station.endpoint.tree()) for station, _ in stations]
    for station, rate in stations:
        station.watchers.ask("begin")
        station.emitter.ask(f"start {rate}")
    time.sleep(seconds)
    last = [station.emitter.ask("pause")["last"] for station, _ in stations]
    costs = []
    for (station, _), number in zip(stations, last, strict=True):
        station.await_line(number)
    for (station, _), cpu in zip(stations, before, strict=True):
        window = station.watchers.ask("end")
        costs.append(
            Cost(
                cpu=(cpu_of(station.endpoint.tree()) - cpu) / window["delivered"],
                bytes=window["bytes"] / window["delivered"],
                p50=window["p50_us"],
            )
        )
    return costs


@contextmanager
def station(
    bench: Bench, peer: str, *, settings: Mapping[str, str] | None = None
) -> Iterator[Station]:
    """A server, its emitter and its watchers."""
    with (
        bench.serving(peer, WATCHERS, settings=settings) as (endpoint, emitter, log),
        watching(endpoint, WATCHERS, core=bench.cores.load, log=log / "client") as watchers,
    ):
        yield Station(endpoint, emitter, watchers)


@contextmanager
def fan_out() -> Iterator[Measure]:
    """The gateway that writes each line alone, two that join them, and nchan."""
    with rig() as bench, ExitStack() as stack:
        stations = [
            (stack.enter_context(station(bench, peer, settings=settings)), rate)
            for peer, settings, rate in (
                ("gateway", None, ALONE),
                ("nchan", None, ALONE),
                ("gateway", JOINING, JOINED),
                ("gzip", JOINING, JOINED),
            )
        ]
        costs_of(stations, seconds=1.0)

        def measure() -> dict[str, float]:
            ours, theirs, together, zipped = costs_of(stations, seconds=SECONDS)
            return {
                CPU_ALONE: ours.cpu / theirs.cpu,
                CPU_JOINED: together.cpu / theirs.cpu,
                LATENCY: ours.p50 / theirs.p50,
                GZIP_CPU: zipped.cpu / together.cpu,
                GZIP_BYTES: zipped.bytes / together.bytes,
            }

        yield measure


@contextmanager
def intake() -> Iterator[Measure]:
    """A gateway and a bare call, which read the same messages at the same time."""
    with (
        rig() as bench,
        bench.serving("gateway", 1 + OTHERS, batch=BATCH, settings=JOINING) as opened,
        _intake_of(bench, *opened) as measure,
    ):
        yield measure


@contextmanager
def _intake_of(bench: Bench, endpoint: Endpoint, emitter: Dialog, log: Path) -> Iterator[Measure]:
    core, command = bench.cores.load, python("scripts.bench.fanout_rig.reader")
    command.append(endpoint.coordinator)
    others = replace(endpoint, path=f"{endpoint.path}&level=ERROR")
    with (
        watching(others, OTHERS, core=core, log=log / "others"),
        watching(endpoint, 1, core=core, log=log / "watcher") as watcher,
        started(
            command, core=bench.cores.server, log=log / "reader", env=environment(), piped=True
        ) as process,
    ):
        reader = Dialog(process, name="reader", log=log / "reader")
        reader.hear()
        served = Station(endpoint, emitter, watcher)
        bare = tree_of(process.pid)
        for _ in range(2 * BURSTS):
            served.burst(BURST)

        def measure() -> dict[str, float]:
            tree = endpoint.tree()
            before, before_bare = cpu_of(tree), cpu_of(bare)
            for _ in range(BURSTS):
                last = served.burst(BURST)
                reader.ask(f"read {last}", patience=PATIENCE)
            return {INTAKE: (cpu_of(tree) - before) / (cpu_of(bare) - before_bare)}

        yield measure


def lacks_nchan() -> str:
    """What the fan-out needs and is not there."""
    if shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin") is None:
        return "nginx"
    return lacks_compiler() if NCHAN_MODULE.exists() else "nchan (libnginx-mod-nchan)"


def lacks_compiler() -> str:
    """What the load client needs and is not there."""
    try:
        compiled()
        compiled(UNPACKING)
    except (RigError, subprocess.CalledProcessError):
        return "a C compiler with zlib's headers (gcc libc6-dev zlib1g-dev)"
    return ""


FAMILIES = (
    Family(
        "fan-out",
        (
            Axis(CPU_ALONE, "a delivery of the gateway / of nchan"),
            Axis(CPU_JOINED, "a delivery of the gateway / of nchan, which joins none", 0.4),
            Axis(LATENCY, "the gateway's median latency / nchan's", judged=False),
            Axis(GZIP_CPU, "a delivery in gzip / as it is, lines joined"),
            # Watchers who fall behind on a busy machine share less. Without gzip it would be 1.
            Axis(GZIP_BYTES, "a delivery in gzip / as it is, lines joined", 1.0),
        ),
        fan_out,
        lacks_nchan,
    ),
    Family(
        "intake",
        (Axis(INTAKE, f"an entry with 100 watchers / read by a bare call, {BATCH} a message"),),
        intake,
        lacks_compiler,
    ),
)
