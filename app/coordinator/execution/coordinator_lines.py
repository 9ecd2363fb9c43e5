"""The coordinator's own lines in the logs of jobs that have no runner at the moment."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from app.coordinator.execution.workspace import Workspace
from app.coordinator.jobs.events import JobEvents
from app.coordinator.jobs.model import JobRecord
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.logs.lines import Line
from app.coordinator.logs.log import LogWriter
from app.coordinator.packages.build_log import Say
from app.coordinator.storage.locks import locked
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel

#: The source of the coordinator's own lines.
_SOURCE: Final = "coordinator"

log = structlog.get_logger("scaimind.coordinator")


class CoordinatorLines:
    """Writes lines of the coordinator's into jobs' logs."""

    def __init__(
        self,
        *,
        workspace: Workspace,
        job_events: JobEvents,
        leadership: Leadership,
        clock: Callable[[], int],
    ) -> None:
        self._workspace = workspace
        self._job_events = job_events
        self._leadership = leadership
        self._clock = clock

    async def say(self, job: JobRecord, text: str) -> None:
        """Add a line to a job's log. Waits until no runner has it.

        A line that cannot be written is lost, and no reason to do anything
        else differently.
        """
        try:
            await asyncio.to_thread(self._write, job, Line(LogLevel.LOG_LEVEL_INFO, text))
        except Exception as error:  # whatever state the log is in: it is only told of
            log.error("log_not_written", job_id=job.job_id, line=text, exc_info=error)
        self._job_events.wake(job.job_id)

    def from_thread(self, job: JobRecord) -> Say:
        """Return what adds lines to a job's log in another thread, as `say` does.

        Call it on the event loop.
        """
        loop = asyncio.get_running_loop()

        def say(line: Line, *, source: str = _SOURCE) -> None:
            try:
                self._write(job, line, source)
            except Exception as error:  # whatever state the log is in: it is only told of
                log.error("log_not_written", job_id=job.job_id, exc_info=error)
            # The loop may have been closed behind a thread that nobody waits for.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._job_events.wake, job.job_id)

        return say

    def _write(self, job: JobRecord, line: Line, source: str = _SOURCE) -> None:
        directory = self._workspace.directory(job.job_id)
        entry = LogEntry(
            level=line.level,
            message=line.message,
            source=source,
            node_id=job.node_ids[0] if job.node_ids else "",
            fields=line.fields,
        )
        entry.timestamp.FromMicroseconds(self._clock())
        with locked(directory.lock, wait=True):
            # Whoever leads next waits for the lock, and writes behind what is written here.
            self._leadership.check()
            writer = LogWriter(directory.log)
            try:
                writer.append([entry])
            finally:
                writer.close()
