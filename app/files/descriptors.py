"""The limit on this process's open file descriptors."""

import resource


def raise_limit(needed: int) -> int | None:
    """Raise the soft limit to `needed`, as far as the hard limit allows; it is never lowered.

    Returns the limit as it is then, None if there is none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return limit()


def limit() -> int | None:
    """Return the soft limit, None if there is none."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
