"""The states of a tenant's jobs, and the place that they come from."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import NamedTuple, Protocol

from app.caller import Caller
from app.hub.selection import event_frames
from app.hub.upstream import Position

#: The statuses of jobs that have ended.
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "PREEMPTED"})


@dataclass(frozen=True, slots=True)
class JobState:
    """What a selection looks at of a job, and the small record that is sent of it."""

    job_id: str
    user_id: str
    status: str
    labels: Mapping[str, str]
    #: Seconds since 1970 by the coordinator's clock.
    created_at: float
    #: The same; None until the job has ended.
    ended_at: float | None
    #: The record as JSON, one line.
    data: InitVar[bytes]
    #: Its event: one object for all who are sent it, however long they take.
    event: bytes = field(init=False)

    def __post_init__(self, data: bytes) -> None:
        """Frame the record."""
        object.__setattr__(self, "event", event_frames.job(data))


class JobChange(NamedTuple):
    """A job's newest state, or its deletion: then `state` is None."""

    version: int
    job_id: str
    state: JobState | None


class NodeState(NamedTuple):
    """A node and its JSON, one line."""

    node_id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class StatesStart:
    """How an upstream stream of states begins: with the whole state, or with what has changed."""

    epoch: str
    reset: bool


@dataclass(frozen=True, slots=True)
class StatesBatch:
    """What became known together, to be taken in this order of fields; changes by version."""

    start: StatesStart | None = None
    changes: Sequence[JobChange] = ()
    #: Everything up to the stream's beginning has been sent, up to this version.
    synced: int | None = None
    nodes: Sequence[NodeState] = ()
    #: As JSON, one line.
    queue: bytes | None = None


class StatesUpstream(Protocol):
    """The coordinator, as far as states go. All methods raise `ApiError`.

    `request_id` goes along: the request for which a call was made first.
    """

    async def authorize_list(self, caller: Caller) -> None:
        """Ask for a page of jobs as this caller; returns if the caller may list them."""

    def watch_jobs(
        self, tenant_id: str, *, after: Position | None, nodes: bool, queue: bool, request_id: str
    ) -> AsyncGenerator[StatesBatch, None]:
        """Open a tenant's stream of states. Closing the generator cancels the call.

        `after` is an epoch and a version; the stream starts behind it, or with
        the whole state where that is None or not in the record any more. It
        ends only by breaking off. Raises NOT_IMPLEMENTED if the coordinator has
        no such call.
        """

    async def read_state(self, caller: Caller, job_id: str) -> JobState:
        """Read one job's state as this caller."""
