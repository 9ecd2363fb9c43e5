"""Holds the benchmarks to a baseline: short forms of all of them, compared as ratios.

    scripts/bench/check                  measures, prints, and fails where an axis is worse
    scripts/bench/check --only fan-out   one family, or some with commas
    scripts/bench/check --leave-out      passes also where what the machine lacks is left out
    scripts/bench/check --update         measures, and writes the baseline and the documents
    scripts/bench/check --fanout RUN...  writes the fan-out's table from runs of
                                         `scripts.bench.fanout --json`, and the documents
    scripts/bench/check --table          prints the documents' tables from the baseline

Each axis is a cost over another one that was measured beside it: of a peer, or of the same at a
small size. CPU time is compared, not time that passes. The middle of some rounds counts (three,
mostly); where it is worse than the baseline by more than the tolerance, six further rounds are
measured, and the middle of all of them decides, as it makes the baseline. What is lost or doubled
fails at once; watchers that a server has dropped, as on a machine that stalls, are measured once
more. Two cores. What the machine lacks (nchan, wrk) is named, and what is compared with it left
out. Exits with 1 if an axis is worse, or was left out without `--leave-out`.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from scripts.bench.check_rig import baseline, growth, requests, sizes, streams, tables
from scripts.bench.check_rig.axis import Family, Found, losses, measured
from scripts.bench.fanout_rig.processes import RigError

FAMILIES: tuple[Family, ...] = (
    *growth.FAMILIES,
    *sizes.FAMILIES,
    *streams.FAMILIES,
    *requests.FAMILIES,
)


def main() -> int:
    """Do what was asked for; 1 if an axis is worse than it may be, or is left out unasked."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench/check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", type=_families, default=FAMILIES, metavar="FAMILY,...")
    parser.add_argument("--leave-out", action="store_true")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--fanout", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    known = baseline.load()
    if given.table:
        print("\n\n".join(tables.tables(known).values()))
        return 0
    if given.fanout:
        known["fanout"] = tables.fan_out_of(given.fanout)
    else:
        found, missing = _measured(given.only, known, thoroughly=given.update)
        incomplete = left_out(missing, asked=given.leave_out)
        if not given.update:
            return int(_worse(found) or incomplete)
        if incomplete:
            return 1
        known = baseline.updated(known, found)
    baseline.save(known)
    tables.write(known)
    return 0


def _measured(
    families: tuple[Family, ...], known: dict[str, object], *, thoroughly: bool
) -> tuple[list[Found], dict[str, str]]:
    """What was found, and the families that were left out with what they lack."""
    expected = baseline.expected_of(known)
    found: list[Found] = []
    missing: dict[str, str] = {}
    print(tables.HEAD, flush=True)
    for family in families:
        if lack := family.lacks():
            missing[family.name] = lack
            continue
        began = time.monotonic()
        with _own_cores():
            now = measured(family, expected, thoroughly=thoroughly)
        for each in now:
            print(tables.row(each), flush=True)
        found += now
        print(f"{family.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found, missing


def left_out(missing: Mapping[str, str], *, asked: bool) -> bool:
    """Name the families that were left out, with what they lack; whether that fails the check."""
    for name, lack in missing.items():
        print(f"LEFT OUT {name}: this machine lacks {lack}")
    if not missing or asked:
        return False
    print("scripts/debian and scripts/venv bench bring it; --leave-out does without.")
    return True


def _worse(found: list[Found]) -> bool:
    worse = losses(found)
    for each in worse:
        print(f"WORSE {each}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    return bool(worse)


@contextmanager
def _own_cores() -> Iterator[None]:
    """Bring back the cores that this process may use: those that measure servers take one."""
    usable = os.sched_getaffinity(0)
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def _families(text: str) -> tuple[Family, ...]:
    names = text.split(",")
    chosen = tuple(family for family in FAMILIES if family.name in names)
    if unknown := set(names) - {family.name for family in FAMILIES}:
        known = ", ".join(family.name for family in FAMILIES)
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {known}")
    return chosen


if __name__ == "__main__":
    # What was started is stopped then, and its folders are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(main())
    except RigError as error:
        sys.exit(f"check: {error}")
