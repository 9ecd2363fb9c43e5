"""How long entries are held back, in simulated time: by what flushing costs and comes."""

from dataclasses import dataclass
from itertools import pairwise

import pytest

from app.hub.core.flush_pacer import FlushPacer, FlushTimes

SOON, LONGEST, SHORTEST = 0.01, 0.05, 0.001


@dataclass
class Load:
    """Entries of one job, one after the other, to so many watchers."""

    watchers: int
    #: Entries a second.
    rate: float
    #: Microseconds: of a write, and of each further entry in it, to one watcher.
    write: float = 5.8
    entry: float = 0.35
    #: Entries that come in together.
    batch: int = 1
    #: Share of the loop's time that other work takes.
    other: float = 0.05
    #: By how much of its cost a write is cheaper or dearer, for half a second each.
    swing: float = 0.0

    def spent(self, entries: int, now: float) -> float:
        """Seconds that a flush takes."""
        swing = 1 + self.swing * (1 if int(now * 2) % 2 else -1)
        return self.watchers * (self.write + self.entry * entries) * swing / 1e6


@dataclass
class Outcome:
    interval: float
    #: Longest that an entry waited for its flush to begin, in the second half.
    held: float
    #: Share of the loop's time that flushing took, in the second half.
    share: float


def pacer() -> FlushPacer:
    return FlushPacer(shortest=SHORTEST, soon=SOON, longest=LONGEST, share=0.4, now=0.0, cpu=0.0)


def simulate(load: Load, *, seconds: float = 20.0, start: float = SHORTEST) -> Outcome:
    """Flush as a feed does: at once when it is due, else when the timer goes off."""
    paced, times = pacer(), FlushTimes()
    paced.interval = start
    now = cpu = flushing = held = 0.0
    batches = int(seconds * load.rate / load.batch)
    arrivals = iter(n * load.batch / load.rate for n in range(batches))
    waiting: list[float] = []
    arrival = next(arrivals)
    for following in [*arrivals, seconds]:
        now = max(now, arrival)
        waiting += [arrival] * load.batch
        due = max(times.due(paced.interval), now)
        if due < following or following == seconds:
            began = due
            spent = load.spent(len(waiting), began)
            now = began + spent
            entries = len(waiting)
            if began > seconds / 2:
                held = max(held, began - waiting[0])
                flushing += spent
            waiting.clear()
            cpu += spent
            times.flushed(began, now)
            paced.record(spent, now, cpu=cpu + now * load.other, entries=entries)
        arrival = following
    return Outcome(paced.interval, held, flushing / (seconds / 2))


@pytest.mark.parametrize("start", [SHORTEST, SOON, LONGEST])
@pytest.mark.parametrize(
    "load",
    [
        Load(500, 50),
        Load(500, 200),
        Load(1, 1_000),
        Load(2_000, 50, write=6.2),
    ],
    ids=["W1", "W2", "one watcher", "W4"],
)
def test_while_there_is_room_every_entry_goes_out_as_it_comes(load: Load, start: float) -> None:
    """Wherever the interval was before."""
    outcome = simulate(load, start=start)
    assert outcome.interval == SHORTEST
    # Behind the flush before it, or the shortest interval, at most.
    assert outcome.held <= max(load.watchers * 7 / 1e6, SHORTEST)
    assert outcome.share <= FlushPacer.ROOM


@pytest.mark.parametrize("batch", [1, 4])
def test_where_each_by_itself_would_be_too_much_they_are_joined_for_a_moment(batch: int) -> None:
    """Also where those that come together would just fit."""
    outcome = simulate(Load(500, 1_000, batch=batch))
    assert SHORTEST < outcome.interval <= SOON
    assert outcome.held <= 2 * SOON
    assert outcome.share < 0.6


def test_what_comes_joined_already_goes_out_as_it_comes() -> None:
    outcome = simulate(Load(500, 1_000, batch=100))
    assert outcome.interval == SHORTEST
    assert outcome.held == 0


@pytest.mark.parametrize("write", [5.5, 6.5, 7.5])
def test_around_the_threshold_nobody_waits_for_more_than_an_entry_or_two(write: float) -> None:
    outcome = simulate(Load(500, 200, write=write, swing=0.2))
    assert outcome.held <= 2 / 200


def test_the_entries_of_a_flush_rise_with_the_demand_without_a_jump() -> None:
    counts = [pacer().joined_at(demand / 100) for demand in range(0, 500, 5)]
    assert counts == sorted(counts)
    assert counts[: 70 // 5 + 1] == pytest.approx([1.0] * 15, abs=0.01)
    assert all(later - earlier < 1 for earlier, later in pairwise(counts[: 250 // 5]))
    # Here flushing takes its share.
    demand = 2.5
    joined = pacer().joined_at(demand)
    share = demand / joined * (1 + FlushPacer.FURTHER * (joined - 1))
    assert share == pytest.approx(0.4)
    assert pacer().joined_at(50.0) == float("inf")


def test_a_loop_without_room_joins_more_up_to_the_longest_interval() -> None:
    outcome = simulate(Load(8_000, 200))
    assert outcome.interval > SOON
    busy = simulate(Load(500, 1_000, other=0.9))
    assert SOON < busy.interval <= LONGEST


@pytest.mark.parametrize("load", [Load(2_000, 100), Load(4_000, 50), Load(1_500, 200)])
def test_more_than_fits_one_by_one_fits_joined(load: Load) -> None:
    """It is never behind for longer than the longest interval and a few flushes."""
    outcome = simulate(load)
    assert outcome.held <= LONGEST + 4 * load.watchers * 7 / 1e6
    assert outcome.share < 0.97


def test_the_longest_interval_follows_the_busy_share() -> None:
    curve = [pacer().longest_at(busy / 100) for busy in range(0, 121, 5)]
    assert curve == sorted(curve)
    assert curve[: 70 // 5 + 1] == [SOON] * 15
    assert curve[90 // 5 :] == [LONGEST] * 7
    assert pacer().longest_at(0.8) == pytest.approx((SOON + LONGEST) / 2)


def test_a_lower_limit_that_an_operator_has_set_counts() -> None:
    limited = FlushPacer(shortest=0.0, soon=SOON, longest=0.005, share=0.4, now=0.0, cpu=0.0)
    for busy in (0.0, 0.7, 1.0):
        assert limited.longest_at(busy) == 0.005


def test_a_long_time_counts_as_the_short_ones_in_it() -> None:
    """Where flushes are rare, an adjustment is about more than a moment."""
    paced = pacer()
    paced.interval = LONGEST
    # The loop has been full for a second, in one flush.
    paced.record(1.0, 1.0, cpu=1.0)
    assert paced.interval > SOON


def test_what_is_due_counts_how_long_the_writing_takes() -> None:
    times = FlushTimes()
    assert times.due(0.01) < 0
    times.flushed(1.0, 1.004)
    assert 1.005 <= times.due(0.01) <= 1.01
    # One that takes longer than the interval puts off nobody.
    times.flushed(1.0, 1.5)
    assert times.due(0.01) <= 1.01
