"""Costs against how many there are: the same at a small size, in the same process."""

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from scripts.bench.check_rig.axis import Axis, Family, Measure
from scripts.bench.growth.__main__ import ROWS
from scripts.bench.growth.row import Row
from scripts.bench.scheduler import cost

#: A ratio over a hundredfold size and more: one that doubles is still nearly flat, while one that
#: became proportional is a hundred times the baseline's.
TOLERANCE = 1.0
WAITING = 5_000


@contextmanager
def grown(row: Row) -> Iterator[Measure]:
    """A row at its smallest and at its largest size."""
    with ExitStack() as stack:
        measures: list[Callable[[], float]] = []
        for size in (row.sizes[0], row.sizes[-1]):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="check-")))
            measures.append(stack.enter_context(row.prepared(size, folder)))
        small, large = measures
        gc.collect()
        yield lambda: {_name(row): large() / small()}


@contextmanager
def scheduled() -> Iterator[Measure]:
    """Submissions and decisions with few and with many jobs waiting."""
    with cost.prepared(WAITING) as measure:
        yield measure


def _name(row: Row) -> str:
    return f"growth: {row.name}"


FAMILIES = (
    *(
        Family(
            _name(row),
            (
                Axis(
                    _name(row),
                    f"with {row.sizes[-1]:,} {row.what} / with {row.sizes[0]:,}",
                    TOLERANCE,
                ),
            ),
            partial(grown, row),
        )
        for row in ROWS
    ),
    Family(
        "scheduler",
        tuple(
            Axis(
                name, f"mixed requests, with {WAITING:,} waiting jobs / with {cost.FEW}", TOLERANCE
            )
            for name in cost.MEASURED
        ),
        scheduled,
    ),
)
