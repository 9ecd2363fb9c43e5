"""What of a limit those ahead of a job need."""

from collections.abc import Collection, Sequence

from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.queue_rules import Account, Limit, total_gpus
from app.coordinator.scheduling.backfill.surplus import Ahead, can_fill
from app.coordinator.scheduling.job_table import JobTable
from app.coordinator.scheduling.queues.candidates import Lane, has_gpus
from app.coordinator.scheduling.queues.usage import Excess, held_of


class Claims:
    """Says whether a job that holds its share of a limit for ever keeps anybody ahead from it."""

    def __init__(self, table: JobTable) -> None:
        self._table = table
        #: The GPUs of each job under a limit, as far as they were asked for.
        self._held: dict[Account, list[int]] = {}

    def placed(self) -> None:
        """Note that a job has been placed."""
        self._held.clear()

    def excess(
        self, limit: Limit, job: JobRecord, ahead: Sequence[Ahead], unseen: Collection[Lane]
    ) -> Excess | None:
        """The limit, if those of `ahead`, which are subject to it, need what a job would hold;
        None if they do not. `unseen` are the lanes of those ahead that were not looked at."""
        if not ahead and not unseen:
            return None
        limits, gpus, usage = limit.limits, total_gpus(job.resource_request), self._table.usage
        lanes = [lane for lane in unseen if self._table.candidates.waits(limit.account, lane)]
        if limits.jobs is not None:
            jobs = usage.of(limit.account).jobs + sum(each.jobs for each in ahead)
            if lanes or (ahead and jobs >= limits.jobs):
                return usage.excess_of(limit, of_gpus=False, of_ahead=True)
        if limits.gpus is not None and gpus:
            sizes = [*self._sizes(limit)]
            for request, count in ahead:
                if size := total_gpus(request):
                    sizes += [size] * min(count, limits.gpus // size)
            claimed = len(sizes) > len(self._sizes(limit)) and can_fill(sizes, gpus, limits.gpus)
            if claimed or any(map(has_gpus, lanes)):
                return usage.excess_of(limit, of_gpus=True, of_ahead=True)
        return None

    def _sizes(self, limit: Limit) -> list[int]:
        found = self._held.get(limit.account)
        if found is None:
            found = self._held[limit.account] = [
                gpus
                for job in (*self._table.holding.values(), *self._table.promised.values())
                if limit.covers(job) and (gpus := held_of(job).gpus)
            ]
        return found
