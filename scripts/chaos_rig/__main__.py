"""The command line of `scripts/chaos`."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from scripts.chaos_rig import faults
from scripts.chaos_rig.lying import lying
from scripts.chaos_rig.programs import RigError
from scripts.chaos_rig.tally import Tally, table
from scripts.chaos_rig.world import World, world

Experiment: TypeAlias = Callable[[World, random.Random, float], Awaitable[Tally]]

#: Each experiment, and its share of the time.
EXPERIMENTS: Mapping[str, tuple[Experiment, float]] = {
    "network": (faults.network, 0.25),
    "processes": (faults.processes, 0.2),
    "many": (faults.many_jobs, 0.15),
    "lying": (lying, 0.1),
    "slow": (faults.slow_clients, 0.1),
    "shutdown": (faults.shutdown, 0.1),
    "clocks": (faults.clocks, 0.1),
}
#: Share of the time that starts and ends take.
OVERHEAD = 0.3


def main() -> int:
    """Run the experiments; 1 if something was lost or doubled silently, or an answer was wrong."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="about how long it takes")
    parser.add_argument("--seed", type=int, help="which faults, and when; printed if not given")
    parser.add_argument("--only", choices=EXPERIMENTS, help="run one experiment")
    parser.add_argument("--keep", type=Path, help="folder for the logs of the processes")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    print(f"seed {seed}, {arguments.minutes:g} minutes", flush=True)
    chosen = {arguments.only: EXPERIMENTS[arguments.only]} if arguments.only else EXPERIMENTS
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="scaimind-chaos-") as folder:
            kept = arguments.keep or Path(folder)
            kept.mkdir(parents=True, exist_ok=True)
            seconds = arguments.minutes * 60 * (1 - OVERHEAD)
            tallies = asyncio.run(run(kept, chosen, random.Random(seed), seconds))
    except RigError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(table(tallies))
    bad = [tally.name for tally in tallies if tally.bad]
    print(f"{time.monotonic() - began:.0f} s; " + (f"failed: {', '.join(bad)}" if bad else "good"))
    return 1 if bad else 0


async def run(
    folder: Path,
    chosen: Mapping[str, tuple[Experiment, float]],
    rng: random.Random,
    seconds: float,
) -> list[Tally]:
    """Run experiments one after the other in one world; `seconds` are theirs together."""
    whole = sum(share for _, share in chosen.values())
    tallies = []
    async with world(folder) as made:
        for name, (experiment, share) in chosen.items():
            print(f"{name} ...", flush=True)
            tallies.append(await experiment(made, rng, max(seconds * share / whole, 8.0)))
    return tallies


if __name__ == "__main__":
    sys.exit(main())
