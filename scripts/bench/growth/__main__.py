"""Prints what things cost against how many there are, and fails where the cost grows too fast.

    .venv/bin/python -m scripts.bench.growth
    .venv/bin/python -m scripts.bench.growth --rows submission,queue

Each row is measured in this process at several sizes, in turns, and the least
of some rounds counts: CPU time, or what the row says. Its exponent is that of
the power of the size which the cost follows from the smallest size to the
largest: 0 is flat, 1 is proportional. A row that is allowed 0.1 may double over
a thousandfold size. Exits with 1 if a row's exponent is above what it allows.
"""

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from scripts.bench.growth import coordinator_rows, hub_rows
from scripts.bench.growth.row import Row

ROWS: tuple[Row, ...] = (*coordinator_rows.ROWS, *hub_rows.ROWS)


def main() -> int:
    """Print the table; 1 if a row grows too fast."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(row.name for row in ROWS)
    parser.add_argument("--rows", help=f"some of these, separated by commas: {names}")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    wanted = None if given.rows is None else set(given.rows.split(","))
    if unknown := (wanted or set()) - {row.name for row in ROWS}:
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    failed = 0
    for row in ROWS:
        if wanted is None or row.name in wanted:
            failed += not report(row, rounds=given.rounds)
    return int(failed > 0)


def report(row: Row, *, rounds: int) -> bool:
    """Measure and print a row; whether it is within what it allows."""
    with ExitStack() as stack:
        measures: dict[int, Callable[[], float]] = {}
        for size in row.sizes:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="growth-")))
            measures[size] = stack.enter_context(row.prepared(size, folder))
        costs = dict.fromkeys(row.sizes, math.inf)
        for _ in range(rounds):
            for size, measure in measures.items():
                costs[size] = min(costs[size], measure())
    exponent = exponent_of(costs)
    good = all(map(math.isfinite, costs.values())) and exponent <= row.allowed
    shown = "  ".join(f"{size:,}: {cost * 1e6:,.2f}" for size, cost in costs.items())
    print(
        f"{'ok  ' if good else 'FAIL'} {row.name:<22} {exponent:+.2f} (allowed {row.allowed:.2f})"
        f"  us by {row.what}: {shown}"
    )
    return good


def exponent_of(costs: dict[int, float]) -> float:
    """The power of the size that the cost follows from the smallest size to the largest."""
    (small, low), *_, (large, high) = costs.items()
    return math.log(high / low) / math.log(large / small)


if __name__ == "__main__":
    sys.exit(main())
