"""What an agent sends of a part's records is checked here, all of it, before any is taken over.

Whatever is sent is input. A message that no agent sends is BadMessage, and nothing
else is raised for what is in one: the connection ends, and what it was about is
asked for again.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import orjson
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from app.coordinator.engines.agent.records import LINES, SNAPSHOTS
from app.coordinator.engines.engine import CannotLaunch
from app.coordinator.engines.remote.calls import BadMessage, DriverAway
from app.coordinator.logs.log import is_sound
from app.coordinator.scheduling.transitions import RunEnd
from app.coordinator.storage.records import MAX_NUMBER, MAX_PAYLOAD
from generated.mindcoordinator.internal.v1.engine_pb2 import RunRecords
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, MetricsSnapshot, WatchJobResponse

_EPOCH: Final = re.compile(r"[a-z0-9]{1,32}")
#: Bytes of an end, and characters of each of its texts.
_MAX_END: Final = 256 * 1024
_MAX_TEXT: Final = 64 * 1024
#: What a process can exit with, or minus the signal that ended it.
_EXIT_CODES: Final = range(-255, 256)
#: Bytes of a record, which has a larger number in the job's own.
_MAX_RECORD: Final = MAX_PAYLOAD - 16
#: Messages without anything that an agent sends within so many seconds, at most: it sends one
#: when nothing is new for some seconds.
_EMPTY: Final = 100
_WINDOW: Final = 60.0
#: Of a run's end: the type of each field.
_END: Final[dict[str, Any]] = {each.name: each.type for each in fields(RunEnd)}


@dataclass(frozen=True, slots=True)
class ReceivedRecords:
    """A message that an agent can have sent."""

    epoch: str
    #: The node's number of the first line. The others follow it; their offsets become the job's.
    first_line: int = 0
    lines: Sequence[LogEntry] = ()
    #: The node's numbers of the snapshots, ascending.
    sequences: Sequence[int] = ()
    snapshots: Sequence[MetricsSnapshot] = ()
    end: RunEnd | None = None
    #: Lines up to this number are lost on the node, if it is not 0.
    lost_through: int = 0


def received(message: RunRecords, *, node_id: str) -> ReceivedRecords:
    """Check a message of the part on a node. Raises BadMessage."""
    if not _EPOCH.fullmatch(message.epoch):
        raise BadMessage("the agent's epoch is none")
    numbers = (message.first_line, message.first_snapshot, message.lost_through)
    if not all(0 <= each < MAX_NUMBER for each in numbers):
        raise BadMessage("the agent tells of a number that no record has")
    lines = _lines(message, node_id) if message.lines else ()
    snapshots = _snapshots(message) if message.snapshots else ()
    if message.end and (lines or snapshots or message.lost_through):
        raise BadMessage("the agent tells of an end with records")
    if lines and message.lost_through:
        raise BadMessage("the agent tells of lines as lost, and of others behind them")
    end = _end(message.end) if message.end else None
    return ReceivedRecords(
        epoch=message.epoch,
        first_line=message.first_line,
        lines=lines,
        sequences=[each.sequence for each in snapshots],
        snapshots=snapshots,
        end=end,
        lost_through=message.lost_through,
    )


def _lines(message: RunRecords, node_id: str) -> Sequence[LogEntry]:
    lines = _records(message.lines, "logs").logs
    first = message.first_line
    if not 0 < len(lines) <= LINES or first < 1:
        raise BadMessage("the agent's lines are none, or more than it sends at once")
    large = len(message.lines) > _MAX_RECORD
    for offset, entry in enumerate(lines, first):
        if entry.offset != offset:
            raise BadMessage(f"the agent's line {offset} is given as {entry.offset}")
        if not is_sound(entry) or entry.rank < 0 or (large and entry.ByteSize() > _MAX_RECORD):
            raise BadMessage(f"the agent's line {offset} is damaged")
        if entry.node_id not in ("", node_id):
            raise BadMessage(f"the agent's line {offset} is of another node")
    return lines


def _snapshots(message: RunRecords) -> Sequence[MetricsSnapshot]:
    snapshots = _records(message.snapshots, "metrics").metrics
    if not 0 < len(snapshots) <= SNAPSHOTS:
        raise BadMessage("the agent's snapshots are none, or more than it sends at once")
    if snapshots[0].sequence != message.first_snapshot:
        raise BadMessage("the agent's first snapshot is another one than it says")
    last = 0
    for each in snapshots:
        if (
            not last < each.sequence < MAX_NUMBER
            or not _is_time(each.timestamp)
            or each.ByteSize() > _MAX_RECORD
        ):
            raise BadMessage(f"the agent's snapshot {each.sequence} is damaged")
        last = each.sequence
    return snapshots


def _records(data: bytes, name: str) -> WatchJobResponse:
    """Read records, and nothing else, as the field `name`."""
    try:
        found = WatchJobResponse.FromString(data)
    except DecodeError:
        raise BadMessage(f"the agent's {name} are no records") from None
    if [field.name for field, _ in found.ListFields()] != [name]:
        raise BadMessage(f"the agent's {name} are other records")
    return found


def _is_time(timestamp: Timestamp) -> bool:
    return is_sound(LogEntry(timestamp=timestamp))


def _end(data: bytes) -> RunEnd:
    try:
        value = orjson.loads(data) if len(data) <= _MAX_END else None
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict) or "exit_code" not in value or not value.keys() <= _END.keys():
        raise BadMessage("the agent's end is none")
    for name, each in value.items():
        if name == "exit_code":
            good = each is None or (type(each) is int and each in _EXIT_CODES)
        elif _END[name] is bool:
            good = type(each) is bool
        else:
            good = type(each) is str and len(each) <= _MAX_TEXT
        if not good:
            raise BadMessage(f"the agent's end has a bad {name}")
    return RunEnd(**value)


class RecordOrder:
    """Whether the messages of one connection follow what was asked for.

    What an agent says to be lost counts when two connections have said so: a
    message that is wrong once has no line left out.
    """

    def __init__(self, *, epoch: str, after_line: int, after_snapshot: int, claim: int) -> None:
        """`epoch` is that of the part's records, or empty; `claim` is up to which line a former
        connection has said that lines are lost, behind the same one, or 0."""
        self._epoch = epoch
        self._line = after_line
        self._snapshot = after_snapshot
        self._claim = claim
        self._first = True
        self._empty = 0
        self._window = time.monotonic()

    def check(self, records: ReceivedRecords) -> None:
        """Check the next message. Raises BadMessage, and LinesClaimed; CannotLaunch if the node
        has other records of the part than before."""
        if self._epoch and records.epoch != self._epoch:
            if not self._first:
                raise BadMessage("the agent's epoch has changed")
            raise CannotLaunch("its records on the node are others than before")
        self._first, self._epoch = False, records.epoch
        lines, first = records.lines, records.first_line
        if (lines and first <= self._line) or 0 < records.lost_through <= self._line:
            raise BadMessage("the agent goes back behind lines that it has sent")
        if records.sequences and records.sequences[0] <= self._snapshot:
            raise BadMessage("the agent goes back behind snapshots that it has sent")
        if not (lines or records.sequences or records.lost_through or records.end):
            self._count_empty()
        lost = first - 1 if lines else records.lost_through
        if lost > self._line and lost != self._claim:
            raise LinesClaimed(lost)
        self._claim = 0
        self._line = max(lost, self._line) + len(lines)
        if records.sequences:
            self._snapshot = records.sequences[-1]

    def _count_empty(self) -> None:
        now = time.monotonic()
        if now - self._window > _WINDOW:
            self._empty, self._window = 0, now
        self._empty += 1
        if self._empty > _EMPTY:
            raise BadMessage("the agent sends empty messages without a pause")


class LinesClaimed(DriverAway):
    """An agent says for the first time that lines are lost. It is asked once more."""

    def __init__(self, through: int) -> None:
        super().__init__(f"the agent says that lines up to {through} are lost")
        self.through = through
