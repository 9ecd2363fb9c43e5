"""Carries runs out on this machine, each owned by a runner process."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from typing_extensions import override

from app.coordinator.cluster.node_specs import NodeReport, NodeSpec
from app.coordinator.engines.engine import CannotLaunch, Engine, EngineEvents, RunHandle, RunSpec
from app.coordinator.engines.local import launcher
from app.coordinator.engines.local.launcher import RunnerHandle
from app.coordinator.engines.local.local_run import LocalRun
from app.coordinator.engines.local.notifications import NotificationReceiver
from app.coordinator.engines.local.run_killing import kill_newest_run
from app.coordinator.engines.local.run_orders import RunOrders
from app.coordinator.engines.local.runner_spec import RunnerSpecs
from app.coordinator.engines.programs import Programs
from app.coordinator.failures import LeadershipLost, is_passing
from app.coordinator.isolation.levels import Isolation
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.leadership.term_file import TermFile
from app.coordinator.storage.job_directory import JobDir, RunDir


class LocalEngine(Engine):
    """Made by `opening.open_local_engine`. Everything runs on one event loop."""

    def __init__(
        self,
        *,
        jobs: Path,
        nodes: Sequence[NodeSpec],
        isolation: Isolation,
        specs: RunnerSpecs,
        programs: Programs,
        notify: Path,
        grace: float,
        term_file: TermFile,
    ) -> None:
        """`jobs` has the jobs' directories; runners send their notifications to `notify`, and
        grant their processes `grace` seconds. `term_file` has the newest term."""
        self.isolation = isolation
        self.programs = programs
        self._jobs = jobs
        self._nodes = tuple(map(NodeReport, nodes))
        self._specs = specs
        self._grace = grace
        self._notify = notify
        self._term_file = term_file
        self._receiver: NotificationReceiver | None = None

    @override
    def listen(self, events: EngineEvents) -> None:
        self._receiver = NotificationReceiver(self._notify, events.job_grew)
        self._receiver.start(asyncio.get_running_loop())

    @override
    async def close(self) -> None:
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None

    @property
    @override
    def restarts(self) -> int:
        return 0

    @property
    @override
    def agent_faults(self) -> Mapping[str, int]:
        return {}

    @override
    def nodes(self) -> Sequence[NodeReport]:
        return self._nodes

    @override
    def keep_runs(self, jobs: Sequence[JobRecord], *, term: int) -> None:
        """Do nothing: a run that has ended has let go of everything."""

    @override
    def request_nodes(self, requests: Sequence[ResourceRequest]) -> None:
        """Do nothing: this machine stays as it is."""

    @override
    async def launch(self, job: JobRecord, run: RunSpec) -> RunHandle:
        directory = self._directory(job)
        try:
            runner = await asyncio.to_thread(self._start, directory, job, run)
        except OSError as error:
            if is_passing(error):
                raise
            raise CannotLaunch(error.strerror or str(error)) from error
        return self._run(directory, runner, run.term)

    @override
    async def recover(self, job: JobRecord, *, term: int) -> RunHandle:
        self._term_file.check(term)
        directory = self._directory(job)
        return self._run(directory, await launcher.find(directory), term)

    @override
    async def kill(self, job_id: str, *, term: int) -> None:
        self._term_file.check(term)
        await asyncio.to_thread(kill_newest_run, JobDir(self._jobs / job_id))

    def _start(self, directory: RunDir, job: JobRecord, run: RunSpec) -> RunnerHandle:
        self._term_file.check(run.term)
        try:
            spec = self._specs.of(job, directory, run)
            spec["term"], spec["term_file"] = run.term, str(self._term_file.path)
            spec["metrics_before"] = launcher.metrics_before(directory)
            with self._specs.sandboxes.held_uid(spec["isolation"]) as lock:
                # Another leader may have launched it meanwhile: its specification stays.
                self._term_file.check(run.term)
                return launcher.start(directory, spec, lock=lock)
        except LeadershipLost:
            # What was taken for the run may be in use.
            raise
        except BaseException:
            self._specs.sandboxes.give_up(directory)
            raise

    def _run(self, directory: RunDir, runner: RunnerHandle | None, term: int) -> LocalRun:
        orders = RunOrders(directory, self._term_file, term=term)
        return LocalRun(directory, runner, grace=self._grace, orders=orders)

    def _directory(self, job: JobRecord) -> RunDir:
        return JobDir(self._jobs / job.job_id).run(job.run_count)
