"""A coordinator that lies: whatever it says of one field, nothing is lost or doubled silently."""

import asyncio
import json
import logging
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from generated.mindcoordinator.v1 import jobs_pb2, watch_pb2
from tests.hub.client import Watching
from tests.hub.conftest import Gateway, gateway_to
from tests.hub.log_coordinator import Lie, LogCoordinator, one_job
from tests.hub.sse import Event
from tests.lies import FieldLie, Place, places, values

#: Seconds after which an exchange counts as one that hangs.
PATIENCE = 60.0
BEFORE, ALL = 12, 18

#: Of a job, the hub uses no more.
OF_A_JOB = {"job_id", "tenant_id", "status", "revision", "name", "labels", "updated_at", "node_ids"}

PLACES = [
    *places("WatchJob", watch_pb2.WatchJobResponse.DESCRIPTOR),
    *places("ListJobLogs", watch_pb2.ListJobLogsResponse.DESCRIPTOR),
    *places("GetJobMetrics", watch_pb2.GetJobMetricsResponse.DESCRIPTOR),
    *(
        place
        for place in places("GetJob", jobs_pb2.Job.DESCRIPTOR)
        if place.way[0].name in OF_A_JOB
    ),
]

#: What says where a log is, and where it goes on.
STEERING = {
    *(f"WatchJob.start.{name}" for name in ("epoch", "after_offset", "last_offset")),
    *("WatchJob.logs.offset", "WatchJob.logs.level", "WatchJob.end.status"),
    *("WatchJob.end.last_offset", "WatchJob.metrics.sequence"),
    *(f"ListJobLogs.{name}" for name in ("epoch", "next_after_offset", "first_offset")),
    *("ListJobLogs.last_offset", "ListJobLogs.entries.offset", "ListJobLogs.entries.level"),
    *("ListJobLogs.missing.first", "ListJobLogs.missing.last", "GetJob.job_id"),
}

#: What a stream may end with besides `end`: the watcher is told, and comes back.
TOLD = {"COORDINATOR_ERROR", "COORDINATOR_UNAVAILABLE", "COORDINATOR_TIMEOUT"}


def text(offset: int) -> str:
    return f"line {offset}"


class Reading:
    """One watcher's stream, checked as it is read."""

    def __init__(self, watching: Watching) -> None:
        self._watching = watching
        self.events: list[Event] = []
        self.refused = ""

    async def read(self) -> None:
        """Read to the end of the stream."""
        if self._watching.status != 200:
            self.refused = self._watching.error["code"] if self._watching.body else "NOTHING"
            return
        self.events = await self._watching.rest()

    def check_end(self) -> None:
        """Whoever is not told everything is told that."""
        if self.refused:
            assert self.refused in TOLD
            return
        last = self.events[-1]
        assert last.name in ("end", "error"), last
        if last.name == "error":
            assert last.data["code"] in TOLD
            assert last.data["retryable"] is True
        else:
            assert last.data["status"] == "COMPLETED"

    def check_lines(self) -> None:
        """Every line is there once and in order, or its absence is announced."""
        if self.refused:
            return
        place = self.events[0].offset
        for event in self.events:
            match event.name:
                case "log":
                    assert event.offset == place + 1, (place, event)
                    assert event.data["offset"] == event.offset
                case "gap" if event.data["reason"] in ("missing", "dropped"):
                    assert event.data["from"] == f"{event.epoch}:{place + 1}"
                    assert event.data["to"] == event.id
                case "gap":
                    # Another log: what comes now is not what had these offsets.
                    pass
                case _:
                    assert event.offset == place, (place, event)
            place = event.offset
        if self.events[-1].name == "end":
            assert place == ALL

    def check_texts(self) -> None:
        """No line is another one."""
        for event in self.events:
            if event.name == "log":
                assert event.data["message"] == text(event.offset)

    def check_snapshots(self) -> None:
        """No snapshot is there twice."""
        ids = [event.id for event in self.events if event.name == "metrics"]
        assert len(ids) == len(set(ids))


async def exchange(lie: Lie, *, open_timeout: float = 2) -> tuple[Reading, Reading, Gateway]:
    """Have a job watched from before its end, by a gateway that has only a part of its log."""
    async with one_job() as coordinator:
        await coordinator.log(*map(text, range(1, BEFORE + 1)))
        await coordinator.snapshot(1, loss=0.5)
        coordinator.lie = lie
        async with (
            asyncio.timeout(PATIENCE),
            gateway_to(
                coordinator.address,
                history_tail=4,
                outage_limit=0.3,
                open_timeout=open_timeout,
                reconnect_min=0.02,
                reconnect_max=0.05,
            ) as gateway,
            gateway.watch(level="DEBUG", tail=100) as watching,
            gateway.watch("metrics", interval=1) as measuring,
        ):
            logs, metrics = Reading(watching), Reading(measuring)
            async with asyncio.TaskGroup() as group:
                group.create_task(logs.read())
                group.create_task(metrics.read())
                group.create_task(go_on(coordinator))
        return logs, metrics, gateway


async def go_on(coordinator: LogCoordinator) -> None:
    for offset in range(BEFORE + 1, ALL + 1):
        await coordinator.log(text(offset))
        await coordinator.snapshot(offset, loss=0.1)
    await coordinator.end()


def check_log(told: list[MutableMapping[str, Any]]) -> None:
    """Nothing of ours broke: no traceback, and nothing that is called an internal error."""
    for entry in told:
        assert not entry.get("exc_info"), entry
        assert "crashed" not in entry["event"], entry
        assert "INTERNAL_ERROR" not in json.dumps(entry, default=str), entry


@pytest.fixture
def nothing_else_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No task, no request and no generator ends with an exception that nobody took."""
    with caplog.at_level(logging.WARNING):
        yield
    assert [each for each in caplog.records if each.name in ("asyncio", "aiohttp.server")] == []


def test_the_truth_arrives_whole(nothing_else_is_logged: None) -> None:
    def honest(method: str, number: int, message: Any) -> Any:
        return message

    logs, metrics, gateway = asyncio.run(exchange(honest, open_timeout=30))
    assert [each.name for each in logs.events if each.name != "bookmark"] == ["log"] * ALL + ["end"]
    logs.check_lines()
    logs.check_texts()
    assert metrics.events[-1].name == "end"
    assert gateway.breaches == []


@pytest.mark.parametrize("place", PLACES, ids=str)
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_lie_about_a_field_costs_no_line_silently(
    place: Place, nothing_else_is_logged: None, data: st.DataObject
) -> None:
    check_lie(place, data)


@pytest.mark.parametrize("place", [each for each in PLACES if str(each) in STEERING], ids=str)
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_lie_about_where_a_log_is_costs_no_line_silently(
    place: Place, nothing_else_is_logged: None, data: st.DataObject
) -> None:
    check_lie(place, data)


def test_the_fields_that_steer_are_there() -> None:
    assert {str(each) for each in PLACES} >= STEERING


def numbers(place: Place) -> st.SearchStrategy[int]:
    """Which message of a call lies: mostly one that has the field."""
    if place.method != "WatchJob":
        return st.just(0)
    return st.sampled_from([0, 0, 0, 1] if place.way[0].name == "start" else [1, 1, 2, 3, 0])


def check_lie(place: Place, data: st.DataObject) -> None:
    lie = FieldLie(
        place,
        data.draw(st.sampled_from(values(place.way[-1])), label="value"),
        number=data.draw(numbers(place), label="number"),
        always=data.draw(st.booleans(), label="always"),
    )
    with capture_logs() as told:
        logs, metrics, _ = asyncio.run(exchange(lie))
    check_log(told)
    for each in (logs, metrics):
        each.check_end()
    logs.check_lines()
    if place.way[-1].name not in ("message", "offset"):
        logs.check_texts()
    metrics.check_snapshots()
