"""Measures what a feed takes in, and how live watchers fare beside those that read an old log.

    .venv/bin/python -m scripts.bench.ingest
    .venv/bin/python -m scripts.bench.ingest --seconds 2 --rates 50000 --replays 3

A scripted coordinator sends its lines in the batches in which they are due. `taken in`: at
some rates, with one watcher that gets every line and 99 that get errors alone; printed is what
reached the first, the gateway's CPU time for an entry, and the part of its core. `in messages`:
the same CPU time where entries come in messages of so many, and that of a process which only reads
the stream, the floor. `live`: 20
watchers of a line every 20 ms, while so many others read 20,000 lines again and again, each
from a place of its own; printed is their latency, and how many times the quiet one it is.
Two cores and a C compiler; whatever else runs on the machine spoils the numbers. Exits with 1
when a line was lost or doubled, and when the latency beside others is twice the quiet one.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from scripts.bench.fanout import rig
from scripts.bench.fanout_rig.client import watching
from scripts.bench.fanout_rig.measure import Bench, verdict_of
from scripts.bench.fanout_rig.peers import Endpoint
from scripts.bench.fanout_rig.processes import (
    RigError,
    environment,
    python,
    started,
    tree_of,
    usage_of,
)
from scripts.bench.fanout_rig.station import OTHERS, entries

LIVE, LIVE_RATE = 20, 50
#: Lines of the old log, and how many fewer each further reader begins with.
OLD_LINES, APART = 20_000, 100
WARM_UP = 2.0
#: Times that each number of entries in a message is measured.
ROUNDS = 5
#: Times the quiet latency that live watchers may have beside others.
TARGET = 2.0


@dataclass(frozen=True, slots=True)
class Intake:
    """What was taken in at a rate."""

    rate: int
    #: Lines a second that reached the watcher.
    reached: float
    #: Microseconds of CPU time for each, and share of the core.
    each: float
    share: float
    clean: bool


@dataclass(frozen=True, slots=True)
class Beside:
    """The latency of live watchers beside so many others, in milliseconds."""

    replays: int
    p50: float
    p99: float


def intake(bench: Bench, rate: int, *, seconds: float) -> Intake:
    """Measure a rate."""
    with bench.serving("gateway", 1 + OTHERS) as (endpoint, emitter, log):
        filtered = replace(endpoint, path=f"{endpoint.path}&level=ERROR")
        core = bench.cores.load
        with (
            watching(filtered, OTHERS, core=core, log=log / "others"),
            watching(endpoint, 1, core=core, log=log / "watcher") as watcher,
        ):
            emitter.ask(f"start {rate}")
            time.sleep(WARM_UP)
            tree = tree_of(endpoint.pid)
            watcher.ask("begin")
            before = usage_of(tree)
            time.sleep(seconds)
            used = usage_of(tree).since(before).total
            window = watcher.ask("end")
            verdict = verdict_of(watcher, emitter)
    delivered = max(window["delivered"], 1)
    return Intake(
        rate=rate,
        reached=delivered / window["wall_s"],
        each=used / delivered * 1e6,
        share=used / window["wall_s"],
        clean=verdict.clean,
    )


def beside(bench: Bench, replays: Sequence[int], *, seconds: float) -> list[Beside]:
    """Measure live watchers beside each of these numbers of others, one after the other."""
    found = []
    with bench.serving("gateway", LIVE + max(replays)) as (endpoint, emitter, log):
        emitter.ask(f"start {OLD_LINES // 2}")
        time.sleep(2.5)
        emitter.ask("stop")
        for number, count in enumerate(replays):
            client = log / f"watchers-{number}"
            with watching(endpoint, LIVE, core=bench.cores.load, log=client) as live:
                emitter.ask(f"start {LIVE_RATE}")
                with reading(bench, endpoint, count, log / f"readers-{number}"):
                    time.sleep(WARM_UP)
                    live.ask("begin")
                    time.sleep(seconds)
                    window = live.ask("end")
                emitter.ask("stop")
            found.append(Beside(count, window["p50_us"] / 1000, window["p99_us"] / 1000))
    return found


@contextmanager
def reading(bench: Bench, endpoint: Endpoint, count: int, log: Path) -> Iterator[None]:
    """A process with so many readers of the old log."""
    path, header = endpoint.path.partition("?")[0], endpoint.headers[0]
    command = [*python("scripts.bench.ingest", "--read"), str(endpoint.port), path, header]
    with started([*command, str(count)], core=bench.cores.load, log=log, env=environment()):
        yield


async def read(port: int, path: str, header: str, count: int) -> None:
    """Read the old log with so many connections, again and again, until stopped."""

    async def one(number: int) -> None:
        while True:
            lines = OLD_LINES - number * APART
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"GET {path}?tail={lines} HTTP/1.1\r\nHost: bench\r\n{header}\r\n\r\n"
            writer.write(head.encode())
            # A line has 200 characters, and more around them.
            left = lines * 300
            while left > 0 and (data := await reader.read(1 << 18)):
                left -= len(data)
            writer.close()

    async with asyncio.TaskGroup() as readers:
        for number in range(count):
            readers.create_task(one(number), name=f"reader-{number}")


def ratio(found: Sequence[Beside]) -> float:
    """Times the quiet latency that live watchers have in the median, beside the most others."""
    quiet = median(each.p50 for each in found if not each.replays)
    return max(each.p50 for each in found) / quiet


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(",") if each)


def main() -> int:
    """Print the tables."""
    if sys.argv[1:2] == ["--read"]:
        port, path, header, count = sys.argv[2:]
        asyncio.run(read(int(port), path, header, int(count)))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rates", type=_numbers, default=(50_000, 100_000, 150_000))
    parser.add_argument("--batches", type=_numbers, default=(1, 10, 100, 1_000))
    parser.add_argument("--replays", type=_numbers, default=(3, 10, 30, 50))
    given = parser.parse_args()
    with rig() as bench:
        for batch in given.batches:
            with entries(bench, batch) as measure:
                costs = [measure() for _ in range(ROUNDS)]
            ours, bare = median(c.gateway for c in costs), median(c.bare for c in costs)
            print(
                f"in messages of {batch:>5,}: {ours * 1e6:.1f} us an entry, {bare * 1e6:.1f} for "
                "who only reads it",
                flush=True,
            )
        taken = [intake(bench, rate, seconds=given.seconds) for rate in given.rates]
        turns = [each for count in given.replays for each in (0, count)]
        found = beside(bench, (*turns, 0), seconds=given.seconds) if turns else []
    for each in taken:
        print(
            f"{each.rate:>8,} lines/s: {each.reached:,.0f} taken in, {each.each:.1f} us each, "
            f"{each.share:.0%} of the core{'' if each.clean else ': WRONG DELIVERY'}"
        )
    for live in found:
        print(f"live beside {live.replays:>3} others: p50 {live.p50:.1f} ms, p99 {live.p99:.1f} ms")
    times = ratio(found) if found else 1.0
    print(
        f"beside others at most {times:.1f} times the quiet latency (to reach: under {TARGET:g}): "
        f"{'reached' if times < TARGET else 'MISSED'}"
    )
    return int(times >= TARGET or not all(each.clean for each in taken))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RigError as error:
        sys.exit(f"ingest: {error}")
