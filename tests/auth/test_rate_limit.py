"""The token buckets: a burst, then a rate; each caller's own; bounded."""

from hypothesis import given
from hypothesis import strategies as st

from app.auth.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    limit = RateLimit(rate=2, burst=5, size=10, clock=clock)
    assert [limit.take("ann") for _ in range(5)] == [0] * 5
    assert limit.take("ann") == 0.5
    clock.now += 0.49
    assert limit.take("ann") > 0
    clock.now += 0.01
    assert limit.take("ann") == 0
    assert limit.take("ann") == 0.5
    clock.now += 100
    assert [limit.take("ann") for _ in range(5)] == [0] * 5
    assert limit.take("ann") > 0


def test_who_is_refused_pays_nothing_for_it() -> None:
    clock = Clock()
    limit = RateLimit(rate=1, burst=1, size=10, clock=clock)
    assert limit.take("ann") == 0
    for _ in range(1000):
        assert limit.take("ann") == 1
    clock.now += 1
    assert limit.take("ann") == 0


def test_everybody_has_a_bucket_of_their_own() -> None:
    limit = RateLimit(rate=1, burst=1, size=10, clock=Clock())
    assert limit.take(("acme", "ann")) == 0
    assert limit.take(("acme", "bob")) == 0
    assert limit.take(("rival", "ann")) == 0
    assert limit.take(("acme", "ann")) > 0


def test_what_is_full_again_is_forgotten() -> None:
    clock = Clock()
    limit = RateLimit(rate=10, burst=10, size=1000, clock=clock)
    for number in range(500):
        limit.take(number)
    assert len(limit) == 500
    clock.now += 1
    for _ in range(300):
        limit.take("ann")
    assert len(limit) == 1


def test_there_are_only_so_many_buckets() -> None:
    limit = RateLimit(rate=0.001, burst=2, size=10, clock=Clock())
    for number in range(1000):
        limit.take(number)
    assert len(limit) == 10
    assert limit.take(999) == 0
    assert limit.take(999) > 0


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 100),
    pauses=st.lists(st.floats(0, 2), max_size=300),
)
def test_never_more_than_a_bucket_gives(rate: float, burst: int, pauses: list[float]) -> None:
    clock = Clock()
    limit = RateLimit(rate=rate, burst=burst, size=10, clock=clock)
    tokens, taken = float(burst), 0
    for pause in pauses:
        clock.now += pause
        tokens = min(tokens + pause * rate, burst)
        wait = limit.take("ann")
        if wait == 0:
            assert tokens >= 1 - 1e-6
            tokens, taken = tokens - 1, taken + 1
        else:
            assert abs((1 - tokens) / rate - wait) < 1e-6
    assert taken <= burst + sum(pauses) * rate + 1e-6
