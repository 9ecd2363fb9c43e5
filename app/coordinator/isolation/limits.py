"""What a run's processes may use: applied by the first process before it starts the ranks."""

import os
import resource
from typing import Any


def apply_limits(limits: dict[str, Any]) -> None:
    """Hold this process and all that it starts to the section `limits` of a run's specification.

    `rlimits` has limits by the ends of their names (`NOFILE`), soft and hard
    alike; one above what this process may set is cut down to that. `cores`
    are the numbers of the cores to run on. Raises OSError, ValueError.
    """
    for name, value in limits.get("rlimits", {}).items():
        which = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(which)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (bound, bound))
    if cores := limits.get("cores"):
        os.sched_setaffinity(0, cores)
