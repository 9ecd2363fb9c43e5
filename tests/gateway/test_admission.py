"""Which connections are taken, and how often the log says that some were not."""

from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter

from app.gateway.admission import Admission


class Door:
    """An admission whose clock a test turns."""

    def __init__(self, *, most: int = 100, descriptors: int | None = None) -> None:
        self.now = 50.0
        self.registry = CollectorRegistry()
        refused = Counter("refused", "Refused.", ("reason",), registry=self.registry)
        self.admission = Admission(
            most=most, descriptors=descriptors, refused=refused, clock=lambda: self.now
        )

    def refused(self, reason: str) -> float | None:
        return self.registry.get_sample_value("refused_total", {"reason": reason})


def test_as_many_are_taken_as_there_may_be() -> None:
    door = Door(most=3)
    assert [door.admission.admit(10) for _ in range(5)] == [True] * 3 + [False] * 2
    door.admission.leave()
    assert [door.admission.admit(10) for _ in range(2)] == [True, False]
    assert door.refused("connections") == 3


@pytest.mark.parametrize(
    ("limit", "last"),
    [
        pytest.param(20_000, 20_000 - 256 - 1, id="a reserve is kept"),
        pytest.param(800, 700 - 1, id="an eighth at most"),
        pytest.param(None, 10**6, id="no limit"),
    ],
)
def test_descriptors_are_left_for_other_things(limit: int | None, last: int) -> None:
    door = Door(descriptors=limit)
    assert door.admission.admit(last)
    if limit is not None:
        assert not door.admission.admit(last + 1)
        assert door.refused("descriptors") == 1


def test_the_log_tells_at_once_and_of_the_others_when_something_happens_later() -> None:
    door = Door(most=1)
    with structlog.testing.capture_logs() as events:
        door.admission.admit(10)
        for _ in range(5):
            door.admission.admit(10)
        assert len(events) == 1
        door.now += Admission.LOG_INTERVAL
        door.admission.leave()
        door.admission.admit(10)
    told: list[tuple[Any, ...]] = [
        (each["event"], each["log_level"], each["reason"], each["limit"], each["refused"])
        for each in events
    ]
    assert told == [
        ("connections_refused", "warning", "connections", 1, 1),
        ("connections_refused", "warning", "connections", 1, 4),
    ]
