"""Attacks the scheduler with jobs, nodes and rules at random, and checks every decision.

    .venv/bin/python -m scripts.adversary                          # 200 attacks
    .venv/bin/python -m scripts.adversary --seed 5000 --count 20000
    .venv/bin/python -m scripts.adversary --seed 42 --count 1      # one of them again

A model of the cluster, which knows nothing of how the scheduler decides, checks after
each event: nobody has more than there is, or than a limit allows; a gang is whole;
a node that takes no jobs is given none; whoever passes others is in the way of none
of them; nobody is preempted in vain, whichever run ends first, or need not be; order,
packing and topology; that positions, waits and reasons are true; that a restart decides
the same; and that all comes to an end. Stops at the first attack that breaks something,
and tells its story; --go-on goes on, and tells only what broke.
"""

import argparse
import sys
import time

from scripts.adversary.run import Broken, attack


def main() -> int:
    """Attack; 1 if something broke."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.adversary",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="of the first attack")
    parser.add_argument("--count", type=int, default=200, help="attacks")
    parser.add_argument("--steps", type=int, default=80, help="events of each attack")
    parser.add_argument("--seconds", type=float, default=None, help="stop after so many")
    parser.add_argument("--go-on", action="store_true", help="go on after what broke")
    given = parser.parse_args()
    began, broken, done = time.process_time(), 0, 0
    for seed in range(given.seed, given.seed + given.count):
        if given.seconds is not None and time.process_time() - began > given.seconds:
            break
        done += 1
        try:
            attack(seed, steps=given.steps)
        except Broken as error:
            broken += 1
            print(str(error).split("\n", 1)[0] if given.go_on else error, flush=True)
            if not given.go_on:
                break
    spent = time.process_time() - began
    print(
        f"{done:,} attacks of {given.steps} events, {broken} broke something; {spent:.0f} s of CPU"
    )
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
