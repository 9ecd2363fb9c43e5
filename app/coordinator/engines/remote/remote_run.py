"""A run on other machines, as its owner in the coordinator sees it."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final, TypeVar

import structlog
from typing_extensions import override

from app.coordinator.engines.engine import CannotLaunch, RunHandle
from app.coordinator.engines.remote.driver_client import (
    DriverAway,
    DriverClient,
    NodeLost,
    NothingThere,
)
from app.coordinator.engines.remote.known_nodes import KnownNodes
from app.coordinator.engines.remote.launch_file import Launched, read_launch, write_launch
from app.coordinator.engines.remote.merging import MergedRecords
from app.coordinator.engines.remote.part_records import PartRecords
from app.coordinator.failures import FailureBackoff, is_passing
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.scheduling.transitions import RunEnd
from app.coordinator.storage.job_directory import RunDir
from app.files.json_files import read_json, write_json
from generated.mindcoordinator.internal.v1.engine_pb2 import RunRecords, RunRef

#: Seconds: the longest pause between two attempts to reach a driver or an agent.
_LONGEST_PAUSE: Final = 2.0

log = structlog.get_logger("scaimind.coordinator")
_T = TypeVar("_T")


class RemoteRun(RunHandle):
    """Starts the parts of a run on its nodes, takes over what they record, and ends them together.

    All it does can be done again by the next one: what was launched and how it
    ended is in the run's directory on the coordinator's machine.
    """

    def __init__(
        self,
        directory: RunDir,
        *,
        term: int,
        leadership: Leadership,
        client: DriverClient,
        nodes: KnownNodes,
        lost_node_patience: float,
        writing: Executor,
        grew: Callable[[str], None],
        forget: Callable[[Launched], None],
    ) -> None:
        """`term` is that of the coordinator. `writing` has the threads that write records. `grew`
        is called with the job's id when they have grown, and `forget` once when nothing on the
        nodes is needed any more."""
        self._directory = directory
        self._term = term
        self._leadership = leadership
        self._client = client
        self._nodes = nodes
        self._patience = lost_node_patience
        self._writing = writing
        self._grew = grew
        self._forget = forget
        self._records: MergedRecords | None = None
        #: Writes go one behind the other.
        self._turn = asyncio.Lock()
        self._stop: bool | None = None
        self._asked = asyncio.Event()
        #: The nodes whose part has ended.
        self._over: set[str] = set()

    @override
    def stop(self, *, at_once: bool) -> None:
        self._stop = at_once
        self._asked.set()

    @override
    async def wait(self) -> RunEnd:
        if (end := await asyncio.to_thread(read_end, self._directory)) is not None:
            return end
        launched = await asyncio.to_thread(read_launch, self._directory)
        if launched is None:
            return RunEnd(exit_code=None, stopped=True)
        opening = asyncio.get_running_loop().run_in_executor(
            self._writing, MergedRecords, self._directory, launched.node_ids[0]
        )
        try:
            self._records = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # A thread cannot be cancelled, and whoever waits again needs the lock that it takes.
            opening.add_done_callback(_close_opened)
            raise
        try:
            end = await self._carried_out(launched)
            await self._write(lambda _: write_end(self._directory, end))
        finally:
            async with self._turn:
                records, self._records = self._records, None
                records.close()
        self._forget(launched)
        return end

    @override
    async def say(self, text: str) -> bool:
        if self._records is None:
            return False
        try:
            await self._say(text, warning=False)
        except OSError as error:  # the line is said when the run has ended
            log.warning("line_not_written", job_id=self._job_id, reason=error.strerror)
            return False
        return True

    @override
    async def unsaid(self) -> Sequence[str]:
        return ()

    @override
    async def all_said(self) -> None:
        """Do nothing: a line that was said is in the log."""

    @override
    def close(self) -> None:
        """Do nothing: what is open is `wait`'s."""

    async def _carried_out(self, launched: Launched) -> RunEnd:
        """Start the run unless it was, and follow it to its end. Raises OSError."""
        run = launched.whole.run
        await self._write(lambda records: records.announce([run.announcement, *run.warnings]))
        if not launched.started:
            end = await self._start(launched)
            if end is not None:
                return end
            launched = replace(launched, started=True)
            await self._write(lambda _: write_launch(self._directory, launched.whole, started=True))
        return await self._follow(launched)

    async def _start(self, launched: Launched) -> RunEnd | None:
        """Start all parts or none; returns how the run ended if it could not be started."""
        backoff = FailureBackoff(longest=_LONGEST_PAUSE)
        node_ids = launched.node_ids
        while self._stop is None:
            try:
                # All agents are there before anything is started on any node.
                ports = await _all(
                    *(self._client.open_run(self._ref(launched, node_id)) for node_id in node_ids)
                )
                address = self._nodes.address(node_ids[0])
                await _all(
                    *(
                        self._client.start_run(
                            self._ref(launched, node_id),
                            launched.part(node_id, address=address, port=ports[0]),
                        )
                        for node_id in node_ids
                    )
                )
            except CannotLaunch as error:
                text = f"The run could not be started: {error}."
                await self._say(text, warning=True)
                return await self._none_left(launched, RunEnd(exit_code=None, failure=text))
            except NodeLost as error:
                text = f"The run could not be started: node {error}."
                end = RunEnd(exit_code=None, failure=text, transient=True)
                return await self._none_left(launched, end)
            except DriverAway as error:
                seconds = backoff.after_failure()
                if backoff.worth_a_line:
                    log.warning("run_not_started", job_id=self._job_id, reason=str(error))
                await self._pause(seconds)
            else:
                return None
        return await self._none_left(launched, RunEnd(exit_code=None, stopped=True))

    async def _none_left(self, launched: Launched, end: RunEnd) -> RunEnd:
        """Return `end` once no part of a run lives that was not started as a whole."""
        await _all(*(self._killed(launched, node_id) for node_id in launched.node_ids))
        return end

    async def _killed(self, launched: Launched, node_id: str) -> None:
        backoff = FailureBackoff(longest=_LONGEST_PAUSE)
        while True:
            try:
                await self._client.kill_run(self._ref(launched, node_id))
            except NodeLost:
                if not await self._nodes.returned(node_id, patience=self._patience):
                    return
            except (DriverAway, CannotLaunch) as error:
                seconds = backoff.after_failure()
                if backoff.worth_a_line:
                    log.warning("part_not_ended", job_id=self._job_id, reason=str(error))
                await asyncio.sleep(seconds)
            else:
                return

    async def _follow(self, launched: Launched) -> RunEnd:
        """Take over what the parts record until all have ended."""
        parts = {
            asyncio.create_task(
                self._follow_part(launched, number, node_id),
                name=f"run of {self._job_id} on {node_id}",
            ): node_id
            for number, node_id in enumerate(launched.node_ids)
        }
        stopping = asyncio.create_task(self._pass_on(launched), name=f"stop of {self._job_id}")
        try:
            ends = []
            waiting = set(parts)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for part in done:
                    ends.append(part.result())
                    self._over.add(parts[part])
                if waiting and any(map(_has_failed, ends)) and self._stop is None:
                    # The others would wait for it.
                    self._end_the_rest()
            return self._merged(ends)
        finally:
            for task in (*parts, stopping):
                task.cancel()
            await asyncio.wait([*parts, stopping])

    def _end_the_rest(self) -> None:
        self._ended_by_part = True
        self._asked.set()

    def _merged(self, ends: Sequence[RunEnd]) -> RunEnd:
        """Return the end that decides, in the order in which the parts ended."""
        decisive = next(filter(_has_failed, ends), ends[0])
        stopped = self._stop is not None and any(end.stopped for end in ends)
        return replace(decisive, stopped=stopped)

    #: A part has failed, and the others are to end at once.
    _ended_by_part = False

    async def _pass_on(self, launched: Launched) -> None:
        """Ask all parts that live to stop, whenever that is asked for."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            rest = [each for each in launched.node_ids if each not in self._over]
            await asyncio.gather(*(self._tell(launched, node_id) for node_id in rest))

    async def _tell(self, launched: Launched, node_id: str) -> None:
        """Ask a part to stop if it is to. One that cannot be reached is asked when it can be."""
        at_once = True if self._ended_by_part else self._stop
        if at_once is None:
            return
        try:
            await self._client.stop_run(self._ref(launched, node_id), at_once=at_once)
        except (DriverAway, NodeLost, NothingThere, CannotLaunch) as error:
            log.info("part_not_asked", job_id=self._job_id, node_id=node_id, reason=str(error))

    async def _follow_part(self, launched: Launched, number: int, node_id: str) -> RunEnd:
        """Take over what one part records; returns how it ended."""
        assert self._records is not None
        records = PartRecords(self._records, number, node_id)
        backoff = FailureBackoff(longest=_LONGEST_PAUSE)
        while True:
            try:
                # Also of an agent that knows nothing of what was asked before.
                await self._tell(launched, node_id)
                line, snapshot = records.taken
                stream = self._client.watch_run(
                    self._ref(launched, node_id),
                    epoch=records.epoch,
                    after_line=line,
                    after_snapshot=snapshot,
                )
                async with aclosing(stream) as messages:
                    async for message in messages:
                        await self._write(partial(_take, records, message))
                        backoff.reset()
                        if records.end is not None:
                            return records.end
                        self._grew(self._job_id)
            except NodeLost:
                await self._lose(launched, node_id)
                if not await self._nodes.returned(node_id, patience=self._patience):
                    return await self._lost(records, "the node is lost")
            except (NothingThere, CannotLaunch):
                return await self._lost(records, "the node's disk is lost")
            except DriverAway as error:
                seconds = backoff.after_failure()
                if backoff.worth_a_line:
                    log.warning(
                        "part_not_followed",
                        job_id=self._job_id,
                        node_id=node_id,
                        failures=backoff.failures,
                        reason=str(error),
                    )
                await asyncio.sleep(seconds)

    async def _lose(self, launched: Launched, node_id: str) -> None:
        """End the other parts: what was on a lost node does not go on."""
        if len(self._over) + 1 < len(launched.node_ids) and self._stop is None:
            self._end_the_rest()

    async def _lost(self, records: "PartRecords", reason: str) -> RunEnd:
        text = (
            f"Gap: what the run wrote on node {records.node_id} behind its line"
            f" {records.taken[0]} there is lost, since {reason}."
        )
        await self._say(text, warning=True)
        failure = f"Node {records.node_id} was lost: {reason}."
        return RunEnd(exit_code=None, failure=failure, transient=True)

    async def _say(self, text: str, *, warning: bool) -> None:
        await self._write(lambda records: records.say(text, warning=warning))
        self._grew(self._job_id)

    async def _write(self, write: Callable[[MergedRecords], _T]) -> _T:
        """Write in a thread, again and again while the disk is full. Raises OSError."""
        backoff = FailureBackoff()
        while True:
            async with self._turn:
                records = self._records
                if records is None:
                    raise OSError(9, "the run's records are closed")
                loop = asyncio.get_running_loop()
                writing = loop.run_in_executor(self._writing, self._written, write, records)
                try:
                    return await asyncio.shield(writing)
                except asyncio.CancelledError:
                    # A thread cannot be cancelled, and the files must not be closed under it.
                    await asyncio.wait([writing])
                    raise
                except OSError as error:
                    if not is_passing(error):
                        raise
                    problem = error
            seconds = backoff.after_failure()
            if backoff.worth_a_line:
                log.warning("records_not_written", job_id=self._job_id, reason=problem.strerror)
            await asyncio.sleep(seconds)

    def _written(self, write: Callable[[MergedRecords], _T], records: MergedRecords) -> _T:
        # A coordinator that was replaced while it stood still has the files open yet.
        self._leadership.check()
        return write(records)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the run is asked to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        except TimeoutError:
            return

    def _ref(self, launched: Launched, node_id: str) -> RunRef:
        return launched.ref(node_id, term=self._term)

    @property
    def _job_id(self) -> str:
        return self._directory.job.path.name


def _close_opened(opening: asyncio.Future[MergedRecords]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


async def _all(*work: Coroutine[Any, Any, _T]) -> list[_T]:
    """Await all of them, also if one fails; then raise what the first one raised."""
    done = []
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done


def _take(part: PartRecords, message: RunRecords, _: MergedRecords) -> None:
    part.take(message)


def _has_failed(end: RunEnd) -> bool:
    return bool(end.failure or end.interruption or end.exit_code != 0)


def read_end(directory: RunDir) -> RunEnd | None:
    """Return how a run ended, if that was written down. Raises OSError."""
    value = read_json(directory.exit)
    return None if value is None else RunEnd(**value)


def write_end(directory: RunDir, end: RunEnd) -> None:
    """Write down how a run ended. Raises OSError."""
    write_json(directory.exit, asdict(end))
