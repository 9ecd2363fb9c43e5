"""Whatever fails in a job's task: it pauses, it ends the job, or it is tried again."""

import asyncio
import errno
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

from app.coordinator.engines.local import launcher
from app.coordinator.engines.local.launcher import RunnerHandle
from app.coordinator.engines.local.local_run import LocalRun
from app.coordinator.execution.controller import Controller
from app.coordinator.execution.coordinator_lines import CoordinatorLines
from app.coordinator.execution.job_work import JobWork
from app.coordinator.execution.run_spec import RunSpecs
from app.coordinator.execution.workspace import Workspace
from app.coordinator.failures import FailureBackoff, is_passing
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.metrics.snapshots import MetricsReader
from app.files.json_files import read_json
from generated.mindcoordinator.v1.cluster_pb2 import (
    DrainNodeRequest,
    EnableNodeRequest,
    GetNodeRequest,
)
from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    Job,
    PauseJobRequest,
    ResumeJobRequest,
)
from tests.coordinator.harness import PATIENCE, Client, running, status_of
from tests.coordinator.scripts import WAITS


@dataclass
class Fault:
    """What is raised instead of a call, as often as it is armed for."""

    error: Exception
    armed: int = 0
    raised: int = 0
    #: Set whenever it was raised.
    news: asyncio.Event = field(default_factory=asyncio.Event)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def check(self) -> None:
        if self.armed > 0:
            self.armed -= 1
            self.raised += 1
            self.loop.call_soon_threadsafe(self.news.set)
            raise self.error

    async def until_raised(self, times: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.raised < times:
                self.news.clear()
                await self.news.wait()


def put_into(monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str], fault: Fault) -> None:
    """Make a call raise while `fault` is armed."""
    owner, name = place
    call = getattr(owner, name)

    if asyncio.iscoroutinefunction(call):

        async def awaited(*given: Any, **named: Any) -> Any:
            fault.check()
            return await call(*given, **named)

        monkeypatch.setattr(owner, name, awaited)
        return

    def called(*given: Any, **named: Any) -> Any:
        fault.check()
        return call(*given, **named)

    monkeypatch.setattr(owner, name, called)


PREPARE = (Workspace, "prepare")
SPEC = (RunSpecs, "of")
LAUNCH = (launcher, "start")
FIND = (launcher, "find")
FOLLOW = (RunnerHandle, "gone")
READ_END = (launcher, "read_end")
EXPORT = (Workspace, "export")
RUN_OVER = (Workspace, "run_over")
NEEDED = [
    pytest.param(PREPARE, id="prepare"),
    pytest.param(SPEC, id="spec"),
    pytest.param(LAUNCH, id="launch"),
    pytest.param(FIND, id="find_run"),
    pytest.param(FOLLOW, id="follow"),
    pytest.param(READ_END, id="read_end"),
    pytest.param(EXPORT, id="export"),
    pytest.param(RUN_OVER, id="run_over"),
]
ONLY_LOOKS = [
    pytest.param((MetricsReader, "newest"), id="metrics"),
    pytest.param((Workspace, "checkpoints"), id="checkpoints"),
    pytest.param((CoordinatorLines, "_write"), id="say"),
    pytest.param((JobWork, "release"), id="release"),
]
#: A coordinator that leaves a run as it is leaves a child behind, in these tests their own.
STILL_RUNNING = "ignore:.*Popen:pytest.PytestUnraisableExceptionWarning"
PASSING = OSError(errno.EMFILE, "Too many open files")
#: What ends a job, and what says nothing about it.
OF_THE_JOB = [ValueError("odd"), RecursionError("deep"), KeyError("x"), OSError(errno.EIO, "I/O")]
OF_THE_MACHINE: list[Exception] = [
    PASSING,
    OSError(errno.ENFILE, "Too many open files in system"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    RuntimeError("can't start new thread"),
    MemoryError(),
    sqlite3.OperationalError("database or disk is full"),
]


@pytest.fixture(autouse=True)
def logged() -> Iterator[Sequence[Mapping[str, Any]]]:
    """What the operators are told; rendering every traceback would take most of the time."""
    with capture_logs() as lines:
        yield lines


def test_failures_are_told_apart() -> None:
    assert not any(map(is_passing, [*OF_THE_JOB, OverflowError("wide"), sqlite3.DataError()]))
    assert all(map(is_passing, OF_THE_MACHINE))


def test_pauses_grow_up_to_a_bound_and_few_of_them_are_logged() -> None:
    backoff = FailureBackoff(longest=5.0)
    pauses, lines = [], []
    for _ in range(20):
        pauses.append(backoff.after_failure())
        lines.append(backoff.worth_a_line)
    assert 0 < pauses[0] <= 0.25
    assert all(3.75 <= each <= 5.0 for each in pauses[10:])
    assert sum(lines) == 5


def name_of(error: Exception) -> str:
    return f"{type(error).__name__}{getattr(error, 'errno', '') or ''}"


def runners(path: Path) -> list[int]:
    """The runners that live for jobs of this data directory."""
    alive = []
    for file in path.glob("jobs/*/runs/*/runner.json"):
        who = read_json(file) or {}
        if lives(who["pid"]):
            alive.append(who["pid"])
    return alive


def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def is_well(client: Client, path: Path) -> None:
    """Nothing is held or lives on, and the next job runs."""
    node = await client.call("GetNode", GetNodeRequest(node_id="local"))
    assert (node.running_jobs, node.allocated_cpus) == (0, 0)
    assert not runners(path)
    assert status_of(await client.end(await client.submit("print('next')"))) == "COMPLETED"


async def end_as_seen(client: Client, job_id: str) -> Job:
    """The job once its watchers were told of its end."""
    async with asyncio.timeout(PATIENCE):
        async for message in client.watch(job_id):
            if message.HasField("end"):
                return await client.job(job_id)
    raise AssertionError("the stream ended without an end")


@pytest.mark.parametrize("place", NEEDED)
@pytest.mark.parametrize("error", [RecursionError("deep"), OSError(errno.EIO, "I/O")], ids=name_of)
async def test_what_a_job_cannot_go_on_without_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str], error: Exception
) -> None:
    async with running(tmp_path) as (_, client):
        fault = Fault(error, armed=1)
        put_into(monkeypatch, place, fault)
        job_id = await client.submit("print('here')")
        job = await end_as_seen(client, job_id)
        assert fault.raised == 1
        assert status_of(job) == "FAILED", job
        assert job.error_message
        assert str(tmp_path) not in job.error_message
        last = (await client.log(job_id))[-1].message
        assert last
        assert job.error_message.startswith(last)
        await is_well(client, tmp_path)


@pytest.mark.parametrize("place", NEEDED)
@pytest.mark.parametrize("error", [PASSING], ids=name_of)
async def test_what_is_not_the_job_s_fault_changes_nothing_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str], error: Exception
) -> None:
    async with running(tmp_path) as (_, client):
        fault = Fault(error, armed=2)
        put_into(monkeypatch, place, fault)
        job_id = await client.submit("print('here')")
        job = await end_as_seen(client, job_id)
        assert fault.raised == 2
        assert status_of(job) == "COMPLETED", job
        assert job.run_count == 1
        log = [entry.message for entry in await client.log(job_id)]
        assert log.count("here") == 1, "it was run once"
        assert sum("cannot be" in line for line in log) <= 1, "it is said once"
        await is_well(client, tmp_path)


@pytest.mark.parametrize("place", ONLY_LOOKS)
@pytest.mark.parametrize("error", [RecursionError("deep"), PASSING], ids=name_of)
async def test_what_only_looks_at_a_job_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str], error: Exception
) -> None:
    async with running(tmp_path) as (_, client):
        fault = Fault(error)
        put_into(monkeypatch, place, fault)
        fault.armed = 1_000_000
        job_id = await client.submit("print('here')")
        job = await end_as_seen(client, job_id)
        assert fault.raised
        assert status_of(job) == "COMPLETED", job
        fault.armed = 0
        await is_well(client, tmp_path)


async def test_what_was_fetched_is_let_go_of_without_holding_others_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        loop, began, may_end = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        order: list[str] = []
        release, prepare = Workspace.release, Workspace.prepare

        def slow(workspace: Workspace, job_id: str) -> None:
            loop.call_soon_threadsafe(began.set)
            assert may_end.wait(PATIENCE)
            release(workspace, job_id)
            order.append("released")

        def prepared(workspace: Workspace, *given: Any) -> None:
            order.append("prepared")
            monkeypatch.setattr(Workspace, "release", release)
            prepare(workspace, *given)

        monkeypatch.setattr(Workspace, "release", slow)
        monkeypatch.setattr(Workspace, "prepare", prepared)
        await client.call("PauseJob", PauseJobRequest(job_id=job_id))
        async with asyncio.timeout(PATIENCE / 2):
            await began.wait()
            await client.call("ResumeJob", ResumeJobRequest(job_id=job_id))
            await client.until_status(job_id, "SCHEDULING", "PREPARING")
        may_end.set()
        await client.until_status(job_id, "TRAINING")
        # What the next run fetches is fetched after that.
        assert order == ["released", "prepared"]
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))


async def test_what_could_not_be_looked_at_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as (_, client):
        fault = Fault(OverflowError("wide"), armed=1_000_000)
        put_into(monkeypatch, (Workspace, "checkpoints"), fault)
        job_id = await client.submit("""
            import json, os
            with open(os.environ["SCAIMIND_METRICS_FILE"], "w") as file:
                file.write(json.dumps({"step": 7, "loss": 0.5}) + "\\n")
        """)
        job = await end_as_seen(client, job_id)
        assert status_of(job) == "COMPLETED"
        assert (job.progress.step, job.progress.loss) == (7, 0.5), "the other part goes on"
        log = [entry.message for entry in await client.log(job_id)]
        assert len([line for line in log if "checkpoints could not be read" in line]) == 1


async def test_temporary_files_that_cannot_be_removed_do_not_fail_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as (_, client):
        fault = Fault(RecursionError("deep"))
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        put_into(monkeypatch, (Workspace, "clear_temporary"), fault)
        fault.armed = 1
        await client.call("PauseJob", PauseJobRequest(job_id=job_id))
        await client.until_status(job_id, "PAUSED")
        assert fault.raised == 1
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))


@pytest.mark.parametrize("error", [OF_THE_MACHINE[-1], MemoryError()], ids=name_of)
async def test_a_store_that_fails_holds_jobs_up_and_fails_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async with running(tmp_path) as (_, client):
        fault = Fault(error)
        put_into(monkeypatch, (SqliteStore, "save_jobs"), fault)
        # The job gets no further than to its preparation before the store fails.
        failing, prepare = threading.Event(), Workspace.prepare

        def prepared(*given: Any) -> None:
            assert failing.wait(PATIENCE)
            prepare(*given)

        monkeypatch.setattr(Workspace, "prepare", prepared)
        job_id = await client.submit(WAITS)
        fault.armed = 3
        failing.set()
        await client.until_line(job_id, "ready")
        await fault.until_raised(3)
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        fault.armed = 3
        assert status_of(await client.end(job_id)) == "CANCELLED"
        fault.armed = 0
        await is_well(client, tmp_path)


@pytest.mark.parametrize("error", [TypeError("odd"), OverflowError("wide"), ValueError("odd")])
async def test_a_value_that_cannot_be_stored_fails_that_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async with running(tmp_path) as (_, client):
        save = SqliteStore.save_jobs

        def picky(store: SqliteStore, jobs: Any) -> None:
            jobs = list(jobs)
            if any(job.progress.step for job in jobs):
                raise error
            save(store, jobs)

        monkeypatch.setattr(SqliteStore, "save_jobs", picky)
        job_id = await client.submit("""
            import json, os
            os.mkdir(os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/step-3")
            with open(os.environ["SCAIMIND_METRICS_FILE"], "w") as file:
                file.write(json.dumps({"step": 7}) + "\\n")
        """)
        job = await end_as_seen(client, job_id)
        assert status_of(job) == "COMPLETED", job
        assert job.progress.step == 0
        assert [checkpoint.step for checkpoint in job.checkpoints] == [3]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_run_that_could_not_be_asked_to_stop_is_stopped_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    async with running(tmp_path) as (_, client):
        # The first try is the request's, the second one that of the job's own task.
        fault = Fault(ValueError("odd"))
        put_into(monkeypatch, (LocalRun, "stop"), fault)
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        fault.armed = times
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        job = await end_as_seen(client, job_id)
        assert fault.raised == times
        assert status_of(job) == "CANCELLED", job
        await is_well(client, tmp_path)


@pytest.mark.parametrize("place", [PREPARE, SPEC, LAUNCH, FIND, EXPORT, RUN_OVER])
async def test_a_job_that_has_to_wait_can_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str]
) -> None:
    async with running(tmp_path) as (_, client):
        fault = Fault(PASSING, armed=1_000_000)
        put_into(monkeypatch, place, fault)
        job_id = await client.submit("print('here')")
        await fault.until_raised(2)
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        if place in (FIND, EXPORT):
            # These must be seen through.
            fault.armed = 0
        job = await end_as_seen(client, job_id)
        assert status_of(job) == "CANCELLED", job
        fault.armed = 0
        await is_well(client, tmp_path)


@pytest.mark.parametrize("place", [PREPARE, SPEC, LAUNCH])
async def test_a_job_that_has_to_wait_can_be_paused_and_drained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str]
) -> None:
    async with running(tmp_path) as (_, client):
        fault = Fault(PASSING, armed=1_000_000)
        put_into(monkeypatch, place, fault)
        paused = await client.submit("print('here')")
        await fault.until_raised(2)
        await client.call("PauseJob", PauseJobRequest(job_id=paused, save_checkpoint=True))
        await client.until_status(paused, "PAUSED")
        drained = await client.submit("print('here')", training_config={"max_retries": 1})
        await fault.until_raised(fault.raised + 2)
        await client.call("DrainNode", DrainNodeRequest(node_id="local", force=True))
        await client.until_status(drained, "QUEUED")
        fault.armed = 0
        await client.call("EnableNode", EnableNodeRequest(node_id="local"))
        assert status_of(await client.end(drained)) == "COMPLETED"
        await client.call("CancelJob", CancelJobRequest(job_id=paused))
        await is_well(client, tmp_path)


async def test_a_job_that_has_to_wait_can_be_preempted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, cpus=1) as (_, client):
        fault = Fault(PASSING, armed=1_000_000)
        put_into(monkeypatch, LAUNCH, fault)
        low = await client.submit(
            WAITS,
            training_config={"priority": 1},
            scheduling_config={"preemptible": True},
        )
        await fault.until_raised(2)
        high = await client.submit("print('here')", training_config={"priority": 9})
        assert status_of(await client.end(low)) == "PREEMPTED"
        fault.armed = 0
        assert status_of(await client.end(high)) == "COMPLETED"


@pytest.mark.filterwarnings(STILL_RUNNING)
@pytest.mark.parametrize("place", [PREPARE, LAUNCH, FIND, FOLLOW, READ_END, EXPORT])
async def test_the_coordinator_stops_while_a_job_has_to_wait_and_the_job_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str]
) -> None:
    monkeypatch.setattr("app.coordinator.execution.controller._CLOSE_PATIENCE", 0.5)
    with monkeypatch.context() as patch:
        async with running(tmp_path) as (_, client):
            fault = Fault(PASSING, armed=1_000_000)
            put_into(patch, place, fault)
            job_id = await client.submit("print('here')")
            await fault.until_raised(2)
    async with running(tmp_path) as (_, client):
        job = await client.end(job_id)
        assert status_of(job) == "COMPLETED", job
        await is_well(client, tmp_path)


@pytest.mark.filterwarnings(STILL_RUNNING)
async def test_a_store_that_fails_for_ever_does_not_keep_the_coordinator_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.coordinator.execution.controller._CLOSE_PATIENCE", 0.5)
    with monkeypatch.context() as patch:
        async with running(tmp_path) as (_, client):
            job_id = await client.submit(WAITS)
            await client.until_line(job_id, "ready")
            fault = Fault(sqlite3.OperationalError("disk I/O error"))
            put_into(patch, (SqliteStore, "save_jobs"), fault)
            fault.armed = 1_000_000
    assert runners(tmp_path), "the run was not asked to leave, and lives on"
    async with running(tmp_path) as (_, client):
        job = await client.job(job_id)
        assert (status_of(job), job.run_count) == ("TRAINING", 1)
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        assert status_of(await client.end(job_id)) == "CANCELLED"
        await is_well(client, tmp_path)


@pytest.mark.filterwarnings(STILL_RUNNING)
async def test_a_cancelled_task_changes_no_job(tmp_path: Path) -> None:
    async with running(tmp_path) as (coordinator, client):
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        await cancel_task(coordinator.controller, job_id)
        assert status_of(await client.job(job_id)) == "TRAINING"
        # The run has no task any more; whoever stops it takes it up.
        await client.call("PauseJob", PauseJobRequest(job_id=job_id, save_checkpoint=True))
        await client.until_status(job_id, "PAUSED")
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        await is_well(client, tmp_path)


async def cancel_task(controller: Controller, job_id: str) -> None:
    task = controller._tasks._tasks[job_id].task
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.filterwarnings(STILL_RUNNING)
async def test_an_instruction_about_a_job_without_a_task_raises_nothing(tmp_path: Path) -> None:
    ways: list[Callable[[Client, str], Any]] = [
        lambda client, job_id: client.call("CancelJob", CancelJobRequest(job_id=job_id)),
        lambda client, _: client.call("DrainNode", DrainNodeRequest(node_id="local", force=True)),
    ]
    for number, way in enumerate(ways):
        async with running(tmp_path / str(number)) as (coordinator, client):
            job_id = await client.submit(WAITS)
            await client.until_line(job_id, "ready")
            await cancel_task(coordinator.controller, job_id)
            await way(client, job_id)
            assert status_of(await client.end(job_id)) in ("CANCELLED", "FAILED")
    async with running(tmp_path / "stop") as (coordinator, client):
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        await cancel_task(coordinator.controller, job_id)
    async with running(tmp_path / "stop") as (_, client):
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        assert status_of(await client.end(job_id)) == "CANCELLED"


async def test_a_runner_that_no_signal_reaches_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.coordinator.engines.local.local_run.STOP_MARGIN", 0.5)
    async with running(tmp_path, stop_grace=0.5) as (_, client):
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        (runner,) = runners(tmp_path)
        psutil.Process(runner).suspend()
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        job = await end_as_seen(client, job_id)
        assert status_of(job) == "CANCELLED"
        await is_well(client, tmp_path)


async def test_a_job_is_failed_only_when_nothing_of_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as (_, client):
        fault = Fault(ValueError("odd"))
        original = RunnerHandle.gone

        async def gone(handle: RunnerHandle) -> None:
            await fault.news.wait()
            fault.check()
            await original(handle)

        monkeypatch.setattr(RunnerHandle, "gone", gone)
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        (runner,) = runners(tmp_path)
        family = [runner, *(each.pid for each in psutil.Process(runner).children(recursive=True))]
        assert len(family) > 1
        fault.armed = 1
        fault.news.set()
        assert status_of(await client.end(job_id)) == "FAILED"
        assert not any(map(lives, family))
        await is_well(client, tmp_path)
