"""Whatever an agent sends, no line is lost or doubled by it, and the run is followed to its end."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.coordinator.engines.agent.framing import framed, read_message
from app.coordinator.engines.agent.protocol import PROTOCOL
from app.coordinator.engines.engine import Discard
from app.coordinator.engines.remote.agent_faults import AgentFaults
from app.coordinator.engines.remote.calls import BadMessage
from app.coordinator.engines.remote.following import GangFollower
from app.coordinator.engines.remote.gang import Gang, StopOrder
from app.coordinator.engines.remote.records.merging import MergedRecords
from app.coordinator.engines.remote.records.part_records import PartRecords
from app.coordinator.failures import FailureBackoff
from app.coordinator.logs.log import LogReader
from app.coordinator.metrics.snapshots import MetricsReader
from app.coordinator.scheduling.transitions import RunEnd
from app.coordinator.storage.job_directory import RunDir
from app.coordinator.storage.records import Cursor
from generated.mindcoordinator.internal.v1 import engine_pb2 as pb
from generated.mindcoordinator.v1.watch_pb2 import (
    LogEntry,
    MetricsSnapshot,
    StatusChange,
    WatchJobResponse,
)

PATIENCE = 60
LINES = 60
#: In one message.
SOME = 5
END = b'{"exit_code": 3}'


def lines(first: int, count: int = 1, **changes: Any) -> bytes:
    return WatchJobResponse(
        logs=[
            LogEntry(**{"offset": number, "message": f"line {number}", **changes})
            for number in range(first, first + count)
        ]
    ).SerializeToString()


def snapshots(first: int, count: int = 1, **changes: Any) -> bytes:
    return WatchJobResponse(
        metrics=[
            MetricsSnapshot(**{"sequence": number, "step": number, **changes})
            for number in range(first, first + count)
        ]
    ).SerializeToString()


def records_of(first: int = 1, count: int = 1, **changes: Any) -> pb.RunRecords:
    about = {
        "epoch": "e",
        "first_line": first,
        "lines": lines(first, count),
        "first_snapshot": first,
        "snapshots": snapshots(first, count),
    }
    return pb.RunRecords(**{**about, **changes})


#: Messages that no agent sends.
BAD = {
    "no epoch": records_of(epoch=""),
    "an epoch of others": records_of(epoch="../x"),
    "a negative number": records_of(-1),
    "a huge number": records_of(first_line=2**62, lines=lines(2**62)),
    "a huge loss": pb.RunRecords(epoch="e", lost_through=2**62),
    "a negative loss": pb.RunRecords(epoch="e", lost_through=-1),
    "no records": records_of(lines=b"\xff\xff\xff"),
    "text that is not UTF-8": records_of(lines=lines(1).replace(b"line", b"\xff\xfe\xfd\xfc")),
    "an offset that is another's": records_of(lines=lines(2)),
    "a line twice": records_of(count=2, lines=lines(1) * 2),
    "no line": records_of(first_line=1, lines=WatchJobResponse().SerializeToString() + b"\x12\x00"),
    "snapshots as lines": records_of(lines=snapshots(1)),
    "what watchers are told": records_of(
        lines=WatchJobResponse(status_changes=[StatusChange()]).SerializeToString()
    ),
    "lines of another node": records_of(lines=lines(1, node_id="other")),
    "a level that none has": records_of(lines=lines(1, level=77)),
    "a rank below 0": records_of(lines=lines(1, rank=-1)),
    "a time that none is": records_of(lines=lines(1, timestamp={"seconds": -5})),
    "a line that is too long": records_of(lines=lines(1, message="a" * (1 << 20))),
    "more lines than it sends": records_of(lines=lines(1, 1001)),
    "a snapshot that is another": records_of(first_snapshot=7),
    "a negative snapshot": records_of(first_snapshot=-7, snapshots=snapshots(-7)),
    "snapshots that go back": records_of(
        snapshots=snapshots(1) + snapshots(1), lines=b"", first_line=0
    ),
    "a time of a snapshot that none is": records_of(
        snapshots=snapshots(1, timestamp={"nanos": -5})
    ),
    "an end with lines": records_of(end=END),
    "an end that is no JSON": pb.RunRecords(epoch="e", end=b"{"),
    "an end that is not UTF-8": pb.RunRecords(
        epoch="e", end=b'{"exit_code": 1, "failure": "\xff"}'
    ),
    "an end of another type": pb.RunRecords(epoch="e", end=b"[1]"),
    "an end without a code": pb.RunRecords(epoch="e", end=b"{}"),
    "an end with a text as its code": pb.RunRecords(epoch="e", end=b'{"exit_code": "0"}'),
    "an end with a huge code": pb.RunRecords(epoch="e", end=b'{"exit_code": 99999999999999999999}'),
    "an end with a truth as its code": pb.RunRecords(epoch="e", end=b'{"exit_code": true}'),
    "an end with what none has": pb.RunRecords(epoch="e", end=b'{"exit_code": 0, "more": 1}'),
    "an end with a number as its failure": pb.RunRecords(
        epoch="e", end=b'{"exit_code": 0, "failure": 1}'
    ),
    "a very long end": pb.RunRecords(
        epoch="e", end=b'{"exit_code": 0, "failure": "%s"}' % (b"a" * (1 << 20))
    ),
}


def test_a_bad_message_is_refused_as_a_whole(records: MergedRecords, run: RunDir) -> None:
    part = PartRecords(records, 0, "n")
    for name, message in BAD.items():
        with pytest.raises(BadMessage):
            part.take(message)
        assert part.taken == (0, 0), name
        assert part.end is None, name
    assert said(run) == []


def test_snapshots_behind_a_damaged_one_are_taken_once(records: MergedRecords, run: RunDir) -> None:
    part = PartRecords(records, 0, "n")
    found = pb.RunRecords(epoch="e", first_snapshot=1, snapshots=snapshots(1) + snapshots(3, 2))
    part.take(found)
    assert part.taken == (0, 4)
    part.take(found)
    assert steps(run) == [1, 3, 4]


def said(run: RunDir) -> list[str]:
    with LogReader(run.job.log) as reader:
        return [entry.message for entry in reader.read(Cursor(), limit=10_000).entries]


def steps(run: RunDir) -> list[int]:
    with MetricsReader(run.job.metrics) as reader:
        return [each.step for each in reader.after(Cursor())[0]]


class Written:
    """Writes at once."""

    def __init__(self, records: MergedRecords) -> None:
        self.records = records

    async def there(self, work: Callable[[], Coroutine[Any, Any, object]]) -> object:
        return await work()

    async def written(self, write: Callable[[Any], object]) -> None:
        write(self.records)

    async def say(self, text: str, *, warning: bool) -> None:
        """Nobody reads."""

    def tell(self) -> None:
        """Nobody listens."""


@dataclass
class Agent:
    """Sends its records, in the order that is asked for, as bytes that `spoil` may change."""

    spoil: Callable[[int, pb.RunRecords], bytes | None]
    connections: int = 0
    sent: int = 0
    address: str = ""
    killed: bool = False

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await read_message(reader, pb.WatchRunRequest, most=4096)
            self.connections += 1
            greeting = pb.AgentGreeting(protocol=PROTOCOL, job_id="a", run=1)
            at = max(request.after_line, request.after_snapshot)
            # They are taken together.
            assert request.after_line == request.after_snapshot == at
            good = True
            for message in (pb.RunRecords(greeting=greeting), *self._behind(at)):
                self.sent += 1
                spoiled = self.spoil(self.sent, message) if good else None
                good = good and spoiled is None
                writer.write(framed(message) if spoiled is None else spoiled)
            await writer.drain()
            # Whoever has had enough closes.
            await reader.read()
        except (OSError, EOFError):
            return
        finally:
            writer.transport.abort()

    def _behind(self, after: int) -> Iterator[pb.RunRecords]:
        for first in range(after + 1, LINES + 1, SOME):
            yield records_of(first, min(SOME, LINES + 1 - first))
        yield pb.RunRecords(epoch="e", end=END)

    # What the driver and the nodes are asked.

    @property
    def faults(self) -> AgentFaults:
        return self._faults

    def __post_init__(self) -> None:
        self._faults = AgentFaults(changed=lambda: None)

    async def open_run(self, run: pb.RunRef) -> pb.OpenRunResponse:
        return pb.OpenRunResponse(agent_address=self.address)

    async def stop_run(self, run: pb.RunRef, *, at_once: bool, discard: Discard) -> None:
        """It goes on."""

    async def kill_run(self, run: pb.RunRef) -> None:
        self.killed = True


async def followed(agent: Agent, records: MergedRecords, stop: StopOrder | None = None) -> RunEnd:
    """Follow the run of an agent to its end."""
    launched = SimpleNamespace(
        whole=SimpleNamespace(job=SimpleNamespace(job_id="a")),
        node_ids=("n",),
        ref=lambda node_id, *, term: pb.RunRef(job_id="a", run=1, node_id=node_id, term=term),
    )
    gang = Gang(
        launched=cast(Any, launched),
        term=1,
        client=cast(Any, agent),
        nodes=cast(Any, agent),
        lost_node_patience=PATIENCE,
        records=cast(Any, Written(records)),
        stop=stop or StopOrder(),
    )
    async with asyncio.timeout(PATIENCE), agent.listening():
        return await GangFollower(gang).follow()


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FailureBackoff, "pause", lambda _: 0.0)


def assert_whole(run: RunDir, end: RunEnd) -> None:
    """Assert that each line and snapshot was taken over once, in order."""
    assert end == RunEnd(exit_code=3)
    assert said(run) == [f"line {number}" for number in range(1, LINES + 1)]
    assert steps(run) == list(range(1, LINES + 1))


@pytest.mark.parametrize("message", BAD.values(), ids=BAD)
async def test_a_bad_message_ends_its_connection_and_no_line_is_lost_or_doubled(
    records: MergedRecords, run: RunDir, message: pb.RunRecords
) -> None:
    agent = Agent(lambda sent, _: framed(message) if sent == 4 else None)
    assert_whole(run, await followed(agent, records))
    assert agent.connections == 2
    assert agent.faults.counts["message"] == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff" * 64,
        b"\x00\x00\x00\x04\xff\xff\xff\xff",
        (1 << 24).to_bytes(4, "big") + b"\x00" * 64,
        framed(pb.RunRecords(greeting=pb.AgentGreeting(protocol=PROTOCOL))),
        framed(records_of(1)),
        framed(pb.RunRecords(failure=pb.RunFailure(kind="superseded", text="0"))),
        framed(pb.RunRecords(failure=pb.RunFailure(kind="superseded", text="a term"))),
    ],
    ids=["length", "content", "longer", "greets twice", "goes back", "a lower term", "no term"],
)
async def test_what_is_no_message_or_none_of_this_place_is_counted(
    records: MergedRecords, run: RunDir, sent: bytes
) -> None:
    agent = Agent(lambda number, _: sent if number == 4 else None)
    assert_whole(run, await followed(agent, records))
    assert agent.faults.counts["message"] == 1


@pytest.mark.parametrize(
    "claim",
    [pb.RunRecords(epoch="e", lost_through=40), records_of(40, 5)],
    ids=["lost", "left out"],
)
async def test_lines_that_are_said_to_be_lost_once_are_asked_for_again(
    records: MergedRecords, run: RunDir, claim: pb.RunRecords
) -> None:
    agent = Agent(lambda sent, _: framed(claim) if sent == 4 else None)
    assert_whole(run, await followed(agent, records))


async def test_an_agent_that_sends_nothing_without_a_pause_is_left(
    records: MergedRecords, run: RunDir
) -> None:
    empty = framed(pb.RunRecords(epoch="e"))
    agent = Agent(lambda sent, _: empty * 1000 if sent == 4 else None)
    assert_whole(run, await followed(agent, records))
    assert agent.faults.counts["message"] == 1


async def test_an_agent_of_another_run_is_not_heeded(records: MergedRecords, run: RunDir) -> None:
    greeting = pb.AgentGreeting(protocol=PROTOCOL, job_id="another", run=1)
    agent = Agent(lambda sent, _: framed(pb.RunRecords(greeting=greeting)) if sent == 1 else None)
    assert_whole(run, await followed(agent, records))
    assert agent.faults.counts["message"] == 1


async def test_a_cancelled_run_ends_though_its_agent_says_nothing_right(
    records: MergedRecords, run: RunDir
) -> None:
    agent = Agent(lambda sent, message: framed(records_of(-1)) if sent > 1 else None)
    stop = StopOrder()
    stop.give(at_once=False, discard=Discard.LATE)
    assert await followed(agent, records, stop) == RunEnd(exit_code=None, stopped=True)
    assert agent.killed
    assert said(run) == []


@pytest.mark.parametrize("seed", range(10))
async def test_messages_that_are_spoilt_at_random(
    records: MergedRecords, run: RunDir, seed: int
) -> None:
    """Whatever comes of them, what was taken over is what the node has recorded, up to it."""
    chance = random.Random(seed)

    def spoil(_: int, message: pb.RunRecords) -> bytes | None:
        # In the beginning nothing else would come to pass; later it has to end.
        if agent.connections > 40 or chance.random() < 0.7:
            return None
        return spoiled(chance, message)

    agent = Agent(spoil)
    assert_whole(run, await followed(agent, records))


def spoiled(chance: random.Random, message: pb.RunRecords) -> bytes:
    """Return a message as no agent sends it: cut, changed in its frame, or in its fields."""
    number = chance.choice([-1, 0, -(2**63), 2**63 - 1, 2**53])
    match chance.randrange(7):
        case 0:
            data = bytearray(framed(message))
            del data[chance.randrange(len(data)) :]
            return bytes(data) + b"\xff" * 64
        case 1:
            return chance.randbytes(chance.randrange(1, 64)) + b"\xff" * 64
        case 2:
            size = chance.choice([0xFFFFFFFF, 1 << 30, 8 * 1024 * 1024 + 1])
            return size.to_bytes(4, "big") + framed(message)[4:]
        case 3:
            changed = pb.RunRecords()
            changed.CopyFrom(message)
            changed.epoch = changed.epoch or "e"
            setattr(changed, chance.choice(["first_line", "first_snapshot"]), number)
            changed.lines = changed.lines or lines(1)
            changed.snapshots = changed.snapshots or snapshots(1)
            return framed(changed)
        case 4:
            data = bytearray(chance.choice([lines(7, 3), snapshots(7, 3)]))
            data[chance.randrange(len(data))] ^= 0x80
            return framed(pb.RunRecords(epoch="e", first_line=number, lines=bytes(data)))
        case 5:
            return framed(pb.RunRecords(epoch="e", end=chance.randbytes(chance.randrange(1, 40))))
        case _:
            return framed(pb.RunRecords(epoch=chance.choice(["", "E", "\u00e9" * 4]), lines=b"a"))
