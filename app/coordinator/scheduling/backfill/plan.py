"""When and where jobs start, one after the other: where each fits between those before it, and no
limit of a queue or a tenant is in the way."""

from collections.abc import Callable, Collection, Mapping
from typing import Final

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.queue_rules import SchedulingRules
from app.coordinator.scheduling.backfill.profile import FOREVER
from app.coordinator.scheduling.backfill.quotas import Quotas
from app.coordinator.scheduling.backfill.timeline import STOPPED, Reservation, Timeline
from app.coordinator.scheduling.preemption.promises import Promises

#: How often a plan goes back and forth between room and limits.
_MOST_TRIES: Final = 16


class Plan:
    """What is held of nodes and under limits from now on. Times are microseconds from now."""

    def __init__(
        self,
        cluster: Cluster,
        holding: Mapping[str, JobRecord],
        end: Callable[[JobRecord], int],
        rules: SchedulingRules,
        promises: Promises | None = None,
    ) -> None:
        """`holding` are the jobs that hold something, and `end` says until when; what is promised
        is held from when what is being stopped has ended."""
        self.timeline = Timeline(cluster, holding, end, promises)
        limited = holding.values() if rules.limited else ()
        self.quotas = Quotas(rules, ((job, end(job)) for job in limited))
        for job in promises.jobs if promises and rules.limited else ():
            self.quotas.add(job, 0, min(STOPPED + (job.max_runtime or FOREVER), FOREVER))

    def reserve(
        self, job: JobRecord, usable: Collection[str], length: int, start: int
    ) -> Reservation | None:
        """Hold what a job asks for where it fits first, from `start` on; None if that cannot be
        said, and nothing is held then."""
        for _ in range(_MOST_TRIES):
            start = self.quotas.earliest(job, length, start)
            if start >= FOREVER:
                return None
            found = self.timeline.earliest(job.resource_request, usable, length, start=start)
            if found is None:
                return None
            if found.start == start:
                self.timeline.reserve(found, length)
                self.quotas.add(job, start, start + length)
                return found
            start = found.start
        return None
