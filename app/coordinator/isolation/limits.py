"""Holds a run's processes to what its section `limits` says; the rest of it is watched."""

import os
import resource
from contextlib import suppress
from typing import Any

from app.coordinator.isolation.kernel import make_dumpable, make_undumpable


def apply_limits(limits: dict[str, Any]) -> None:
    """Hold this process and all that it starts to the section `limits` of a run's specification.

    `rlimits` has limits by the ends of their names (`NOFILE`), soft and hard
    alike; one above what this process may set is cut down to that. `cores`
    are the numbers of the cores to run on, `nice` is how much lower the
    priority is, `oom_score_adj` how much sooner the kernel ends it when memory
    is short. Call it before Landlock closes `/proc`. Raises OSError, ValueError.
    """
    for name, value in limits.get("rlimits", {}).items():
        which = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(which)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (bound, bound))
    if cores := limits.get("cores"):
        os.sched_setaffinity(0, cores)
    if nice := limits.get("nice"):
        os.nice(nice)
    if score := limits.get("oom_score_adj"):
        _go_first(score)


def _go_first(score: int) -> None:
    # A process that is not dumpable may not write it, unless it is root.
    make_dumpable()
    try:
        # Some containers forbid it: then the kernel chooses by memory alone.
        with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(score))
    finally:
        make_undumpable()
