"""What is measured, and what is to be reached."""

from dataclasses import dataclass

#: The one job of the benchmark's coordinator, and what opens it.
TENANT = "bench"
JOB = "fanout"
SECRET = "fanout-bench"  # noqa: S105 - between two processes of one benchmark, on loopback
#: Most entries of a message, unless asked otherwise, and of a page.
BATCH = 1000

#: The gateway's watchers wait at most this long for 99 % of the lines.
TARGET_P99_MS = 60.0
#: Times nchan's latency, in the median and for 99 %, that the gateway's may be while it has room.
TARGET_LATENCY = 1.1
#: The median that it is to have, in milliseconds, where nchan is saturated.
TARGET_P50_MS = 10.0
#: Most of its core that the gateway may use.
TARGET_SHARE = 0.80
#: Most memory that an idle watcher of the gateway may cost.
TARGET_WATCHER_KIB = 12.0
#: Times the CPU per delivery of a job's own stream that a stream over many jobs may need.
TARGET_EVENTS = 1.5
#: Jobs that such a stream follows: the one with the log, and quiet ones.
EVENTS_JOBS = 30
#: Most memory that an idle watcher of such a stream may cost.
TARGET_EVENTS_KIB = 16.0
#: Watchers that `--memory` connects.
IDLE_WATCHERS = 5000


@dataclass(frozen=True, slots=True)
class Workload:
    """One job's log at a rate, and how many watch it."""

    name: str
    watchers: int
    #: Lines per second.
    rate: int
    #: By peer, how many times less CPU per delivery the gateway is to need.
    targets: tuple[tuple[str, float], ...] = ()


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("W1", 500, 50, (("nchan", 1.0),)),
        Workload("W2", 500, 200, (("nchan", 1.0), ("plain", 20.0))),
        Workload("W3", 500, 1000, (("nchan", 5.0),)),
        Workload("W4", 2000, 50, (("nchan", 1.0),)),
    )
}

#: The plain way saturates its core with about twice this, far below W1: it is
#: measured once, here, and compared per delivery.
PLAIN = Workload("P", 100, 50)
