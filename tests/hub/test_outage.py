"""The clock of an outage: only an entry that was never there before sets it back."""

from app.errors import COORDINATOR_ERROR, COORDINATOR_UNAVAILABLE
from app.hub.core.outage import Outage


def test_attempts_without_progress_reach_the_limit() -> None:
    outage = Outage(limit=10, steady=5)
    assert not outage.broke_off(100, COORDINATOR_UNAVAILABLE)
    for now in (102, 104, 106, 108):
        outage.caught_up(now)
        assert not outage.broke_off(now + 1, COORDINATOR_UNAVAILABLE)
    assert outage.broke_off(110, COORDINATOR_UNAVAILABLE)


def test_progress_sets_the_clock_back() -> None:
    outage = Outage(limit=10, steady=5)
    outage.broke_off(100, COORDINATOR_UNAVAILABLE)
    outage.progressed()
    assert not outage.broke_off(200, COORDINATOR_UNAVAILABLE)
    assert outage.broke_off(210, COORDINATOR_UNAVAILABLE)


def test_the_clock_stands_still_while_a_quiet_stream_stays_open() -> None:
    outage = Outage(limit=10, steady=5)
    now = 0.0
    for _ in range(4):
        assert not outage.broke_off(now, COORDINATOR_UNAVAILABLE)
        now += 3
        outage.caught_up(now)
        now += 50
    assert outage.broke_off(now + 1, COORDINATOR_UNAVAILABLE)


def test_a_stream_that_was_whole_and_open_for_long_ends_an_outage() -> None:
    outage = Outage(limit=10, steady=5)
    outage.broke_off(0, COORDINATOR_UNAVAILABLE)
    outage.caught_up(9)
    assert not outage.broke_off(3600, COORDINATOR_UNAVAILABLE)
    assert not outage.broke_off(3609, COORDINATOR_UNAVAILABLE)
    assert outage.broke_off(3610, COORDINATOR_UNAVAILABLE)


def test_a_stream_that_breaks_its_contract_never_counts_as_open() -> None:
    outage = Outage(limit=10, steady=5)
    outage.broke_off(0, COORDINATOR_ERROR)
    outage.caught_up(1)
    assert outage.broke_off(10, COORDINATOR_ERROR)
