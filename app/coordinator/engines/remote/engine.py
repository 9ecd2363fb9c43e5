"""Carries runs out on the nodes of a cluster, by a driver and by agents on the nodes."""

import asyncio
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from typing_extensions import override

from app.coordinator.cluster.node_specs import NodeReport
from app.coordinator.engines.agent.run_part import RunPart
from app.coordinator.engines.engine import (
    CannotLaunch,
    Engine,
    EngineEvents,
    NeverStarted,
    RunHandle,
    RunSpec,
)
from app.coordinator.engines.local.engine import LocalEngine
from app.coordinator.engines.local.runner.recording import RecordBounds
from app.coordinator.engines.remote.calls import DriverAway, NodeLost
from app.coordinator.engines.remote.driver_client import DriverClient
from app.coordinator.engines.remote.driver_process import DriverProcess
from app.coordinator.engines.remote.known_nodes import KnownNodes
from app.coordinator.engines.remote.leftovers import Leftovers
from app.coordinator.engines.remote.records.loops import RecordLoops
from app.coordinator.engines.remote.remote_run import RemoteRun
from app.coordinator.engines.remote.run_files import (
    Launched,
    read_launch,
    write_end,
    write_launch,
)
from app.coordinator.isolation.uids import JobUids
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.logs.log import entries_path
from app.coordinator.metrics.snapshots import snapshots_path
from app.coordinator.scheduling.transitions import RunEnd
from app.coordinator.storage.job_directory import JobDir, RunDir
from generated.mindcoordinator.internal.v1.engine_pb2 import (
    NodeRequest,
    RequestNodesRequest,
)

#: Seconds until the nodes must have been reported; without them the start goes on.
_NODES: Final = 30.0
#: Seconds between two attempts to tell a cluster what waits.
_AGAIN: Final = 2.0
#: Waiting jobs that an autoscaler is told of.
_REQUESTED: Final = 100

log = structlog.get_logger("scaimind.coordinator")


class RemoteEngine(Engine):
    """Made by `opening.open_ray_engine`. Everything runs on one event loop."""

    def __init__(
        self,
        *,
        local: LocalEngine,
        jobs: Path,
        uids: JobUids | None,
        driver: DriverProcess,
        client: DriverClient,
        leadership: Leadership,
        lost_node_patience: float,
        bounds: RecordBounds,
        scratch: Callable[[], None],
        sends_secrets: bool = False,
    ) -> None:
        """`local` runs what helps jobs on this machine, `jobs` has their directories, and `uids`
        are given where jobs have users of their own. A lost node has `lost_node_patience`
        seconds to return. `bounds` are those of a job's records. `scratch` removes what the
        driver was made with. With `sends_secrets`, nodes are sent the values of masked
        variables."""
        self.isolation = local.isolation
        self.programs = local.programs
        self._local = local
        self._jobs = jobs
        self._uids = uids
        self.driver = driver
        self._client = client
        self._leadership = leadership
        self._patience = lost_node_patience
        self._bounds = bounds
        self._scratch = scratch
        self._sends_secrets = sends_secrets
        self._leftovers = Leftovers(client)
        self._nodes = KnownNodes(client, usable=self._leftovers.node_is_there)
        self._loops = RecordLoops()
        self._grew: Callable[[str], None] = lambda _: None
        self._closed = False
        self._requested: Sequence[ResourceRequest] = ()
        self._requesting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Learn which nodes there are."""
        await self._nodes.start(patience=_NODES)

    @override
    def listen(self, events: EngineEvents) -> None:
        self._grew = events.job_grew
        self._nodes.listen(events.nodes_changed)

    @override
    async def close(self) -> None:
        self._closed = True
        await self._leftovers.close()
        if self._requesting is not None:
            self._requesting.cancel()
            await asyncio.wait([self._requesting])
        await self._nodes.close()
        await self._client.close()
        await self.driver.close()
        await self._local.close()
        self._loops.close()
        self._scratch()

    @property
    @override
    def restarts(self) -> int:
        return self.driver.restarts

    @property
    @override
    def agent_faults(self) -> Mapping[str, int]:
        return self._nodes.faults.counts

    @override
    def nodes(self) -> Sequence[NodeReport]:
        return self._nodes.reports()

    @override
    async def launch(self, job: JobRecord, run: RunSpec) -> RunHandle:
        directory = self._directory(job)
        self._leftovers.need(job.job_id, job.run_count)
        await asyncio.to_thread(self._write_launch, directory, job, run)
        return self._handle(directory, run.term)

    @override
    async def recover(self, job: JobRecord, *, term: int) -> RunHandle:
        directory = self._directory(job)
        if not await asyncio.to_thread(_was_launched, directory):
            raise NeverStarted
        self._leftovers.need(job.job_id, job.run_count)
        return self._handle(directory, term)

    @override
    async def kill(self, job_id: str, *, term: int) -> None:
        directory = await asyncio.to_thread(_newest_run, JobDir(self._jobs / job_id))
        if directory is None:
            return
        launched = await asyncio.to_thread(read_launch, directory)
        if launched is None or directory.exit.exists():
            return
        for node_id in launched.node_ids:
            await self._kill_part(launched, node_id, term)
        failure = "The run was ended by force."
        end = RunEnd(exit_code=None, failure=failure, transient=True)
        await asyncio.to_thread(write_end, directory, end)

    @override
    def keep_runs(self, jobs: Sequence[JobRecord], *, term: int) -> None:
        self._leftovers.begin(((job.job_id, job.run_count) for job in jobs), term=term)

    @override
    def request_nodes(self, requests: Sequence[ResourceRequest]) -> None:
        requests = requests[:_REQUESTED]
        if requests == self._requested or self._closed:
            return
        self._requested = requests
        if self._requesting is None or self._requesting.done():
            self._requesting = asyncio.create_task(
                self._request(), name="requests to the autoscaler"
            )

    async def _request(self) -> None:
        told: Sequence[ResourceRequest] | None = None
        while told is not self._requested:
            asked = self._requested
            message = RequestNodesRequest(
                nodes=[
                    NodeRequest(
                        cpus=each.cpus,
                        memory_bytes=each.memory,
                        gpus=each.gpus,
                        gpu_type=each.gpu_type,
                        labels=dict(each.selector),
                    )
                    for each in asked
                    for _ in range(min(each.nodes, _REQUESTED))
                ]
            )
            try:
                await self._client.request_nodes(message)
            except DriverAway as error:
                log.info("nodes_not_requested", reason=str(error))
                await asyncio.sleep(_AGAIN)
            else:
                told = asked

    async def _kill_part(self, launched: Launched, node_id: str, term: int) -> None:
        try:
            await self._client.kill_run(launched.ref(node_id, term=term))
        except NodeLost:
            if await self._nodes.returned(node_id, patience=self._patience):
                raise _again(f"node {node_id} has just returned") from None
        except DriverAway as error:
            raise _again(str(error)) from error
        except CannotLaunch as error:
            raise OSError(errno.EIO, f"node {node_id} cannot end the run: {error}") from error

    def _write_launch(self, directory: RunDir, job: JobRecord, run: RunSpec) -> None:
        """Write down what is launched. Raises OSError."""
        uid = None
        if self._uids is not None:
            uid = self._uids.take(directory.path)
            # Its lock is taken by the runners, on their machines.
            with self._uids.pass_on(uid):
                pass
        run = replace(
            run,
            log_bytes_before=_size_of(entries_path(directory.job.log)),
            metrics_bytes_before=_size_of(snapshots_path(directory.job.metrics)),
        )
        write_launch(directory, RunPart(job, run, uid), started=False)

    def _handle(self, directory: RunDir, term: int) -> RemoteRun:
        return RemoteRun(
            directory,
            term=term,
            leadership=self._leadership,
            client=self._client,
            nodes=self._nodes,
            lost_node_patience=self._patience,
            bounds=self._bounds,
            sends_secrets=self._sends_secrets,
            loops=self._loops,
            grew=lambda job_id: self._grew(job_id),
            forget=partial(self._leftovers.forget, term=term),
        )

    def _directory(self, job: JobRecord) -> RunDir:
        return JobDir(self._jobs / job.job_id).run(job.run_count)


def _again(reason: str) -> OSError:
    """Return a failure that may pass."""
    return OSError(errno.EAGAIN, f"the cluster cannot be asked at the moment ({reason})")


def _was_launched(directory: RunDir) -> bool:
    return directory.launch.exists() or directory.exit.exists()


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _newest_run(job: JobDir) -> RunDir | None:
    runs = job.run(0).path.parent
    try:
        numbers = [int(name) for name in os.listdir(runs) if name.isdecimal()]
    except FileNotFoundError:
        return None
    return job.run(max(numbers)) if numbers else None
