"""File descriptors: each watcher takes one, and the usual limit of a process is 1024."""

import resource

import structlog

from app.hub.settings import HubSettings

log = structlog.get_logger()

#: What is open beside watchers and feeds: requests, the database, gRPC, sockets being taken over.
_RESERVE = 1000


def raise_limit(hub: HubSettings) -> int:
    """Raise this process's limit to what its watchers may need, as far as it is allowed to.

    Returns the limit. Logs a warning if it is too low for `max_watchers`:
    beyond it, connections are reset instead of refused with a reason.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = hub.max_watchers + hub.max_feeds + _RESERVE
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    if soft != resource.RLIM_INFINITY and soft < needed:
        log.warning(
            "descriptor_limit_too_low",
            limit=soft,
            needed=needed,
            advice="Raise the hard limit (ulimit -Hn), or lower SCAIMIND_HUB_MAX_WATCHERS.",
        )
    return soft
