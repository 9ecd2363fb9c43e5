"""Lists jobs without holding up the event loop: a count over a million jobs takes its time."""

from functools import partial
from typing import Final

from app.coordinator.jobs.listing import Filters, JobsPage, Order, list_jobs
from app.coordinator.jobs.store import Store

#: Bytes of the database that are read without copying them, if it is that large.
_MAPPED: Final = 1024**3


class JobLister:
    """Reads with a connection and in a thread of its own. It sees what is committed.

    Nothing is open or running before the first page.
    """

    def __init__(self, store: Store) -> None:
        self._connection = store.reader(thread_name="job lists", mapped=_MAPPED)

    async def page(
        self, tenant_id: str, *, filters: Filters, order: Order, page_size: int, page_token: str
    ) -> JobsPage:
        """A page, as `list_jobs` makes it. Raises InvalidArgument, sqlite3.Error,
        StoreUnavailable."""
        # The count and the page belong together.
        return await self._connection.run(
            partial(
                list_jobs,
                tenant_id=tenant_id,
                filters=filters,
                order=order,
                page_size=page_size,
                page_token=page_token,
            )
        )

    def close(self) -> None:
        """Wait for the page that is being read, and close the connection; before the store."""
        self._connection.close()
