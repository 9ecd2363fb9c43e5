"""How soon the gateway answers, and what it and the stack hold, beside their imports."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from scripts.bench import size
from scripts.bench.check_rig.axis import Axis, Family, Measure

START, RSS, STACK = "start: CPU", "gateway: memory", "stack: memory"
#: Seconds before memory is read.
SETTLE = 1.0


@contextmanager
def started() -> Iterator[Measure]:
    """Starts of the gateway, each beside one of its imports."""
    baseline = size.imported()

    def measure() -> dict[str, float]:
        start = size.start(settle=SETTLE)
        return {START: start.cpu / start.cpu_of_imports, RSS: start.rss / baseline}

    yield measure


@contextmanager
def stacked() -> Iterator[Measure]:
    """The stack of one machine, beside the gateway's imports."""
    baseline = size.imported()
    yield lambda: {STACK: size.stack(settle=2 * SETTLE) / baseline}


def _lacks_root() -> str:
    return "" if os.geteuid() == 0 else "root, who alone may read these programs' memory"


FAMILIES = (
    Family(
        "start",
        (
            Axis(START, "until /health answers / the imports alone"),
            Axis(RSS, "RSS, idle / of the same imports of others"),
        ),
        started,
        _lacks_root,
    ),
    Family(
        "stack",
        (Axis(STACK, "PSS of all programs, idle / RSS of the gateway's imports of others"),),
        stacked,
        _lacks_root,
        rounds=1,
        further=2,
    ),
)
