"""Who is to be told when something about a job is new. Lives on the event loop."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.coordinator.errors import Overloaded
from app.coordinator.jobs.model import JobRecord


@dataclass(slots=True, eq=False)
class Subscription:
    """One watcher's subscription."""

    news: asyncio.Event = field(default_factory=asyncio.Event)
    #: Versions of the job whose status or message is new, oldest first.
    changes: list[JobRecord] = field(default_factory=list)

    def take_changes(self) -> list[JobRecord]:
        """The versions since the last call."""
        changes, self.changes = self.changes, []
        return changes

    def put_back(self, changes: list[JobRecord]) -> None:
        """Undo `take_changes`."""
        self.changes[:0] = changes


class JobEvents:
    """The subscriptions by job, up to a number of them."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._subscriptions: dict[str, set[Subscription]] = {}

    def __len__(self) -> int:
        """How many watchers there are."""
        return self._count

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator[Subscription]:
        """A subscription that ends with the block. Raises Overloaded."""
        if self._count >= self._limit:
            raise Overloaded(
                f"jobs are watched by {self._limit} streams, which is the limit (max_watches);"
                " close some, or try again later"
            )
        subscription = Subscription()
        group = self._subscriptions.setdefault(job_id, set())
        group.add(subscription)
        self._count += 1
        try:
            yield subscription
        finally:
            self._count -= 1
            group.remove(subscription)
            if not group:
                del self._subscriptions[job_id]

    def wake(self, job_id: str) -> None:
        """The job's log or metrics have grown."""
        for subscription in self._subscriptions.get(job_id, ()):
            subscription.news.set()

    def announce(self, job: JobRecord) -> None:
        """The job's status or message has changed."""
        for subscription in self._subscriptions.get(job.job_id, ()):
            subscription.changes.append(job)
            subscription.news.set()
