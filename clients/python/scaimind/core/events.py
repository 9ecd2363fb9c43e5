"""Many jobs in one stream, with their state kept: what is known is always current.

Ids come with bookmarks alone, so that a connection that is made again may bring
what was there before. It is dropped here: by a job's revision, by epoch and
offset of a line, by the sequence of a snapshot.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from scaimind import models
from scaimind.core.commands import Command
from scaimind.core.entries import Gap, LogLine
from scaimind.core.retries import Backoff
from scaimind.core.sse import ServerEvent
from scaimind.core.stream import BEGINNING, SILENCE, Link, connect, data_of, taken
from scaimind.errors import ProtocolError

PATH: Final = "/events"


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A job's state, the first or another one."""

    job: models.JobState


@dataclass(frozen=True, slots=True)
class JobGone:
    """A job that is no longer selected (`left`) or told of (`limit`), was `deleted`, or never was
    there (`unknown`)."""

    job_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Synced:
    """Everything that was known on the gateway's side has been told: what follows is new."""

    jobs: int


@dataclass(frozen=True, slots=True)
class JobMetrics:
    """A snapshot of a job's numbers."""

    job_id: str
    point: models.MetricsSnapshot


@dataclass(frozen=True, slots=True)
class LogEnded:
    """All of a job's log was told; `status` is the job's final one."""

    job_id: str
    status: str


@dataclass(frozen=True, slots=True)
class Limited:
    """More jobs match than are told of, or followed: the newest are."""

    matching: int
    followed: int
    #: Whose states are told; None from a gateway that does not bound them.
    states: int | None = None


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """A node, the first time or when it has changed."""

    node: models.Node


@dataclass(frozen=True, slots=True)
class QueueChanged:
    """The tenant's queue, the first time or when it has changed."""

    queue: models.GetQueueStatusResponse


Event: TypeAlias = (
    JobChanged
    | JobGone
    | Synced
    | LogLine
    | Gap
    | JobMetrics
    | LogEnded
    | Limited
    | NodeChanged
    | QueueChanged
)


@dataclass(slots=True)
class View:
    """What is known of the selected jobs; changed by the stream alone, before each event."""

    jobs: dict[str, models.JobState] = field(default_factory=dict)
    nodes: dict[str, models.Node] = field(default_factory=dict)
    queue: models.GetQueueStatusResponse | None = None
    #: Whether the whole state has been told once.
    synced: bool = False
    link: Link = field(default_factory=Link)
    #: Jobs of a whole state that is being told; None while there is none.
    arriving: set[str] | None = None
    #: Newest offset by job and epoch of its log, and newest sequence of its metrics.
    offsets: dict[tuple[str, str], int] = field(default_factory=dict)
    sequences: dict[tuple[str, str], int] = field(default_factory=dict)
    log_ended: set[str] = field(default_factory=set)


def follow_events(
    query: tuple[tuple[str, str], ...],
    view: View,
    *,
    backoff: Backoff | None = None,
    silence: float = SILENCE,
) -> Generator[Command, Any, None]:
    """Emit `Event`s without end, each once; `view` is current before each.

    `view.link.last_id` is where to begin. Raises what
    `scaimind.core.stream.connect` does.
    """

    def take(event: ServerEvent) -> Iterator[Event]:
        for told in _told(event, view):
            view.link.news = True
            yield told

    return taken(connect(PATH, query, view.link, backoff=backoff, silence=silence), take)


def _told(event: ServerEvent, view: View) -> Iterator[Event]:
    if event is BEGINNING:
        # Without a place to go on, the whole state comes again, without a reset before it.
        view.arriving = None if view.link.last_id else set()
        return
    handler = _HANDLERS.get(event.name)
    if handler is not None:
        try:
            yield from handler(data_of(event), view)
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"An event {event.name!r} of the stream lacks a field.") from error


def _job(data: dict[str, Any], view: View) -> Iterator[Event]:
    job = models.JobState.of(data)
    known = view.jobs.get(job.job_id)
    if view.arriving is not None:
        view.arriving.add(job.job_id)
    elif known is not None and job.revision < known.revision:
        return
    if known is None or known.raw != job.raw:
        view.jobs[job.job_id] = job
        yield JobChanged(job)


def _job_gone(data: dict[str, Any], view: View) -> Iterator[Event]:
    job_id, reason = str(data["job_id"]), str(data.get("reason", ""))
    if view.jobs.pop(job_id, None) is not None or reason == "unknown":
        yield JobGone(job_id, reason)
    _forget(job_id, view)


def _forget(job_id: str, view: View) -> None:
    for newest in (view.offsets, view.sequences):
        for key in [key for key in newest if key[0] == job_id]:
            del newest[key]
    view.log_ended.discard(job_id)


def _reset(_: dict[str, Any], view: View) -> Iterator[Event]:
    view.arriving = set()
    return iter(())


def _synced(_: dict[str, Any], view: View) -> Iterator[Event]:
    if view.arriving is not None:
        for job_id in [each for each in view.jobs if each not in view.arriving]:
            del view.jobs[job_id]
            _forget(job_id, view)
            yield JobGone(job_id, "reset")
        view.arriving = None
    view.synced = True
    yield Synced(len(view.jobs))


def _log(data: dict[str, Any], view: View) -> Iterator[Event]:
    key = str(data.pop("job_id")), str(data.pop("epoch"))
    line = LogLine.of(data, job_id=key[0], epoch=key[1])
    if line.offset > view.offsets.get(key, 0):
        view.offsets[key] = line.offset
        yield line


def _metrics(data: dict[str, Any], view: View) -> Iterator[Event]:
    key = str(data.pop("job_id")), str(data.pop("epoch", ""))
    point = models.MetricsSnapshot.of(data)
    if point.sequence > view.sequences.get(key, 0):
        view.sequences[key] = point.sequence
        yield JobMetrics(key[0], point)


def _gap(data: dict[str, Any], view: View) -> Iterator[Event]:
    key = str(data.pop("job_id")), str(data.pop("epoch"))
    # The stream goes on behind it.
    behind = int(data.pop("offset"))
    if behind > view.offsets.get(key, 0) or key not in view.offsets:
        view.offsets[key] = behind
        yield Gap.of(data, job_id=key[0])


def _end(data: dict[str, Any], view: View) -> Iterator[Event]:
    job_id = str(data["job_id"])
    if job_id not in view.log_ended:
        view.log_ended.add(job_id)
        yield LogEnded(job_id, str(data.get("status", "")))


def _limit(data: dict[str, Any], _: View) -> Iterator[Event]:
    states = data.get("states")
    told = None if states is None else int(states)
    yield Limited(int(data["matching"]), int(data["followed"]), told)


def _node(data: dict[str, Any], view: View) -> Iterator[Event]:
    node = models.Node.of(data)
    known = view.nodes.get(node.node_id)
    if known is None or known.raw != node.raw:
        view.nodes[node.node_id] = node
        yield NodeChanged(node)


def _queue(data: dict[str, Any], view: View) -> Iterator[Event]:
    queue = models.GetQueueStatusResponse.of(data)
    if view.queue is None or view.queue.raw != queue.raw:
        view.queue = queue
        yield QueueChanged(queue)


_HANDLERS: Final = {
    "job": _job,
    "job_gone": _job_gone,
    "synced": _synced,
    "reset": _reset,
    "log": _log,
    "metrics": _metrics,
    "gap": _gap,
    "end": _end,
    "limit": _limit,
    "node": _node,
    "queue": _queue,
}
