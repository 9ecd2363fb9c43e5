"""A row: what is measured, at which sizes, and how fast it may grow."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One thing whose cost is looked at."""

    name: str
    #: What the sizes count.
    what: str
    sizes: Sequence[int]
    #: The exponent that it may have.
    allowed: float
    #: Makes something of a size, in an empty folder, and what measures it: seconds.
    prepared: Callable[[int, Path], AbstractContextManager[Callable[[], float]]]


def cpu(call: Callable[[], object], *, times: int) -> Callable[[], float]:
    """What measures the CPU time of a call, in seconds: the mean of some."""

    def measure() -> float:
        began = time.process_time()
        for _ in range(times):
            call()
        return (time.process_time() - began) / times

    return measure
