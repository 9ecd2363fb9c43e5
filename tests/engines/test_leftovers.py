"""What ended runs hold on the nodes is let go of, also where the driver was away."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from app.coordinator.engines.remote import leftovers
from app.coordinator.engines.remote.calls import DriverAway, NodeLost
from app.coordinator.engines.remote.driver_client import DriverClient
from app.coordinator.engines.remote.leftovers import Leftovers
from app.coordinator.engines.remote.run_files import Launched
from app.coordinator.failures import FailureBackoff
from generated.mindcoordinator.internal.v1.engine_pb2 import RunRef

PATIENCE = 60


class Driver:
    """Is away for the first calls about some runs, and their nodes are lost for others."""

    def __init__(self, *, away: dict[str, int], lost: frozenset[str] = frozenset()) -> None:
        self._away = away
        self._lost = lost
        self.forgotten: list[str] = []
        self.killed: list[str] = []
        self.news = asyncio.Condition()

    async def list_runs(self, node_id: str) -> list[tuple[str, int]]:
        return [("a", 1), ("b", 1)]

    async def kill_run(self, run: RunRef) -> None:
        self.killed.append(run.job_id)

    async def forget_run(self, run: RunRef) -> None:
        if run.job_id in self._lost:
            raise NodeLost(run.node_id)
        if self._away.get(run.job_id, 0):
            self._away[run.job_id] -= 1
            raise DriverAway("it was killed")
        self.forgotten.append(run.job_id)
        async with self.news:
            self.news.notify_all()

    async def until_forgotten(self, *job_ids: str) -> None:
        async with asyncio.timeout(PATIENCE), self.news:
            await self.news.wait_for(lambda: set(job_ids) <= set(self.forgotten))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "FailureBackoff", lambda: FailureBackoff(longest=0.01))
    monkeypatch.setattr(leftovers, "_LEAVE", 0.1)


def ended_run() -> Launched:
    """A run of job a on node n."""

    def ref(node_id: str, *, term: int) -> RunRef:
        return RunRef(job_id="a", run=1, node_id=node_id, term=term)

    whole = SimpleNamespace(job=SimpleNamespace(job_id="a", run_count=1))
    return cast(Launched, SimpleNamespace(whole=whole, node_ids=("n",), ref=ref))


def of(driver: Driver) -> Leftovers:
    return Leftovers(cast(DriverClient, driver))


async def test_a_driver_that_was_away_is_asked_again_to_let_go_of_a_run() -> None:
    driver = Driver(away={"a": 3})
    left = of(driver)
    left.forget(ended_run(), term=1)
    await driver.until_forgotten("a")
    await left.close()
    assert driver.forgotten == ["a"]


async def test_a_run_that_cannot_be_let_go_of_yet_holds_up_none_behind_it() -> None:
    driver = Driver(away={"a": 10**9})
    left = of(driver)
    left.begin([], term=1)
    left.node_is_there("n")
    await driver.until_forgotten("b")
    await left.close()
    assert driver.forgotten == ["b"]


async def test_a_lost_node_is_not_asked_again_before_it_returns() -> None:
    driver = Driver(away={"b": 2}, lost=frozenset({"a"}))
    left = of(driver)
    left.begin([], term=1)
    left.node_is_there("n")
    await driver.until_forgotten("b")
    await left.close()
    assert driver.killed.count("a") == 1
