"""Who is to be told when something about a job, or about a tenant's jobs, is new.

Lives on the event loop.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from app.coordinator.errors import Overloaded
from app.coordinator.jobs.model import JobRecord

_S = TypeVar("_S")


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
    """The subscriptions by job and by tenant, up to a number of them in all."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._subscriptions: dict[str, set[Subscription]] = {}
        self._tenants: dict[str, set[asyncio.Event]] = {}
        #: Grows with every change of the store.
        self.commits = 0

    def __len__(self) -> int:
        """How many watchers there are."""
        return self._count

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator[Subscription]:
        """A subscription that ends with the block. Raises Overloaded."""
        with self._listed(self._subscriptions, job_id, Subscription()) as subscription:
            yield subscription

    @contextmanager
    def subscribe_tenant(self, tenant_id: str) -> Iterator[asyncio.Event]:
        """What is set whenever a change of the tenant's jobs is stored, until the block ends.
        Raises Overloaded."""
        with self._listed(self._tenants, tenant_id, asyncio.Event()) as news:
            yield news

    @contextmanager
    def _listed(self, groups: dict[str, set[_S]], key: str, subscription: _S) -> Iterator[_S]:
        if self._count >= self._limit:
            raise Overloaded(
                f"jobs are watched by {self._limit} streams, which is the limit (max_watches);"
                " close some, or try again later"
            )
        group = groups.setdefault(key, set())
        group.add(subscription)
        self._count += 1
        try:
            yield subscription
        finally:
            self._count -= 1
            group.remove(subscription)
            if not group:
                del groups[key]

    def committed(self, tenants: frozenset[str]) -> None:
        """A transaction is stored that has changed jobs of these tenants."""
        self.commits += 1
        for tenant_id in tenants:
            for news in self._tenants.get(tenant_id, ()):
                news.set()

    def wake(self, job_id: str) -> None:
        """The job's log or metrics have grown."""
        for subscription in self._subscriptions.get(job_id, ()):
            subscription.news.set()

    def announce(self, job: JobRecord) -> None:
        """The job's status or message has changed."""
        for subscription in self._subscriptions.get(job.job_id, ()):
            subscription.changes.append(job)
            subscription.news.set()
