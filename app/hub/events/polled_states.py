"""The states of named jobs, read again and again, of a coordinator that does not stream them.

One for each tenant: a job is read once for all selections that name it.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import structlog

from app.caller import Caller
from app.errors import JOB_NOT_FOUND, ApiError
from app.hub.log_context import shared_context
from app.hub.selection.states import ENDED, JobState, StatesUpstream

log = structlog.get_logger()

#: Takes a job's newest state; None if it is not there.
TakeState: TypeAlias = Callable[[str, JobState | None], None]

#: Reads at the same time.
_AT_ONCE: Final = 8
#: Of how many rounds one is about jobs, too, that have ended or are not there.
_SELDOM: Final = 12
#: Pauses are at least so many times as long as the round before.
_REST: Final = 4


class PolledStates:
    """Reads the jobs that somebody listens to, every `interval` seconds, until it is closed."""

    def __init__(self, tenant: Caller, *, upstream: StatesUpstream, interval: float) -> None:
        self._tenant = tenant
        self._upstream = upstream
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[str, dict[TakeState, None]] = {}
        self._known: dict[str, JobState | None] = {}
        #: The number of the newest read, and of the newest whose answer was taken, by job.
        self._reads = 0
        self._taken: dict[str, int] = {}
        self._task = self._loop.create_task(
            self._poll(),
            name=f"hub-poll-states-{tenant.tenant_id}",
            context=shared_context(tenant_id=tenant.tenant_id, request_id=tenant.request_id),
        )

    @property
    def idle(self) -> bool:
        """Whether nobody listens."""
        return not self._listeners

    def listen(self, job_id: str, take: TakeState) -> None:
        """Call with each state of a job that is read from now on."""
        self._listeners.setdefault(job_id, {})[take] = None

    def unlisten(self, job_id: str, take: TakeState) -> None:
        """Call no more."""
        listeners = self._listeners.get(job_id, {})
        listeners.pop(take, None)
        if not listeners and job_id in self._listeners:
            del self._listeners[job_id]
            self._known.pop(job_id, None)
            self._taken.pop(job_id, None)

    async def read(self, job_id: str) -> None:
        """Read a job now, and pass its state on. Raises `ApiError`, but not for one not there."""
        self._reads += 1
        number = self._reads
        state: JobState | None = None
        try:
            state = await self._upstream.read_state(self._tenant, job_id)
        except ApiError as error:
            if error.kind is not JOB_NOT_FOUND:
                raise
        # A read that began later says what is newer, whichever answer comes first.
        if number < self._taken.get(job_id, 0) or job_id not in self._listeners:
            return
        self._taken[job_id] = number
        self._known[job_id] = state
        for take in list(self._listeners[job_id]):
            take(job_id, state)

    async def aclose(self) -> None:
        """Read no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _poll(self) -> None:
        rounds, pause = 0, self._interval
        while True:
            await asyncio.sleep(pause)
            rounds += 1
            began = self._loop.time()
            jobs = [job for job in self._listeners if rounds % _SELDOM == 0 or self._changes(job)]
            for first in range(0, len(jobs), _AT_ONCE):
                await self._read_some(jobs[first : first + _AT_ONCE])
            pause = max(self._interval, _REST * (self._loop.time() - began))

    def _changes(self, job_id: str) -> bool:
        """Whether a job is there, and goes on."""
        state = self._known.get(job_id)
        return state is not None and state.status not in ENDED

    async def _read_some(self, jobs: Sequence[str]) -> None:
        for error in await asyncio.gather(*map(self.read, jobs), return_exceptions=True):
            if isinstance(error, ApiError):
                # The next round asks again; the jobs' own streams tell of an outage.
                log.debug("hub_poll_states_failed", code=error.kind.code)
            elif isinstance(error, Exception):
                log.error("hub_poll_states_crashed", exc_info=error)
