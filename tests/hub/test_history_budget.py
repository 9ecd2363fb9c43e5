"""The budget over all histories, against the plain way: look at every feed each time."""

import weakref

from hypothesis import given
from hypothesis import strategies as st

from app.hub.core.history_budget import HistoryBudget
from app.hub.observer import HubObserver

LIMIT = 50


class History:
    """A feed's history: when its entries arrived, one byte each."""

    def __init__(self, budget: HistoryBudget) -> None:
        self.arrivals: list[int] = []
        self.budget = budget

    @property
    def oldest_arrival(self) -> float | None:
        return self.arrivals[0] if self.arrivals else None

    def grow(self, now: int, size: int) -> None:
        self.arrivals += [now] * size
        self.budget.account(self, size)

    def evict_oldest(self) -> None:
        kept = [each for each in self.arrivals if each != self.arrivals[0]]
        change = len(kept) - len(self.arrivals)
        self.arrivals = kept
        self.budget.account(self, change)

    def end(self) -> None:
        self.budget.account(self, -len(self.arrivals))
        self.budget.forget(self)


class Sizes(HubObserver):
    """Keeps the size that was reported last."""

    size = 0

    def history_size(self, size: int) -> None:
        self.size = size


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 20)), max_size=200))
def test_what_arrived_first_goes_first_over_all_feeds(steps: list[tuple[int, int]]) -> None:
    sizes = Sizes()
    budget = HistoryBudget(limit=LIMIT, observer=sizes)
    histories = [History(budget) for _ in range(8)]
    expected: list[list[int]] = [[] for _ in histories]
    for now, (index, size) in enumerate(steps):
        if size == 0:
            histories[index].end()
            histories[index], expected[index] = History(budget), []
            continue
        histories[index].grow(now, size)
        expected[index] += [now] * size
        while sum(map(len, expected)) > LIMIT:
            oldest = min(each[0] for each in expected if each)
            expected = [[at for at in each if at != oldest] for each in expected]
        assert [each.arrivals for each in histories] == expected
        assert sizes.size == sum(map(len, expected))


def test_a_history_that_cannot_be_evicted_does_not_hang_the_others() -> None:
    class Unflushed(History):
        def evict_oldest(self) -> None:
            self.budget.account(self, 0)

    budget = HistoryBudget(limit=LIMIT, observer=HubObserver())
    stuck = Unflushed(budget)
    stuck.grow(0, LIMIT + 1)
    assert len(stuck.arrivals) == LIMIT + 1


def test_feeds_that_ended_are_not_kept() -> None:
    budget = HistoryBudget(limit=LIMIT, observer=HubObserver())
    histories = [History(budget) for _ in range(1000)]
    for now, history in enumerate(histories):
        history.grow(now, 1 if now < LIMIT else 0)
        history.end()
    ended = weakref.WeakSet(histories)
    del histories, history
    assert not ended
