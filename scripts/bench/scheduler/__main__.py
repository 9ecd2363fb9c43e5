"""Prints what the scheduler costs with very many jobs waiting, and how a day goes.

    .venv/bin/python -m scripts.bench.scheduler                    # both
    .venv/bin/python -m scripts.bench.scheduler cost --jobs 20000
    .venv/bin/python -m scripts.bench.scheduler replay --seed 7
    .venv/bin/python -m scripts.bench.scheduler replay --trace cluster_job_log.json

`cost` compares --jobs waiting jobs with 100, in one process and in turns, by
CPU time: the middle of --rounds submissions and cancellations, which are stored too, of as many
pages of the queue, and of decisions (a run ends, and the next job is placed). Exits with 1
if one costs more than 2.5 times as much.

`replay` plays a day: a made one, or that of --trace: a CSV with a header that
has a time of submission, a duration and a number of GPUs (the names of the
Philly and Alibaba traces, and of simulators that use them), Alibaba's
pai_task_table.csv, or Philly's cluster_job_log. It prints the use of the GPUs and
the waits beside those of strict order, where nobody is passed.
"""

import argparse
import sys
from pathlib import Path

from scripts.bench.scheduler import cost, replay, traces


def main() -> int:
    """Print what was asked for; 1 if the cost grows too fast."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.scheduler",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", choices=("all", "cost", "replay"), default="all")
    parser.add_argument(
        "--jobs", type=int, nargs="+", default=[1000, 20_000, 100_000], help="waiting jobs (cost)"
    )
    parser.add_argument("--rounds", type=int, default=60, help="submissions and decisions (cost)")
    parser.add_argument("--seed", type=int, default=1, help="of the made trace (replay)")
    parser.add_argument("--day", type=int, default=600, help="jobs of the made trace (replay)")
    parser.add_argument("--trace", type=Path, help="replay this file instead of a made trace")
    parser.add_argument("--most", type=int, default=20_000, help="jobs that are read of --trace")
    parser.add_argument("--nodes", type=int, default=8, help="nodes (replay)")
    parser.add_argument("--gpus", type=int, default=8, help="GPUs of each node (replay)")
    given = parser.parse_args()
    if min(given.jobs) < 1:
        parser.error("--jobs must be at least 1")
    for name in ("rounds", "day", "most", "nodes", "gpus"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1")
    failed = 0
    if given.what in ("all", "cost"):
        failed += cost.report(given.jobs, rounds=given.rounds)
    if given.what in ("all", "replay"):
        try:
            trace = (
                traces.read(given.trace, most=given.most)
                if given.trace
                else traces.made(given.seed, jobs=given.day)
            )
        except (OSError, ValueError) as error:
            parser.error(f"--trace: {error}")
        replay.report(trace, nodes=given.nodes, gpus=given.gpus)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
