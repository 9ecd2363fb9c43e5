"""Many jobs in one stream, to be awaited."""

from collections.abc import AsyncIterator, Mapping

from scaimind import models
from scaimind.asynchronous.driver import AsyncDriver
from scaimind.core.events import Event, View, follow_events


class AsyncEvents(AsyncIterator[Event]):
    """What happens to the selected jobs, each event once; `jobs` is current before each.

    It has no end: close it, or leave the loop.
    """

    def __init__(
        self, driver: AsyncDriver, query: tuple[tuple[str, str], ...], after: str | None
    ) -> None:
        self._view = View()
        self._view.link.last_id = after or ""
        self._items = driver.run(follow_events(query, self._view))

    @property
    def jobs(self) -> Mapping[str, models.JobState]:
        """The selected jobs by id."""
        return self._view.jobs

    @property
    def nodes(self) -> Mapping[str, models.Node]:
        """The nodes by id, where they were asked for."""
        return self._view.nodes

    @property
    def queue(self) -> models.GetQueueStatusResponse | None:
        """The tenant's queue, where it was asked for."""
        return self._view.queue

    @property
    def synced(self) -> bool:
        """Whether the whole state has come."""
        return self._view.synced

    @property
    def cursor(self) -> str:
        """Where to go on later with the same selection; empty before the first bookmark."""
        return self._view.link.last_id

    async def __anext__(self) -> Event:
        item: Event = await anext(self._items)
        return item

    async def close(self) -> None:
        """Close the connection."""
        await self._items.aclose()
