"""A watcher of a tenant's jobs, as a client of WatchJobs keeps them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from generated.mindcoordinator.v1.watch_jobs_pb2 import (
    JobState,
    JobsVersion,
    WatchJobsRequest,
    WatchJobsResponse,
)
from tests.coordinator.harness import PATIENCE, Client


class JobsWatcher:
    """What a watcher knows; it outlives its streams."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobState] = {}
        self.epoch = ""
        self.version = 0
        self.resets = 0
        self.messages: list[WatchJobsResponse] = []
        self._whole: set[str] | None = None

    @property
    def place(self) -> JobsVersion:
        """Where to go on."""
        return JobsVersion(epoch=self.epoch, version=self.version)

    def take(self, message: WatchJobsResponse, *, first: bool) -> None:
        """Take the next message of a stream; check what the contract says of it."""
        self.messages.append(message)
        assert message.HasField("start") is first
        if first:
            self.epoch = message.start.epoch
            self._whole = set() if message.start.reset else None
            if message.start.reset:
                self.resets += 1
                self.version = 0
        for change in message.changes:
            assert change.version > self.version, "versions must rise"
            self.version = change.version
            if change.WhichOneof("change") == "job":
                self.jobs[change.job.job_id] = change.job
                if self._whole is not None:
                    self._whole.add(change.job.job_id)
            else:
                self.jobs.pop(change.deleted_job_id, None)
        if message.HasField("synced"):
            assert message.synced >= self.version
            self.version = message.synced
            if self._whole is not None:
                self.jobs = {name: job for name, job in self.jobs.items() if name in self._whole}
                self._whole = None


@asynccontextmanager
async def watching(
    client: Client, watcher: JobsWatcher, **request: Any
) -> AsyncIterator[AsyncIterator[WatchJobsResponse]]:
    """A stream whose messages the watcher takes as they are read; it resumes where it was."""
    if watcher.epoch and "after" not in request:
        request["after"] = watcher.place
    call = client.stub.WatchJobs(WatchJobsRequest(**request), metadata=client.metadata)

    async def messages() -> AsyncIterator[WatchJobsResponse]:
        first, synced = True, False
        async for message in call:
            watcher.take(message, first=first)
            assert not (synced and message.HasField("synced")), "synced comes once"
            synced = synced or message.HasField("synced")
            first = False
            yield message

    try:
        yield messages()
    finally:
        call.cancel()


async def until(
    stream: AsyncIterator[WatchJobsResponse], done: Callable[[WatchJobsResponse], bool]
) -> WatchJobsResponse:
    """Read up to the first message for which `done` holds."""
    async with asyncio.timeout(PATIENCE):
        async for message in stream:
            if done(message):
                return message
    raise AssertionError("the stream has ended")


async def until_synced(stream: AsyncIterator[WatchJobsResponse]) -> WatchJobsResponse:
    """Read up to `synced`."""
    return await until(stream, lambda message: message.HasField("synced"))
