"""A part of a run whose files are fetched before it and brought away behind it."""

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import structlog
from typing_extensions import override

from app.coordinator.engines.agent.file_calls import FileCalls
from app.coordinator.engines.agent.part_files import PartFiles
from app.coordinator.engines.agent.run_part import RunPart
from app.coordinator.engines.engine import (
    CannotLaunch,
    Discard,
    NeverStarted,
    RunHandle,
    RunSpec,
)
from app.coordinator.engines.local.engine import LocalEngine
from app.coordinator.failures import FailureBackoff
from app.coordinator.scheduling.transitions import RunEnd
from app.files.copying import Abandoned
from app.files.json_files import read_json, write_json

#: Seconds between two looks for checkpoints to bring away.
_LOOK: Final = 2.0
#: Seconds: the longest pause before checkpoints are brought away again that were refused.
_LONGEST_PAUSE: Final = 15.0
#: What the log of a part says of what is dropped.
_DROPPED: Final = (
    "What the run wrote on this node and was not yet in the drive is dropped: the drive has not"
    " taken it in time."
)

log = structlog.get_logger("scaimind.coordinator")


class FetchedRun(RunHandle):
    """Prepares, carries out and brings away; whatever of it was done before goes on.

    Its end is told when everything is away, and is kept in a file.
    """

    def __init__(
        self,
        part: RunPart,
        *,
        engine: LocalEngine,
        files: PartFiles,
        end: Path,
        run: Callable[[RunSpec], RunSpec],
        term: int,
        grace: float = math.inf,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`end` is the file, and `run` adds to what is executed what the agent knows of it.
        `grace` is how many seconds a run has to stop. `note` has the part's log say something
        once nothing of it lives; it blocks, and may raise OSError."""
        self._part = part
        self._engine = engine
        self._files = files
        self._end = end
        self._run = run
        self._term = term
        self._handle: RunHandle | None = None
        #: Whether it is asked to stop, and at once.
        self._stop: bool | None = None
        #: Nothing of it has run yet, and its files are being fetched.
        self._preparing = False
        #: Nothing is left but to bring away what it wrote.
        self._ended = False
        self._calls = FileCalls(part, grace=grace)
        self._note = note

    @override
    def stop(self, *, at_once: bool, discard: Discard = Discard.NOTHING) -> None:
        self._stop = bool(self._stop) or at_once
        if self._preparing:
            # Nothing of it runs yet.
            self._calls.abandon()
        elif self._handle is not None and not self._ended:
            self._handle.stop(at_once=at_once)
        # Else it may run already: it is asked once it is found, and what it wrote is brought away.
        self._calls.limit(discard)

    def discard(self) -> None:
        """Bring nothing away any more, if it has ended: nobody wants to wait for that.

        What a run that still lives leaves behind is brought away, unless the drive is away then.
        """
        self._calls.limit(Discard.AT_ONCE)

    @override
    async def wait(self) -> RunEnd:
        if (known := await asyncio.to_thread(read_json, self._end)) is not None:
            return RunEnd(**known)
        try:
            handle = await self._begun()
        except Abandoned:
            end = RunEnd(exit_code=None, stopped=True)
        except CannotLaunch as error:
            end = RunEnd(exit_code=None, failure=f"The run could not be started: {error}.")
        else:
            end = await self._carried_out(handle)
        await asyncio.to_thread(write_json, self._end, asdict(end))
        return end

    @override
    async def say(self, text: str) -> bool:
        return self._handle is not None and await self._handle.say(text)

    @override
    async def unsaid(self) -> Sequence[str]:
        return ()

    @override
    async def all_said(self) -> None:
        """Do nothing: nobody has it say anything."""

    @override
    def close(self) -> None:
        self._calls.close()
        if self._handle is not None:
            self._handle.close()

    async def _begun(self) -> RunHandle:
        """Return the run, prepared and launched unless it was before. Raises CannotLaunch,
        Abandoned, OSError."""
        if self._handle is None:
            job = self._part.job
            try:
                self._handle = await self._engine.recover(job, term=self._term)
            except NeverStarted:
                spec = await self._prepared()
                self._handle = await self._engine.launch(job, self._run(spec))
            if self._stop is not None:
                self._handle.stop(at_once=self._stop)
        return self._handle

    async def _prepared(self) -> RunSpec:
        """Return what is executed, once its files are there. Raises CannotLaunch, Abandoned."""
        if self._stop is not None:
            raise Abandoned
        self._preparing = True
        try:
            spec = await self._calls.again(self._files.prepare)
        finally:
            self._preparing = False
        if self._stop is not None:
            raise Abandoned
        return spec

    async def _carried_out(self, handle: RunHandle) -> RunEnd:
        over = asyncio.Event()
        publishing = asyncio.create_task(self._publish(over), name="checkpoints of this agent")
        try:
            end = await handle.wait()
            self._ended = True
            over.set()
            self._calls.run_has_ended()
            # What is on its way arrives: it is not begun anew, be it as large as it may.
            await asyncio.wait([publishing])
        finally:
            publishing.cancel()
            await asyncio.wait([publishing])
            with suppress(BaseException):  # what it could not do is tried once more, and said then
                publishing.exception()
        try:
            await self._calls.again(self._files.publish_last)
        except Abandoned:
            await self._say_dropped()
            return replace(end, stopped=True)
        except CannotLaunch as error:
            failure = f"What it wrote could not be brought to the drive: {error}."
            return replace(end, exit_code=None, failure=failure, transient=False)
        return end

    async def _say_dropped(self) -> None:
        try:
            await asyncio.to_thread(self._note, _DROPPED)
        except OSError as error:  # nothing is lost by it but the line
            job_id = self._part.job.job_id
            log.warning("line_not_written", job_id=job_id, reason=error.strerror)

    async def _publish(self, over: asyncio.Event) -> None:
        """Bring checkpoints away until the run is over. It goes on all the same if that cannot be
        done: its end says so then."""
        refused = FailureBackoff(longest=_LONGEST_PAUSE)
        seconds = _LOOK
        while not await _is_set_within(over, seconds):
            try:
                await self._calls.again(self._files.publish)
            except CannotLaunch as error:
                seconds = _LOOK + refused.after_failure()
                if refused.worth_a_line:
                    job_id = self._part.job.job_id
                    log.error("checkpoints_stay_on_node", job_id=job_id, reason=str(error))
            else:
                refused.reset()
                seconds = _LOOK


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event; whether it is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
