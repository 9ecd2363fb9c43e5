"""Has the nodes let go of what they keep of runs that have ended, whenever they can be asked."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final

import structlog

from app.coordinator.engines.engine import CannotLaunch
from app.coordinator.engines.remote.calls import DriverAway, NodeLost, NothingThere
from app.coordinator.engines.remote.driver_client import DriverClient
from app.coordinator.engines.remote.run_files import Launched
from app.coordinator.failures import FailureBackoff, LeadershipLost
from generated.mindcoordinator.internal.v1.engine_pb2 import RunRef

#: Seconds for what ended runs hold on the nodes to be let go of when the coordinator leaves.
_LEAVE: Final = 5.0

log = structlog.get_logger("scaimind.coordinator")


class Leftovers:
    """Knows which runs are needed. A node that joins or returns is asked what it keeps; of that,
    what belongs to no such run is removed. Everything runs on one event loop."""

    def __init__(self, client: DriverClient) -> None:
        self._client = client
        #: The job's id and the number of each run that is needed.
        self._needed: set[tuple[str, int]] = set()
        #: Of the coordinator; None until it is known which runs it goes on with.
        self._term: int | None = None
        #: Nodes that joined before that.
        self._unasked: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, runs: Iterable[tuple[str, int]], *, term: int) -> None:
        """Go on with these runs, and ask the nodes from now on."""
        self._needed.update(runs)
        self._term = term
        unasked, self._unasked = self._unasked, set()
        for node_id in unasked:
            self.node_is_there(node_id)

    def need(self, job_id: str, run: int) -> None:
        """Keep what there is of a run. A number is never used for another run."""
        self._needed.add((job_id, run))

    def node_is_there(self, node_id: str) -> None:
        """Ask a node that joined or returned."""
        if self._term is None:
            self._unasked.add(node_id)
        else:
            self._own(self._sweep(node_id, self._term), f"leftovers on {node_id}")

    def forget(self, launched: Launched, *, term: int) -> None:
        """Remove what nodes keep of a run that has ended, without waiting for it.

        A node that is away is asked when it returns.
        """
        job = launched.whole.job
        self._needed.discard((job.job_id, job.run_count))
        refs = [launched.ref(node_id, term=term) for node_id in launched.node_ids]
        self._own(self._forget(refs), f"records of {job.job_id}")

    async def close(self) -> None:
        """Leave the rest to the next coordinator."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LEAVE)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _sweep(self, node_id: str, term: int) -> None:
        backoff = FailureBackoff()
        while True:
            try:
                found = await self._client.list_runs(node_id)
            except NodeLost:
                return
            except DriverAway as error:
                seconds = backoff.after_failure()
                if backoff.worth_a_line:
                    log.info("leftovers_not_listed", node_id=node_id, reason=str(error))
                await asyncio.sleep(seconds)
            else:
                break
        # What is not needed by now never is again: only newer runs begin.
        left = [each for each in found if each not in self._needed]
        for job_id, run in left:
            log.info("leftovers_found", node_id=node_id, job_id=job_id, run=run)
        refs = [RunRef(job_id=job_id, run=run, node_id=node_id, term=term) for job_id, run in left]
        await self._forget(refs, living=True)

    async def _forget(self, refs: Iterable[RunRef], *, living: bool = False) -> None:
        """`living` is whether something of them may live yet.

        Goes on until each was asked: an agent that is left holds what the next run needs.
        """
        backoff = FailureBackoff()
        while True:
            refs = [ref for ref in refs if not await self._forgotten(ref, backoff, living=living)]
            if not refs:
                return
            await asyncio.sleep(backoff.after_failure())

    async def _forgotten(self, ref: RunRef, backoff: FailureBackoff, *, living: bool) -> bool:
        """Have one let go of. Returns False if it has to be asked for again."""
        try:
            if living:
                await self._client.kill_run(ref)
            await self._client.forget_run(ref)
        except (DriverAway, NodeLost, NothingThere, CannotLaunch, LeadershipLost) as error:
            # A node that is lost is asked when it returns; of others they take up space there.
            again = isinstance(error, DriverAway)
            if not again or backoff.worth_a_line:
                log.warning(
                    "records_left_on_node",
                    node_id=ref.node_id,
                    job_id=ref.job_id,
                    run=ref.run,
                    reason=str(error),
                )
            return not again
        return True

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
