"""Measures what a feed takes in, and how live watchers fare beside those that read an old log.

    .venv/bin/python -m scripts.bench.ingest
    .venv/bin/python -m scripts.bench.ingest --seconds 2 --rates 50000 --replays 3

A scripted coordinator sends its lines in the batches in which they are due. `taken in`: at
some rates, with one watcher that gets every line and 99 that get errors alone; printed is what
reached the first, the gateway's CPU time for an entry, the part of its core, and how busy the
core is from which the load comes: near 100%, it is the load that ends there. `in messages`: the
same CPU time where entries come in messages of so many, and that of a process which only reads
the stream, the floor. `live`: 20 watchers of a line every 20 ms, while so many others read 20,000
lines again and again, each from a place of its own, at a lower priority than all else there;
printed is their latency, how many times the quiet one it is, what the others read, and how busy
both cores are; and the latency without the gateway, of a process that reads the coordinator's
stream itself: the part that is not the gateway's.
Two cores and a C compiler; whatever else runs on the machine spoils the numbers. Exits with 1
when a line was lost or doubled, and when the latency beside others is twice the quiet one.
"""

import argparse
import asyncio
import os
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
    Cores,
    Dialog,
    RigError,
    core_busy,
    environment,
    python,
    started,
    tree_of,
    usage_of,
)
from scripts.bench.fanout_rig.station import OTHERS, bare_reader, entries

LIVE, LIVE_RATE = 20, 50
#: Lines of the old log, and how many fewer each further reader begins with.
OLD_LINES, APART = 20_000, 100
WARM_UP = 2.0
#: By how much the readers of the old log give way on the core that they share with the rest.
READERS_NICE = 10
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
    #: How busy the load's core was, whoever used it.
    load: float
    clean: bool


@dataclass(frozen=True, slots=True)
class Beside:
    """The latency of live watchers beside so many others, in milliseconds."""

    replays: int
    p50: float
    p99: float
    #: The median without the gateway: until a process has the line that reads the coordinator's
    #: stream itself, on the load's core.
    bare: float
    #: Lines a second that the others read.
    read: float
    #: How busy the server's and the load's core were.
    server: float
    load: float


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
            before, busy = usage_of(tree), core_busy(core)
            time.sleep(seconds)
            used, load = usage_of(tree).since(before).total, core_busy(core) - busy
            window = watcher.ask("end")
            verdict = verdict_of(watcher, emitter)
    delivered = max(window["delivered"], 1)
    return Intake(
        rate=rate,
        reached=delivered / window["wall_s"],
        each=used / delivered * 1e6,
        share=used / window["wall_s"],
        load=load / window["wall_s"],
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
            with (
                watching(endpoint, LIVE, core=bench.cores.load, log=client) as live,
                bare_reader(endpoint, core=bench.cores.load, log=log / f"bare-{number}") as bare,
            ):
                emitter.ask(f"start {LIVE_RATE}")
                with reading(bench, endpoint, count, log / f"readers-{number}") as readers:
                    time.sleep(WARM_UP)
                    live.ask("begin")
                    before, busy = readers.ask("read")["lines"], both_busy(bench.cores)
                    alone = bare.ask(f"follow {seconds}")["p50_us"]
                    lines = readers.ask("read")["lines"] - before
                    server, load = (
                        (now - then) / seconds
                        for now, then in zip(both_busy(bench.cores), busy, strict=True)
                    )
                    window = live.ask("end")
                emitter.ask("stop")
            p50, p99 = window["p50_us"] / 1000, window["p99_us"] / 1000
            found.append(Beside(count, p50, p99, alone / 1000, lines / seconds, server, load))
    return found


@contextmanager
def reading(bench: Bench, endpoint: Endpoint, count: int, log: Path) -> Iterator[Dialog]:
    """A process with so many readers of the old log, which says how many lines they have read."""
    path, header = endpoint.path.partition("?")[0], endpoint.headers[0]
    command = [*python("scripts.bench.ingest", "--read"), str(endpoint.port), path, header]
    command.append(str(count))
    with started(command, core=bench.cores.load, log=log, env=environment(), piped=True) as process:
        yield Dialog(process, name="readers", log=log)


def both_busy(cores: Cores) -> tuple[float, float]:
    """Seconds that the server's and the load's core have been busy so far."""
    return core_busy(cores.server), core_busy(cores.load)


async def read(port: int, path: str, header: str, count: int) -> None:
    """Read the old log with so many connections, again and again, until stopped.

    Each line on stdin is answered by the number of lines that were read.
    """
    # What live watchers and the coordinator need of this core comes first.
    os.nice(READERS_NICE)
    found = 0

    async def one(number: int) -> None:
        nonlocal found
        while True:
            lines = OLD_LINES - number * APART
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"GET {path}?tail={lines} HTTP/1.1\r\nHost: bench\r\n{header}\r\n\r\n"
            writer.write(head.encode())
            # A line has 200 characters, and more around them.
            left = lines * 300
            while left > 0 and (data := await reader.read(1 << 18)):
                left -= len(data)
                found += data.count(b"\nevent: log\n")
            writer.close()

    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)

    async with asyncio.TaskGroup() as readers:
        for number in range(count):
            readers.create_task(one(number), name=f"reader-{number}")
        while await commands.readline():
            print(f'{{"lines": {found}}}', flush=True)


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
            f"{each.share:.0%} of the core, {each.load:.0%} of the load's"
            f"{'' if each.clean else ': WRONG DELIVERY'}"
        )
    for live in found:
        print(
            f"live beside {live.replays:>3} others: p50 {live.p50:.2f} ms ({live.bare:.2f} without "
            f"the gateway), p99 {live.p99:.1f} ms; they read {live.read:,.0f} lines/s; "
            f"{live.server:.0%} of the core, {live.load:.0%} of the load's"
        )
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
