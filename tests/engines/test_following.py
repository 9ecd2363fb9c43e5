"""A run that is followed stops when it is asked to, whatever is away meanwhile."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.coordinator.engines.engine import CannotLaunch
from app.coordinator.engines.remote import following
from app.coordinator.engines.remote.calls import DriverAway, NodeLost
from app.coordinator.engines.remote.following import GangFollower
from app.coordinator.engines.remote.gang import Gang, StopOrder
from app.coordinator.failures import LeadershipLost
from app.coordinator.scheduling.transitions import RunEnd
from generated.mindcoordinator.internal.v1.engine_pb2 import OpenRunResponse, RunRecords, RunRef

PATIENCE = 60


class Cluster:
    """Its one node is lost until a stop has failed for that; the next one finds the driver away."""

    def __init__(self) -> None:
        self.stops: list[Exception | None] = [NodeLost("n"), DriverAway("it was killed"), None]
        self.back, self.stopped = asyncio.Event(), asyncio.Event()

    async def open_run(self, run: RunRef) -> OpenRunResponse:
        if not self.back.is_set():
            raise NodeLost(run.node_id)
        return OpenRunResponse()

    async def stop_run(self, run: RunRef, *, at_once: bool, discard: bool) -> None:
        failure = self.stops.pop(0)
        if isinstance(failure, NodeLost):
            self.back.set()
        if failure is not None:
            raise failure
        self.stopped.set()

    async def returned(self, node_id: str, *, patience: float) -> bool:
        return await self.back.wait()

    async def watch_run(self, *_: object, **__: object) -> AsyncGenerator[RunRecords, None]:
        await self.stopped.wait()
        yield RunRecords(epoch="e", end=b'{"exit_code": 0, "stopped": true}')


class Records:
    """Takes everything over, and has nothing yet."""

    @property
    def records(self) -> "Records":
        return self

    def taken(self, source: int) -> tuple[int, int]:
        return 0, 0

    async def there(self, work: Callable[[], Coroutine[Any, Any, object]]) -> object:
        return await work()

    async def written(self, write: Callable[[Any], object]) -> None:
        write(self)

    async def say(self, text: str, *, warning: bool) -> None:
        """Nobody reads."""

    def tell(self) -> None:
        """Nobody listens."""


def gang_of(cluster: object, stop: StopOrder, *, nodes: Sequence[str] = ("n",)) -> Gang:
    """A run of a part for each of the cluster's nodes."""
    launched = SimpleNamespace(
        whole=SimpleNamespace(job=SimpleNamespace(job_id="a")),
        node_ids=nodes,
        ref=lambda node_id, *, term: RunRef(job_id="a", run=1, node_id=node_id, term=term),
    )
    return Gang(
        launched=cast(Any, launched),
        term=1,
        client=cast(Any, cluster),
        nodes=cast(Any, cluster),
        lost_node_patience=PATIENCE,
        records=cast(Any, Records()),
        stop=stop,
    )


class ClusterWithoutFiles:
    """Its node cannot read what it has of the run, of which processes live."""

    def __init__(self) -> None:
        self.lives = True

    async def open_run(self, run: RunRef) -> OpenRunResponse:
        raise CannotLaunch("Input/output error")

    async def kill_run(self, run: RunRef) -> None:
        self.lives = False


async def test_a_part_that_is_given_up_lives_no_more() -> None:
    """It begins again elsewhere."""
    cluster = ClusterWithoutFiles()
    async with asyncio.timeout(PATIENCE):
        end = await GangFollower(gang_of(cluster, StopOrder())).follow()
    assert end.transient
    assert not cluster.lives


async def test_a_stop_that_finds_the_driver_away_when_its_node_returns_is_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, stop = Cluster(), StopOrder()
    monkeypatch.setattr(following, "watch_run", cluster.watch_run)
    gang = gang_of(cluster, stop)
    stop.give(at_once=False)
    async with asyncio.timeout(PATIENCE):
        end = await GangFollower(gang).follow()
    assert end == RunEnd(exit_code=0, stopped=True)


class Replaced:
    """Its nodes know a higher term, and say so one behind the other."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.all_asked = asyncio.Event()

    async def open_run(self, run: RunRef) -> OpenRunResponse:
        self.asked.append(run.node_id)
        if len(self.asked) == 3:
            self.all_asked.set()
        await self.all_asked.wait()
        raise LeadershipLost("term 2 has begun")


async def test_what_all_parts_find_out_is_raised_once_and_not_reported_as_lost() -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: reported.append(about))
    gang = gang_of(Replaced(), StopOrder(), nodes=("n1", "n2", "n3"))
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(LeadershipLost):
            await GangFollower(gang).follow()
    del gang
    gc.collect()
    assert reported == []
