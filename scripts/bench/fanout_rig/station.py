"""A server with its watchers, idle until lines come; and what an entry costs it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.bench.fanout_rig.client import watching
from scripts.bench.fanout_rig.measure import Bench
from scripts.bench.fanout_rig.peers import Endpoint
from scripts.bench.fanout_rig.processes import (
    Dialog,
    RigError,
    WatchersDropped,
    cpu_of,
    environment,
    python,
    started,
    tree_of,
)

#: Joins entries for 50 ms at any load: how many a write has does not follow the machine's speed.
JOINING = {f"SCAIMIND_HUB_FLUSH_{each}": "0.05" for each in ("MIN", "SOON", "MAX")}
#: Watchers who get errors alone, beside the one who gets every line.
OTHERS = 99
#: Messages of a burst, most entries of one, and how many bursts are measured.
MESSAGES, MOST, BURSTS = 50, 5_000, 6
#: Seconds within which the last line arrives on the busiest machine.
PATIENCE = 120


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
        """Wait until every watcher has a line. Raises `RigError` if one was lost or doubled, and
        `WatchersDropped` if the server has said of each loss that there is one."""
        said = self.watchers.ask(f"finish {last} {PATIENCE * 1000}", patience=PATIENCE + 10)
        wrong = {
            name: said[name]
            for name in ("holes", "missing_at_end", "doubled", "closed", "gap_events")
            if said[name]
        }
        if wrong:
            told = wrong.keys() & {"closed", "gap_events"} and "doubled" not in wrong
            error = WatchersDropped if told else RigError
            raise error(f"wrong delivery through {self.endpoint.path}: {wrong}")


@dataclass(frozen=True, slots=True)
class EntryCost:
    """CPU seconds of an entry: in the gateway, and in a process that only reads the stream."""

    gateway: float
    bare: float


@contextmanager
def entries(bench: Bench, batch: int) -> Iterator[Callable[[], EntryCost]]:
    """What measures entries that come in messages of `batch`, for 100 watchers of whom one gets
    them. The gateway and the bare call read the same messages at the same time."""
    with (
        bench.serving("gateway", 1 + OTHERS, batch=batch, settings=JOINING) as opened,
        _entries_of(bench, batch, *opened) as measure,
    ):
        yield measure


@contextmanager
def bare_reader(endpoint: Endpoint, *, core: int, log: Path) -> Iterator[Dialog]:
    """A process that reads what the coordinator behind an endpoint sends to it."""
    command = [*python("scripts.bench.fanout_rig.reader"), endpoint.coordinator]
    with started(command, core=core, log=log, env=environment(), piped=True) as process:
        reader = Dialog(process, name="reader", log=log)
        reader.hear()
        yield reader


@contextmanager
def _entries_of(
    bench: Bench, batch: int, endpoint: Endpoint, emitter: Dialog, log: Path
) -> Iterator[Callable[[], EntryCost]]:
    core = bench.cores.load
    others = replace(endpoint, path=f"{endpoint.path}&level=ERROR")
    count = min(MESSAGES * batch, MOST)
    with (
        watching(others, OTHERS, core=core, log=log / "others"),
        watching(endpoint, 1, core=core, log=log / "watcher") as watcher,
        bare_reader(endpoint, core=bench.cores.server, log=log / "reader") as reader,
    ):
        station, bare = Station(endpoint, emitter, watcher), tree_of(reader.pid)
        for _ in range(2 * BURSTS):
            reader.ask(f"read {station.burst(count)}", patience=PATIENCE)

        def measure() -> EntryCost:
            tree = endpoint.tree()
            before, before_bare = cpu_of(tree), cpu_of(bare)
            for _ in range(BURSTS):
                last = station.burst(count)
                reader.ask(f"read {last}", patience=PATIENCE)
            made = BURSTS * count
            return EntryCost((cpu_of(tree) - before) / made, (cpu_of(bare) - before_bare) / made)

        yield measure
