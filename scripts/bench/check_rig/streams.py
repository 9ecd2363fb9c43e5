"""Fan-out beside nchan, gzip beside no gzip, and what a feed takes in beside a bare call."""

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from scripts.bench.check_rig.axis import Axis, Family, Measure
from scripts.bench.fanout import rig
from scripts.bench.fanout_rig.client import UNPACKING, compiled, watching
from scripts.bench.fanout_rig.measure import Bench
from scripts.bench.fanout_rig.peers import NCHAN_MODULE
from scripts.bench.fanout_rig.processes import RigError, cpu_of
from scripts.bench.fanout_rig.station import JOINING, Station, entries

WATCHERS = 500
#: Lines a second, and for how many seconds: a few that are written one by one, however busy the
#: machine is, and many that are joined.
ALONE, JOINED, SECONDS = 25, 200, 3.0
#: Entries of a message.
BATCH = 100

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
    with rig() as bench, entries(bench, BATCH) as measure:

        def ratio() -> dict[str, float]:
            cost = measure()
            return {INTAKE: cost.gateway / cost.bare}

        yield ratio


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
