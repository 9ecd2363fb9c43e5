"""A run on other machines, as its owner in the coordinator sees it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog
from typing_extensions import override

from app.coordinator.engines.engine import Discard, RunHandle
from app.coordinator.engines.local.runner.recording import RecordBounds
from app.coordinator.engines.remote.driver_client import DriverClient
from app.coordinator.engines.remote.following import GangFollower
from app.coordinator.engines.remote.gang import Gang, StopOrder
from app.coordinator.engines.remote.gang_start import start_all
from app.coordinator.engines.remote.known_nodes import KnownNodes
from app.coordinator.engines.remote.records.loops import RecordLoops
from app.coordinator.engines.remote.records.merging import MergedRecords
from app.coordinator.engines.remote.records.writer import RecordWriter
from app.coordinator.engines.remote.run_files import (
    Launched,
    read_end,
    read_launch,
    write_end,
    write_launch,
)
from app.coordinator.jobs.secrets import read_secrets
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.scheduling.transitions import RunEnd
from app.coordinator.storage.job_directory import RunDir

log = structlog.get_logger("scaimind.coordinator")


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
        bounds: RecordBounds,
        client: DriverClient,
        nodes: KnownNodes,
        lost_node_patience: float,
        sends_secrets: bool,
        loops: RecordLoops,
        grew: Callable[[str], None],
        forget: Callable[[Launched], None],
    ) -> None:
        """`term` is that of the coordinator. `bounds` are those of the job's records,
        which are written on one of the `loops`. `grew` is called with the job's id when they
        have grown, and `forget` once nothing on the nodes is needed any more."""
        self._directory = directory
        self._term = term
        self._client = client
        self._nodes = nodes
        self._patience = lost_node_patience
        self._sends_secrets = sends_secrets
        self._forget = forget
        self._stop = StopOrder()
        self._records = RecordWriter(
            directory, leadership=leadership, bounds=bounds, loops=loops, grew=grew
        )

    @override
    def stop(self, *, at_once: bool, discard: Discard = Discard.NOTHING) -> None:
        if at_once and discard is Discard.NOTHING:
            discard = Discard.AT_ONCE
        self._stop.give(at_once=at_once, discard=discard)

    @override
    async def wait(self) -> RunEnd:
        end = await asyncio.to_thread(read_end, self._directory)
        launched = await asyncio.to_thread(read_launch, self._directory)
        if end is not None:
            # Whoever wrote that down may have ended before it had the nodes forget it.
            if launched is not None:
                self._forget(launched)
            return end
        if launched is None:
            return RunEnd(exit_code=None, stopped=True)
        await self._records.open(launched.node_ids)
        try:
            end = await self._carried_out(launched)
            await self._records.write(MergedRecords.say_what_was_left_out)
            await self._records.write(lambda _: write_end(self._directory, end))
        finally:
            await self._records.close()
        self._forget(launched)
        return end

    @override
    async def say(self, text: str) -> bool:
        if not self._records.is_open:
            return False
        try:
            await self._records.say(text, warning=False)
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

    def _secrets(self, launched: Launched) -> dict[str, str]:
        """Return the values of masked variables that the nodes have to be sent. Raises OSError."""
        path = launched.whole.run.secrets
        wanted = self._sends_secrets and path is not None and not launched.started
        return read_secrets(str(path)) if wanted else {}

    async def _carried_out(self, launched: Launched) -> RunEnd:
        """Start the run unless it was, and follow it to its end. Raises OSError."""
        run = launched.whole.run
        await self._records.write(
            lambda records: records.announce([run.announcement, *run.warnings])
        )
        gang = Gang(
            launched=launched,
            term=self._term,
            client=self._client,
            nodes=self._nodes,
            lost_node_patience=self._patience,
            records=self._records,
            stop=self._stop,
            secrets=await asyncio.to_thread(self._secrets, launched),
        )
        if not launched.started:
            end = await start_all(gang)
            if end is not None:
                return end
            await self._records.write(
                lambda _: write_launch(self._directory, launched.whole, started=True)
            )
        return await GangFollower(replace(gang, launched=replace(launched, started=True))).follow()

    @property
    def _job_id(self) -> str:
        return self._directory.job.path.name
