"""Measures what it costs to fan one job's log out to many watchers, against two peers.

In one run: the gateway end to end (real gRPC coordinator, real PostgreSQL for
its key, real sockets), the same in gzip (`gzip`) and as one of
two gateways behind nginx (`balanced`, on one core together), its stream over
many jobs of which one prints the lines (`events`), nchan (nginx's module, one worker,
fed over HTTP) and the plain way (an aiohttp-sse handler with an upstream stream per watcher).
Servers run alone on one core; coordinator, publisher and load client on
another. CPU time is that of the server's process tree in the measured
interval; latency runs from the line's birth in the coordinator to its receipt
by the watcher; and every watcher checks that it got every line, once and in
order. The plain way saturates far below the workloads, so it is measured once
with 100 watchers at 50 lines/s and compared per delivery.

    .venv/bin/python -m scripts.bench.fanout
    .venv/bin/python -m scripts.bench.fanout --workload W2 --peers gateway,nchan --seconds 5
    .venv/bin/python -m scripts.bench.fanout --peers gateway,nchan --seconds 4 --rounds 5
    .venv/bin/python -m scripts.bench.fanout --memory

Exits with 1 when a line was lost or doubled; no time is asserted. Whatever else
runs on the machine spoils the numbers: it is measured and told, and a higher
priority (`nice -n -10`, as root) keeps most of it away.
"""

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from scripts.bench.fanout_rig import peers
from scripts.bench.fanout_rig.measure import Bench, Idle, Result, median_of
from scripts.bench.fanout_rig.processes import Cores, RigError
from scripts.bench.fanout_rig.report import as_json, as_text
from scripts.bench.fanout_rig.workloads import IDLE_WATCHERS, PLAIN, WORKLOADS

PEERS = ("gateway", "gzip", "balanced", "events", "nchan", "plain")
#: Those that run unless others are asked for.
DEFAULT_PEERS = ("gateway", "events", "nchan", "plain")
#: Those that are this gateway.
OURS = frozenset({"gateway", "gzip", "balanced", "events"})
FAULT_WATCHERS = 5


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workload", type=_some_of(tuple(WORKLOADS)), default=tuple(WORKLOADS), metavar="W1,W2"
    )
    parser.add_argument(
        "--peers", type=_some_of(PEERS), default=DEFAULT_PEERS, metavar="gateway,nchan"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="measured interval")
    parser.add_argument(
        "--rounds", type=int, default=1, help="runs, one after the other; printed are the medians"
    )
    parser.add_argument("--warm-up", type=float, default=2.5, help="seconds of load before it")
    parser.add_argument(
        "--memory", action="store_true", help=f"measure {IDLE_WATCHERS:,} idle watchers instead"
    )
    parser.add_argument(
        "--self-test", action="store_true", help="see that a lost and a doubled line are found"
    )
    parser.add_argument(
        "--stalled",
        type=int,
        default=0,
        metavar="N",
        help="measure the gateway twice: without and with N further watchers that do not read",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


def main() -> int:
    """Runs what was asked for; the process's exit status."""
    asked = arguments()
    # Everything that was started is stopped on this way out as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    needs_gateway = bool(OURS & set(asked.peers)) and not asked.self_test
    with rig(with_gateway=needs_gateway) as bench:
        if asked.self_test:
            return _self_test(bench)
        results: list[Result] = []
        idles: list[Idle] = []
        if asked.memory:
            idles = [_idle(bench, peer) for peer in asked.peers if peer != "plain"]
        elif asked.stalled:
            results = _beside_stalled(bench, asked)
        else:
            results = _windows(bench, asked)
    if asked.json:
        print(json.dumps(as_json(results, idles, rounds=asked.rounds), indent=2))
    else:
        print(as_text(results, idles))
    verdicts = [result.verdict for result in results] + [idle.verdict for idle in idles]
    return 0 if all(verdict.clean for verdict in verdicts) else 1


@contextmanager
def rig(*, with_gateway: bool = True) -> Iterator[Bench]:
    """What measures, on two cores of this machine: the caller stays on the load's from here on."""
    _raise_descriptor_limit()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fanout-")))
        cores = Cores.of_this_machine()
        # What is not put onto the server's core on purpose stays off it.
        os.sched_setaffinity(0, {cores.load})
        gateway = None
        if with_gateway:
            _say("starting PostgreSQL for the gateway's key")
            gateway = stack.enter_context(peers.gateway(folder))
        yield Bench(cores=cores, folder=folder, gateway=gateway)


def _windows(bench: Bench, asked: argparse.Namespace) -> list[Result]:
    runs = [
        (WORKLOADS[name], peer)
        for name in asked.workload
        for peer in asked.peers
        if peer != "plain"
    ]
    if "plain" in asked.peers:
        runs.append((PLAIN, "plain"))
    rounds: list[list[Result]] = [[] for _ in runs]
    for _ in range(asked.rounds):
        for (workload, peer), results in zip(runs, rounds, strict=True):
            load = f"{workload.watchers:,} watchers at {workload.rate:,} lines/s"
            _say(f"{workload.name} {peer}: {load}")
            results.append(
                bench.window(peer, workload, warm_up=asked.warm_up, seconds=asked.seconds)
            )
    return [median_of(results) for results in rounds]


def _beside_stalled(bench: Bench, asked: argparse.Namespace) -> list[Result]:
    results: list[Result] = []
    for name in asked.workload:
        for stalled in (0, asked.stalled):
            _say(f"{name} gateway, {stalled} stalled watchers beside it (row {len(results) + 1})")
            results.append(
                bench.window(
                    "gateway",
                    WORKLOADS[name],
                    warm_up=asked.warm_up,
                    seconds=asked.seconds,
                    stalled=stalled,
                )
            )
    return results


def _idle(bench: Bench, peer: str) -> Idle:
    _say(f"{peer}: {IDLE_WATCHERS:,} idle watchers")
    return bench.idle(peer, IDLE_WATCHERS)


def _self_test(bench: Bench) -> int:
    """Each fault must be found by every watcher, and no fault where there is none."""
    none = bench.faulty(None, watchers=FAULT_WATCHERS)
    hole = bench.faulty("hole", watchers=FAULT_WATCHERS)
    double = bench.faulty("double", watchers=FAULT_WATCHERS)
    found = (
        none.clean
        and (hole.lost, hole.doubled) == (FAULT_WATCHERS, 0)
        and (double.lost, double.doubled) == (0, FAULT_WATCHERS)
    )
    print(f"without a fault: {none}\nwith a line left out: {hole}\nwith a line twice: {double}")
    print("every fault was found" if found else "the checks FAIL to find faults")
    return 0 if found else 1


def _some_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return names

    return parse


def _raise_descriptor_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RigError as error:
        sys.exit(f"fanout: {error}")
