"""Measures how far one replica goes on this machine, and how many a number of watchers needs.

A replica is one process that uses one core. It is loaded with watchers of one
job at several rates; from its CPU time per delivery follows how many watchers
it serves with a share of the core to spare, and from idle watchers what they
cost in memory and what it costs to let one in. The table below that derives
replicas for given numbers of watchers, and says what bounds each.

    .venv/bin/python -m scripts.bench.capacity
    .venv/bin/python -m scripts.bench.capacity --lines 20 --watchers 1000,50000

Two cores, a C compiler, and nothing else running: other processes spoil it,
which is measured and told. No figure is asserted.
"""

import argparse
import itertools
import math
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from app.hub.settings import HubSettings
from scripts.bench.fanout_rig import peers
from scripts.bench.fanout_rig.measure import Bench, Idle, Result
from scripts.bench.fanout_rig.processes import Cores, RigError
from scripts.bench.fanout_rig.report import notes_of
from scripts.bench.fanout_rig.workloads import Workload

#: Watchers of the loaded replica, and the rates of the log that they watch.
LOADED = 2000
RATES = (1, 5, 20, 100)
IDLE = 5000
#: Share of its core that a replica is planned to use: the rest is for joining and for bursts.
SHARE = 0.7
#: Over how many seconds the watchers of a replica that stops come back.
WAVE = HubSettings().drain_spread
LIMIT = HubSettings().max_watchers
HISTORY = HubSettings().history_bytes_total
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Replica:
    """What one replica costs on this machine."""

    loads: Sequence[Result]
    idle: Idle

    def cpu_per_second(self, lines: float) -> float:
        """CPU seconds that a watcher takes in a second at a rate of lines, interpolated."""
        points = [(0.0, 0.0), *((r.workload.rate, r.cpu_us * r.workload.rate) for r in self.loads)]
        for (low, cost), (high, dearer) in itertools.pairwise(points):
            if lines <= high:
                return (cost + (dearer - cost) * (lines - low) / (high - low)) / 1e6
        rate, cost = points[-1]
        return cost * lines / rate / 1e6

    def bounds(self, lines: float, memory: int) -> dict[str, float]:
        """How many watchers each resource of one replica is enough for."""
        return {
            "core": SHARE / self.cpu_per_second(lines),
            # The kernel's own part of a socket, a few KiB, is not in what was measured.
            "memory": (memory * SHARE - self.idle.before - HISTORY) / self.idle.after_lines,
            "SCAIMIND_HUB_MAX_WATCHERS": LIMIT,
        }


def main() -> int:
    """Measures and prints; the process's exit status."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="capacity-")))
        cores = Cores.of_this_machine()
        os.sched_setaffinity(0, {cores.load})
        bench = Bench(
            cores=cores, folder=folder, gateway=stack.enter_context(peers.gateway(folder))
        )
        loads = []
        for rate in RATES:
            _say(f"{LOADED:,} watchers at {rate} lines/s")
            workload = Workload(f"{rate}/s", LOADED, rate)
            loads.append(bench.window("gateway", workload, warm_up=2.5, seconds=asked.seconds))
        _say(f"{IDLE:,} idle watchers")
        replica = Replica(loads, bench.idle("gateway", IDLE))
    print(_measured(replica))
    print(_derived(replica, asked.watchers, asked.lines, asked.memory * MIB))
    verdicts = [*(load.verdict for load in loads), replica.idle.verdict]
    return 0 if all(verdict.clean for verdict in verdicts) else 1


def _measured(replica: Replica) -> str:
    lines = [
        f"{'lines/s':>8}{'watchers':>10}{'deliveries/s':>14}{'us/delivery':>13}{'core':>7}"
        f"{'p99 ms':>8}{'deliveries/s per core':>23}{'watchers per core':>19}"
    ]
    for load in replica.loads:
        lines.append(
            f"{load.workload.rate:>8}{load.workload.watchers:>10,}"
            f"{load.delivered / load.seconds:>14,.0f}{load.cpu_us:>13.2f}{load.share:>7.0%}"
            f"{load.p99_ms:>8.1f}{1e6 / load.cpu_us:>23,.0f}"
            f"{SHARE * 1e6 / load.cpu_us / load.workload.rate:>19,.0f}"
        )
        lines += [f"  {note}" for note in notes_of(load)]
    idle = replica.idle
    lines.append(
        f"memory: {idle.before / MIB:.0f} MiB and {idle.after_lines / 1024:.1f} KiB for each "
        f"watcher; joining: {idle.join_us:.0f} us, so {1e6 / idle.join_us:,.0f} a second and core"
    )
    lines.append(f"'watchers per core' leaves {1 - SHARE:.0%} of the core free.\n")
    return "\n".join(lines)


def _derived(replica: Replica, watchers: Sequence[int], lines: float, memory: int) -> str:
    bounds = replica.bounds(lines, memory)
    bounded_by = min(bounds, key=lambda name: bounds[name])
    each = int(bounds[bounded_by])
    rows = [
        f"With {lines:g} lines/s for each watcher and {memory // MIB} MiB, a replica serves "
        f"{each:,} watchers; what gives first is: {bounded_by}.",
        *(f"  {name}: {bound:,.0f}" for name, bound in bounds.items()),
        f"{'watchers':>10}{'replicas':>10}{'joins/s of each other one when one stops':>42}",
    ]
    for count in watchers:
        # Two at least, so that one can stop; and one more than is needed, for the same reason.
        replicas = max(math.ceil(count / each), 1) + 1
        joins = count / replicas / (replicas - 1) / WAVE
        rows.append(f"{count:>10,}{replicas:>10,}{joins:>42,.0f}")
    return "\n".join(rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="measured interval")
    parser.add_argument("--lines", type=float, default=5.0, help="lines/s that a watcher gets")
    parser.add_argument("--memory", type=int, default=768, help="MiB that a replica may take")
    parser.add_argument(
        "--watchers",
        type=lambda text: [int(each) for each in text.split(",")],
        default=[1_000, 100_000, 1_000_000],
        metavar="N,N",
    )
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RigError as error:
        sys.exit(f"capacity: {error}")
