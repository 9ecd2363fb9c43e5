"""File descriptors: each watcher takes one, and the usual limit of a process is 1024."""

import structlog

from app.files import descriptors
from app.hub.settings import HubSettings

log = structlog.get_logger()

#: What is open beside watchers and feeds: requests, the database, gRPC, sockets being taken over.
_RESERVE = 1000


def raise_limit(hub: HubSettings) -> int | None:
    """Raise this process's limit to what its watchers may need, as far as it is allowed to.

    Returns the limit, None if there is none. Logs a warning if it is too low
    for `max_watchers`: beyond it, connections are closed at once instead of
    answered with a reason.
    """
    needed = hub.max_watchers + hub.max_feeds + _RESERVE
    limit = descriptors.raise_limit(needed)
    if limit is not None and limit < needed:
        log.warning(
            "descriptor_limit_too_low",
            limit=limit,
            needed=needed,
            advice="Raise the hard limit (ulimit -Hn), or lower SCAIMIND_HUB_MAX_WATCHERS.",
        )
    return limit
