"""The uploads and downloads that run: how many, for whom, and until when."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime

from app.caller import Caller
from app.drive.problems import busy
from app.errors import AUTH_EXPIRED, RATE_LIMITED, ApiError

#: Seconds after which a tenant that has reached its limit may try again.
_RETRY_AFTER = 5


class Transfers:
    """Bounds them, and ends those whose credential does not count any more.

    A tenant has half of `most`, so that one cannot keep out all others. `now` is
    the wall clock.
    """

    def __init__(self, *, most: int, now: Callable[[], datetime]) -> None:
        self._most = most
        self._most_per_tenant = max(1, most // 2)
        self._now = now
        self._by_tenant: Counter[str] = Counter()
        self._open: dict[asyncio.Timeout, tuple[str, ...]] = {}

    @asynccontextmanager
    async def running(self, caller: Caller) -> AsyncIterator[None]:
        """Go around a transfer.

        Raises `ApiError`: at once where there are too many, and from within
        (`AUTH_EXPIRED`) when the caller's credential ends or is revoked.
        """
        if self._by_tenant[caller.tenant_id] >= self._most_per_tenant:
            raise ApiError(
                RATE_LIMITED,
                f"Your tenant has {self._most_per_tenant} uploads and downloads open, which is"
                " its limit. Wait for one to end.",
                retry_after=_RETRY_AFTER,
            )
        if len(self._open) >= self._most:
            raise busy()
        left = None
        if caller.expires_at is not None:
            left = max(0.0, (caller.expires_at - self._now()).total_seconds())
        timeout = asyncio.timeout(left)
        self._by_tenant[caller.tenant_id] += 1
        try:
            async with timeout:
                self._open[timeout] = caller.revocable_by
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            raise ApiError(
                AUTH_EXPIRED, "The token expired or was revoked during the transfer."
            ) from None
        finally:
            self._open.pop(timeout, None)
            self._by_tenant[caller.tenant_id] -= 1
            if not self._by_tenant[caller.tenant_id]:
                del self._by_tenant[caller.tenant_id]

    def credentials(self) -> Iterable[str]:
        """Return the ids of the credentials and sessions behind the transfers that run."""
        return {each for revocable_by in self._open.values() for each in revocable_by}

    def revoke(self, credential_id: str) -> None:
        """End the transfers of a credential or session."""
        now = asyncio.get_running_loop().time()
        for timeout, revocable_by in list(self._open.items()):
            if credential_id in revocable_by and not timeout.expired():
                timeout.reschedule(now)
