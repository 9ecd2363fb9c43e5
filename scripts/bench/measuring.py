"""How the benchmarks measure: the time that a call takes, and the memory of this process."""

import resource
import statistics
import time
from collections.abc import Callable


def timed(
    call: Callable[[], object], *, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds that a call takes by a clock, the middle of some."""
    spent = []
    for _ in range(rounds):
        began = clock()
        call()
        spent.append(clock() - began)
    return statistics.median(spent)


def peak() -> int:
    """Most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
