"""The agent of one run on one node.

Whatever carries the calls there (a Ray actor, a daemon of one's own) makes it,
opens it, and calls its methods on one event loop. Each call may be repeated,
and may come from a coordinator or a driver that was started meanwhile. It has
the caller's term; the highest is kept in the run's directory, and a call with
a lower one raises Superseded.

Where the nodes share a disk, the job's directory is there, and is set up,
searched for checkpoints and exported by the coordinator. Where they do not, the
agent is made with what opens the part's files on the node (`part_files`).
"""

import asyncio
import errno
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import orjson
import structlog
from google.protobuf.message import DecodeError

from app.coordinator.engines.agent.fetched_run import FetchedRun
from app.coordinator.engines.agent.job_lines import warn_in_log
from app.coordinator.engines.agent.node_settings import NodeSettings
from app.coordinator.engines.agent.part_files import OpenFiles, PartFiles
from app.coordinator.engines.agent.records import Records, RecordsReader
from app.coordinator.engines.agent.run_part import RunPart
from app.coordinator.engines.engine import (
    Discard,
    EngineEvents,
    NeverStarted,
    RunHandle,
    RunSpec,
)
from app.coordinator.engines.local.engine import LocalEngine
from app.coordinator.engines.local.opening import open_local_engine
from app.coordinator.engines.local.run_killing import kill_newest_run
from app.coordinator.failures import CoordinatorStops, LeadershipLost
from app.coordinator.isolation.system_paths import system_paths
from app.coordinator.jobs.secrets import JobSecrets
from app.coordinator.leadership.term_file import TermFile
from app.coordinator.logs import log as logs
from app.coordinator.logs import run_starts
from app.coordinator.metrics.snapshots import MetricsWriter
from app.coordinator.scheduling.transitions import RunEnd
from app.coordinator.storage import job_directory_steps as jobdir_steps
from app.coordinator.storage.job_directory import JobDir
from app.files.directory import Directory
from app.files.json_files import read_json, write_json
from app.files.removing import remove_tree
from app.tasks.ending import end_all

_PART: Final = "part.json"
_MEETING: Final = "meeting.json"
#: How a part ended whose files were fetched, once all of it is away.
_END: Final = "end.json"
#: The folder of the values of masked variables, where the nodes share no disk.
SECRETS: Final = "secrets"
_KILLED: Final = RunEnd(exit_code=None, failure="The run was ended by force.", transient=True)

log = structlog.get_logger("scaimind.coordinator")


class Superseded(Exception):
    """A higher term is known here: the coordinator that asks was replaced."""

    def __init__(self, newest: int) -> None:
        super().__init__(f"term {newest} has begun")
        self.newest = newest


class DamagedPart(OSError):
    """What is kept here of a part cannot be read."""


class RunAgent:
    """Carries out a run's part on this node, by the engine of one machine."""

    def __init__(
        self,
        settings: NodeSettings,
        *,
        job_id: str,
        run: int,
        keeper: Mapping[str, Any],
        open_files: OpenFiles | None = None,
    ) -> None:
        """`keeper` is the process without which the run is ended. `open_files` opens the part's
        files where the nodes share no disk."""
        self._settings = settings
        self._open_files = open_files
        self._files: PartFiles | None = None
        self._keeper = keeper
        self._directory = run_directory(settings, job_id, run)
        self._job = JobDir(self._directory / "jobs" / job_id)
        self._engine: LocalEngine | None = None
        self._handle: RunHandle | None = None
        self._waiting: asyncio.Task[RunEnd] | None = None
        self._reader: RecordsReader | None = None
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._terms = TermFile.of(self._directory)
        #: For which the run's handle acts; None before it was asked for.
        self._term: int | None = None

    async def meeting_port(self, *, term: int) -> int:
        """Return a port of this node that was free a moment ago: the same for each call."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._accept(term)
        known = read_json(self._directory / _MEETING)
        if known is None:
            with socket.socket() as listener:
                listener.bind(("", 0))
                known = {"port": listener.getsockname()[1]}
            write_json(self._directory / _MEETING, known)
        port: int = known["port"]
        return port

    async def start(self, part: bytes, *, term: int) -> None:
        """Start the run's part, as `RunPart.encoded` has it, unless it was started before.

        Raises CannotLaunch, BadConfig, OSError.
        """
        async with self._turn:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if await self._found(term) is not None:
                return
            decoded = RunPart.decoded(part)
            await asyncio.to_thread(self._make_directory, decoded)
            engine = await self._opened(decoded)
            if self._open_files is not None:
                self._follow(self._fetched(decoded, engine, term))
                return
            self._follow(await engine.launch(decoded.job, self._own(decoded.run, term)))

    async def records(
        self, *, term: int, epoch: str, after_line: int, after_snapshot: int, patience: float
    ) -> Records:
        """Return what was recorded behind these numbers; waits for it up to `patience` seconds.

        The numbers count if `epoch` is empty or that of the records; otherwise
        all of them are returned, from the first. An answer with an end comes once
        everything before it was asked for. Raises NeverStarted, OSError.
        """
        async with self._turn:
            if await self._found(term) is None:
                raise NeverStarted
        reader = self._reader = self._reader or RecordsReader(self._job)
        if epoch not in ("", reader.epoch):
            after_line = after_snapshot = 0
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while True:
            self._news.clear()
            # Before it is read: what was recorded last lies before the end.
            end = await self._end()
            records = reader.read(after_line=after_line, after_snapshot=after_snapshot)
            if not records.is_empty:
                return records
            if end is not None:
                return replace(records, end=orjson.dumps(asdict(end)))
            if (left := until - loop.time()) <= 0:
                return records
            await self._until_news(min(left, 1.0))
            if reader is not self._reader:
                # Its files are closed, and their descriptors may be others' by now.
                raise OSError(errno.EAGAIN, "the agent is being closed")

    async def stop(self, *, term: int, at_once: bool, discard: Discard) -> None:
        """Ask the part to save a checkpoint and exit, or end it at once. Raises NeverStarted."""
        async with self._turn:
            handle = await self._found(term)
        if handle is None:
            raise NeverStarted
        handle.stop(at_once=at_once, discard=discard)

    async def kill(self, *, term: int) -> None:
        """End the part, however it is; nothing of it lives afterwards. Raises OSError."""
        async with self._turn:
            try:
                part = self._part()
            except DamagedPart:
                # Its processes are found without it.
                self._accept(term)
                await self._let_go()
                await asyncio.to_thread(kill_newest_run, self._job)
                return
            if part is not None:
                self._accept(term)
                engine = await self._opened(part)
                if self._open_files is not None:
                    # Nothing of it is fetched or brought away any more.
                    await self._let_go()
                await engine.kill(part.job.job_id, term=term)
                end = self._directory / _END
                # One that has ended, and brought all away, stays as it ended.
                if self._open_files is not None and read_json(end) is None:
                    write_json(end, asdict(_KILLED))

    async def forget(self, *, term: int) -> None:
        """Remove what is kept here of the run, which has ended. Raises OSError."""
        if self._directory.is_dir():
            self._accept(term)
        await self.close()
        await asyncio.to_thread(self._remove)

    async def close(self) -> None:
        """Let go of the run. One that lives continues, and can be found again."""
        await self._let_go()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._files is not None:
            await asyncio.to_thread(self._files.close)
            self._files = None
        if self._engine is not None:
            await self._engine.close()
            self._engine = None

    async def _let_go(self) -> None:
        if self._waiting is not None:
            # One that acted for a former term finds that out by itself.
            await end_all([self._waiting], expected=(CoordinatorStops, OSError))
            self._waiting = None
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _accept(self, term: int) -> None:
        """Have this term as the newest. Raises Superseded, OSError."""
        if term == self._term:
            return
        try:
            self._terms.raise_to(term)
        except LeadershipLost:
            raise Superseded(self._terms.read()) from None

    async def _found(self, term: int) -> RunHandle | None:
        """Return the run, if it was ever started, for this term. Call with the turn held."""
        if not self._directory.is_dir():
            return None
        self._accept(term)
        if term != self._term:
            # A handle acts for the term that it was made for.
            await self._let_go()
            self._term = term
        if self._handle is None and (part := self._part()) is not None:
            engine = await self._opened(part)
            if self._open_files is not None:
                self._follow(self._fetched(part, engine, term))
                return self._handle
            with suppress(NeverStarted):
                self._follow(await engine.recover(part.job, term=term))
        return self._handle

    def _fetched(self, part: RunPart, engine: LocalEngine, term: int) -> FetchedRun:
        if self._files is None:
            assert self._open_files is not None
            self._files = self._open_files(self._settings, self._directory, engine.programs)
        return FetchedRun(
            part,
            engine=engine,
            files=self._files,
            end=self._directory / _END,
            run=lambda run: self._own(run, term),
            term=term,
            grace=self._settings.stop_grace,
            note=lambda text: warn_in_log(self._job, text, node_id=self._settings.node_id),
        )

    def _own(self, run: RunSpec, term: int) -> RunSpec:
        """Return a run with what only its node knows."""
        return replace(run, keeper=self._keeper, term=term)

    def _follow(self, handle: RunHandle) -> None:
        self._handle = handle
        self._waiting = asyncio.create_task(handle.wait(), name="run of this agent")
        self._waiting.add_done_callback(lambda _: self._news.set())

    async def _end(self) -> RunEnd | None:
        """Return how the part ended, if it has. Raises OSError if it cannot be followed."""
        waiting = self._waiting
        if waiting is None or not waiting.done():
            return None
        if waiting.cancelled():
            raise OSError(errno.EAGAIN, "the agent is being closed")
        if waiting.exception() is not None and self._handle is not None:
            # The run can be waited for again.
            self._follow(self._handle)
        return waiting.result()

    async def _until_news(self, seconds: float) -> None:
        # As news that there is nothing: less is done once there is something than by a timeout.
        timer = asyncio.get_running_loop().call_later(seconds, self._news.set)
        try:
            await self._news.wait()
        finally:
            timer.cancel()

    async def _opened(self, part: RunPart) -> LocalEngine:
        if self._engine is None:
            settings = self._settings
            config = settings.config(self._directory, uid=part.uid)
            private = [self._directory, *settings.shared, config.drive_root, config.atlas_root]
            self._engine = await open_local_engine(
                config,
                readable=system_paths(private),
                roots=settings.shared,
                isolation=settings.isolation_for(part.uid),
            )
            self._engine.listen(
                EngineEvents(job_grew=lambda _: self._news.set(), nodes_changed=lambda _: None)
            )
        return self._engine

    def _part(self) -> RunPart | None:
        """Return what was started. Raises DamagedPart, OSError."""
        try:
            data = (self._directory / _PART).read_bytes()
        except FileNotFoundError:
            return None
        try:
            return RunPart.decoded(data)
        except (ValueError, LookupError, TypeError, DecodeError) as error:
            log.error("part_damaged", path=str(self._directory / _PART), exc_info=error)
            raise DamagedPart(errno.EIO, "what the node keeps of the run is damaged") from None

    def _remove(self) -> None:
        for directory in (self._directory, self._directory.parent):
            with (
                suppress(FileNotFoundError),
                Directory.open(directory.parent, follow=True) as around,
            ):
                if directory is self._directory:
                    remove_tree(around, directory.name)
                else:
                    # Unless another run of the job is there.
                    with suppress(OSError):
                        around.rmdir(directory.name)

    def _make_directory(self, part: RunPart) -> None:
        job = self._job
        job.path.mkdir(parents=True, exist_ok=True)
        # Job's users pass through it, and see nothing of it.
        self._directory.chmod(0o711)
        job.lock.touch()
        job.temporary.mkdir(exist_ok=True)
        logs.create(job.log)
        run_starts.create(job.log)
        MetricsWriter(job.metrics).close()
        jobdir_steps.mark_new(job)
        if part.secrets:
            JobSecrets(self._directory / SECRETS).keep(part.job.job_id, part.secrets)
        with (
            Directory.open(self._directory, follow=True) as directory,
            directory.create(_PART, durable=True) as file,
        ):
            # What is secret of it is not everybody's to read.
            file.write(replace(part, secrets={}).encoded())


def run_directory(settings: NodeSettings, job_id: str, run: int) -> Path:
    """Where a node keeps what it has of a run."""
    return settings.records / job_id / str(run)
