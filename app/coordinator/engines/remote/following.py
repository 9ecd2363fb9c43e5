"""Takes over what the parts of a run record, and ends them together."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from app.coordinator.engines.engine import CannotLaunch, Discard
from app.coordinator.engines.remote.agent_faults import Distrust
from app.coordinator.engines.remote.agent_stream import watch_run
from app.coordinator.engines.remote.calls import (
    AnotherProtocol,
    BadMessage,
    DriverAway,
    NodeLost,
    NothingThere,
)
from app.coordinator.engines.remote.gang import Gang
from app.coordinator.engines.remote.gang_start import kill_part
from app.coordinator.engines.remote.records.merging import MergedRecords
from app.coordinator.engines.remote.records.part_records import PartRecords
from app.coordinator.engines.remote.records.received import ReceivedRecords
from app.coordinator.failures import CoordinatorStops, FailureBackoff
from app.coordinator.scheduling.transitions import RunEnd
from app.tasks.ending import end_all
from generated.mindcoordinator.internal.v1.engine_pb2 import OpenRunResponse, RunRef

#: Seconds: the longest pause between two attempts to reach an agent.
_LONGEST_PAUSE: Final = 2.0
#: Attempts after which a cancelled run is ended whose agent says what none says.
_HOPELESS: Final = 3

log = structlog.get_logger("scaimind.coordinator")


class GangFollower:
    """Follows a run that was started, to its end."""

    def __init__(self, gang: Gang) -> None:
        self._gang = gang
        #: The nodes whose part has ended.
        self._over: set[str] = set()
        #: The loop on which it is followed; what is recorded is written on another.
        self._home: asyncio.AbstractEventLoop

    async def follow(self) -> RunEnd:
        """Take over what the parts record until all have ended; returns the run's end."""
        gang = self._gang
        self._home = asyncio.get_running_loop()
        parts = {
            asyncio.create_task(
                self._follow_part(number, node_id), name=f"run of {gang.job_id} on {node_id}"
            ): node_id
            for number, node_id in enumerate(gang.node_ids)
        }
        stopping = asyncio.create_task(self._pass_on(), name=f"stop of {gang.job_id}")
        unasked = set(parts)
        try:
            ends = []
            waiting = set(parts)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for part in done:
                    unasked.remove(part)
                    ends.append(part.result())
                    self._over.add(parts[part])
                if waiting and any(map(_has_failed, ends)) and gang.stop.by_owner is None:
                    gang.stop.end_the_rest()
            return self._merged(ends)
        finally:
            # Where one finds that another coordinator leads, the others soon do.
            await end_all([*unasked, stopping], expected=CoordinatorStops)
            gang.clear_faults(*gang.node_ids)

    def _merged(self, ends: Sequence[RunEnd]) -> RunEnd:
        """Return the end that decides, in the order in which the parts ended."""
        decisive = next(filter(_has_failed, ends), ends[0])
        asked = self._gang.stop.by_owner is not None
        return replace(decisive, stopped=asked and any(end.stopped for end in ends))

    async def _pass_on(self) -> None:
        """Ask all parts that live to stop, whenever that is asked for."""
        news = self._gang.stop.news
        backoff = FailureBackoff(longest=_LONGEST_PAUSE)
        while True:
            await news.wait()
            news.clear()
            rest = [each for each in self._gang.node_ids if each not in self._over]
            if all(await asyncio.gather(*map(self._gang.pass_on, rest))):
                backoff.reset()
                continue
            # Its records come without the driver: nothing breaks after which it is asked again.
            with suppress(TimeoutError):
                async with asyncio.timeout(backoff.after_failure()):
                    await news.wait()
            news.set()

    async def _follow_part(self, number: int, node_id: str) -> RunEnd:
        """Take over what one part records; returns how it ended."""
        gang = self._gang
        records = PartRecords(gang.records.records, number, node_id)
        backoff = FailureBackoff(longest=_LONGEST_PAUSE)
        distrust = Distrust(asyncio.get_running_loop().time)
        while True:
            try:
                if await self._take_all(records, backoff):
                    assert records.end is not None
                    return records.end
            except NodeLost:
                self._end_the_rest()
                if not await gang.returned(node_id):
                    return await self._lost(records, "the node is lost")
            except (NothingThere, CannotLaunch) as error:
                if isinstance(error, CannotLaunch):
                    # Its processes may live all the same, and no job runs twice.
                    await kill_part(gang, node_id)
                return await self._lost(records, "the node's disk is lost")
            except (AnotherProtocol, BadMessage) as error:
                wrong = distrust.backoff()
                await self._pause(error, node_id, wrong)
                if gang.stop.discard is Discard.LATE and wrong.failures >= _HOPELESS:
                    return await self._unread(records, error)
            except DriverAway as error:
                await self._pause(error, node_id, backoff)

    async def _pause(self, error: DriverAway, node_id: str, backoff: FailureBackoff) -> None:
        """Wait before an agent is asked again, and log why."""
        gang = self._gang
        seconds = backoff.after_failure()
        if backoff.failures == 1 and isinstance(error, AnotherProtocol):
            # The run goes on, and its owner sees nothing of it.
            await gang.records.say(f"Node {node_id}: {error}", warning=True)
        if backoff.worth_a_line:
            log.warning(
                "part_not_followed",
                job_id=gang.job_id,
                node_id=node_id,
                failures=backoff.failures,
                reason=str(error),
            )
        if gang.stop.given.is_set():
            await asyncio.sleep(min(seconds, _LONGEST_PAUSE))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await gang.stop.given.wait()

    async def _take_all(self, records: PartRecords, backoff: FailureBackoff) -> bool:
        """Take over what a part records, as long as its agent is there; whether it has ended."""
        gang = self._gang
        run = gang.ref(records.node_id)
        agent = await gang.open(records.node_id)
        # Also of an agent that knows nothing of what was asked before.
        if not await gang.pass_on(records.node_id):
            gang.stop.news.set()
        with gang.noting(records.node_id):
            return await gang.records.there(lambda: self._written(records, agent, run, backoff))

    async def _written(
        self, records: PartRecords, agent: OpenRunResponse, run: RunRef, backoff: FailureBackoff
    ) -> bool:
        """Write what a part records, on the loop of the writes; whether it has ended."""
        line, snapshot = records.taken
        stream = watch_run(
            agent, run, epoch=records.epoch, after_line=line, after_snapshot=snapshot
        )
        writer, order = self._gang.records, records.order()
        async with aclosing(stream) as messages:
            async for message in messages:
                found = records.received(message, order)
                await writer.written(partial(_take, records, found))
                if records.node_id in self._gang.faulty:
                    self._home.call_soon_threadsafe(self._gang.clear_faults, records.node_id)
                backoff.reset()
                if records.end is not None:
                    return True
                if found.lines or found.snapshots or found.lost_through:
                    writer.tell()
        return False

    async def _unread(self, records: PartRecords, error: DriverAway) -> RunEnd:
        """End a part of a cancelled run whose agent cannot be understood."""
        await kill_part(self._gang, records.node_id)
        text = (
            f"Gap: what the run wrote on node {records.node_id} behind its line"
            f" {records.taken[0]} there is not known: it was cancelled. {error}"
        )
        await self._gang.records.say(text, warning=True)
        return RunEnd(exit_code=None, stopped=True)

    def _end_the_rest(self) -> None:
        """End the other parts: what was on a lost node does not go on."""
        if len(self._over) + 1 < len(self._gang.node_ids) and self._gang.stop.by_owner is None:
            self._gang.stop.end_the_rest()

    async def _lost(self, records: PartRecords, reason: str) -> RunEnd:
        text = (
            f"Gap: what the run wrote on node {records.node_id} behind its line"
            f" {records.taken[0]} there is lost, since {reason}."
        )
        await self._gang.records.say(text, warning=True)
        failure = f"Node {records.node_id} was lost: {reason}."
        return RunEnd(exit_code=None, failure=failure, transient=True)


def _take(part: PartRecords, found: ReceivedRecords, _: MergedRecords) -> None:
    part.take_received(found)


def _has_failed(end: RunEnd) -> bool:
    return bool(end.failure or end.interruption or end.exit_code != 0)
