"""What a stream over many jobs needs of whoever keeps the states of its jobs."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from app.errors import ApiError
from app.hub.events.views import Views
from app.hub.feed import Feed
from app.hub.selection.record import TenantRecord

#: Returns the feed of a tenant's job, which may be opening, for the request of this id. Raises
#: `ApiError` at a limit.
GetFeed: TypeAlias = Callable[[str, str, str], Feed]


class StatesSource(Protocol):
    """Keeps a record of states up to date while somebody holds it."""

    record: TenantRecord
    views: Views
    #: Why it is over, once it is.
    failure: ApiError | None

    def hold(self) -> None:
        """Keep it alive until `release`."""

    def release(self) -> None:
        """Undo one `hold`."""

    async def ready(self, *, nodes: bool, queue: bool) -> None:
        """Wait until everything is there that is wanted. Raises `ApiError`."""

    async def reach(self, version: int) -> bool:
        """Whether all that changed behind a version is known. Raises `ApiError`."""

    async def aclose(self) -> None:
        """End all calls and timers; those who watched must have left."""
