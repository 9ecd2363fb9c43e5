"""How many streams a process, a tenant and a user may have open."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from app.caller import Caller
from app.errors import RATE_LIMITED, ApiError
from app.hub.observer import HubObserver
from app.hub.settings import HubSettings
from app.hub.upstream import JobKey

#: What a stream counts towards: the process, a tenant or a user.
Group: TypeAlias = tuple[str, ...]

#: Retry-After of a refusal, in seconds.
RETRY_AFTER = 10

_TEXTS: Mapping[str, str] = {
    "process": "This replica has reached its limit of open streams. Try again later.",
    "tenant": "Your tenant has reached its limit of open streams. Close some and try again.",
    "user": "You have reached your limit of open streams. Close some and try again.",
    "tenant_feeds": "Your tenant has reached its limit of watched jobs on this replica. Close some "
    "streams and try again.",
    "feeds": "This replica has reached its limit of watched jobs. Try again later.",
}


class StreamLimits:
    """Counts open streams under everything that limits them."""

    def __init__(self, *, settings: HubSettings, observer: HubObserver) -> None:
        self._settings = settings
        self._observer = observer
        self._counts: Counter[Group] = Counter()

    def count_in(self, caller: Caller) -> Sequence[Group]:
        """Count one more stream; returns what `count_out` undoes.

        Raises `ApiError` RATE_LIMITED, and counts nothing, if a limit is reached.
        """
        groups = self._groups(caller)
        for group, (limit, name) in groups.items():
            if self._counts[group] >= limit:
                raise self.refusal(name)
        self._counts.update(groups.keys())
        return tuple(groups)

    def count_out(self, groups: Sequence[Group]) -> None:
        """Undo one `count_in`."""
        for group in groups:
            self._counts[group] -= 1
            if not self._counts[group]:
                del self._counts[group]

    def check_feed(self, tenant_id: str, feeds: Iterable[JobKey]) -> None:
        """Raise `ApiError` RATE_LIMITED if a tenant cannot have a feed besides these."""
        tenants = Counter(key.tenant_id for key in feeds)
        most = self._settings.max_feeds
        if tenants.total() >= most:
            raise self.refusal("feeds")
        if tenants[tenant_id] >= max(int(most * self._settings.max_feeds_share), 1):
            raise self.refusal("tenant_feeds")

    def refusal(self, limit: str) -> ApiError:
        """Return the error of a caller that met a limit, and note it."""
        self._observer.watcher_refused(limit)
        return ApiError(RATE_LIMITED, _TEXTS[limit], retry_after=RETRY_AFTER)

    def _groups(self, caller: Caller) -> dict[Group, tuple[int, str]]:
        settings = self._settings
        groups: dict[Group, tuple[int, str]] = {
            (): (settings.max_watchers, "process"),
            (caller.tenant_id,): (settings.max_watchers_per_tenant, "tenant"),
        }
        if caller.user_id is not None:
            user = (caller.tenant_id, caller.user_id)
            groups[user] = (settings.max_watchers_per_user, "user")
        return groups
