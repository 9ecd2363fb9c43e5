"""How the benchmarks measure: the time that a call takes, and the memory of this process."""

import resource
import statistics
import time
from collections.abc import Callable


def timed(call: Callable[[], object], *, rounds: int) -> float:
    """Seconds that a call takes, the middle of some."""
    spent = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def peak() -> int:
    """Most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
