"""The parts of a run on its nodes, and what is asked of all of them."""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from app.coordinator.engines.engine import CannotLaunch, Discard
from app.coordinator.engines.remote.calls import (
    AnotherProtocol,
    BadMessage,
    DriverAway,
    NodeLost,
    NothingThere,
)
from app.coordinator.engines.remote.driver_client import DriverClient
from app.coordinator.engines.remote.known_nodes import KnownNodes
from app.coordinator.engines.remote.records.writer import RecordWriter
from app.coordinator.engines.remote.run_files import Launched
from generated.mindcoordinator.internal.v1.engine_pb2 import OpenRunResponse, RunRef

log = structlog.get_logger("scaimind.coordinator")
_T = TypeVar("_T")


@dataclass(slots=True)
class StopOrder:
    """Whether the parts of a run are to stop, and how."""

    #: By the run's owner: at once or after a checkpoint; None if it is not to stop.
    by_owner: bool | None = None
    #: By the run's owner.
    discard: Discard = Discard.NOTHING
    #: A part has failed, and the others, which would wait for it, are to end at once.
    by_part: bool = False
    #: Set whenever it changes.
    news: asyncio.Event = field(default_factory=asyncio.Event)
    #: Set once the owner wants it to stop.
    given: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def at_once(self) -> bool | None:
        """Whether a part is to stop at once or after a checkpoint; None if it is not to stop."""
        return True if self.by_part else self.by_owner

    def give(self, *, at_once: bool, discard: Discard = Discard.NOTHING) -> None:
        """Note that the owner wants the run to stop."""
        self.by_owner = at_once
        self.discard = discard
        self.news.set()
        self.given.set()

    def end_the_rest(self) -> None:
        """Note that a part has failed."""
        self.by_part = True
        self.news.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """All that is needed to reach the parts of one run."""

    launched: Launched
    #: Of the coordinator.
    term: int
    client: DriverClient
    nodes: KnownNodes
    #: Seconds that a lost node has to return.
    lost_node_patience: float
    records: RecordWriter
    stop: StopOrder
    #: The values of masked variables, where the nodes cannot read the coordinator's file of them.
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: The nodes of which the agent has done what no agent of this release does.
    faulty: set[str] = field(default_factory=set)

    @property
    def job_id(self) -> str:
        """The run's job."""
        return self.launched.whole.job.job_id

    @property
    def node_ids(self) -> Sequence[str]:
        """The nodes of its parts, the first one of them that of rank 0."""
        return self.launched.node_ids

    def ref(self, node_id: str) -> RunRef:
        """Return how a part is named to the driver and its agent."""
        return self.launched.ref(node_id, term=self.term)

    async def returned(self, node_id: str) -> bool:
        """Wait for a lost node; whether it is back."""
        return await self.nodes.returned(node_id, patience=self.lost_node_patience)

    async def open(self, node_id: str) -> OpenRunResponse:
        """Have an agent there; returns where it is. Raises as `DriverClient.open_run`."""
        with self.noting(node_id):
            return await self.client.open_run(self.ref(node_id))

    @contextmanager
    def noting(self, node_id: str) -> Iterator[None]:
        """Have it noted what a part's agent does that no agent of this release does."""
        try:
            yield
        except (AnotherProtocol, BadMessage) as error:
            self.faulty.add(node_id)
            self.nodes.faults.note(self.job_id, node_id, error)
            raise

    def clear_faults(self, *node_ids: str) -> None:
        """Note that agents do as they should again, or are asked no more."""
        for node_id in self.faulty.intersection(node_ids):
            self.faulty.discard(node_id)
            self.nodes.faults.clear(self.job_id, node_id)

    async def pass_on(self, node_id: str) -> bool:
        """Ask a part to stop if it is to. Returns False if it has to be asked again."""
        if (at_once := self.stop.at_once) is None:
            return True
        try:
            # What the others have written is wanted though one has failed: the job goes on from it.
            discard = self.stop.discard
            await self.client.stop_run(self.ref(node_id), at_once=at_once, discard=discard)
        except (DriverAway, NodeLost, NothingThere, CannotLaunch) as error:
            log.info("part_not_asked", job_id=self.job_id, node_id=node_id, reason=str(error))
            # Of a lost node or disk nothing is followed any more: whoever follows it again asks.
            return not isinstance(error, DriverAway)
        return True


async def all_of(*work: Coroutine[Any, Any, _T]) -> list[_T]:
    """Await all of them, also if one fails; then raise what the first one raised."""
    done = []
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done
