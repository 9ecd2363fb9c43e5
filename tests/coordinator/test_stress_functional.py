"""Five hundred short jobs over virtual nodes, with cancels, drains and enables in between."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from app.coordinator.execution.changes import Change
from app.coordinator.jobs.model import StopReason
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.scheduling.transitions import Transition
from app.coordinator.settings.virtual_nodes import parse_virtual_nodes
from app.coordinator.storage.job_directory import JobDir
from generated.mindcoordinator.v1.cluster_pb2 import DrainNodeRequest, EnableNodeRequest
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest, Job, ListJobsRequest
from tests.coordinator.harness import Client, running, status_of, submission

JOBS = 500
NODES = parse_virtual_nodes(",".join(f"v{n}:4xL4:cpus=8" for n in range(4)))

#: Leaves a trace of every run: when it began and ended, where, and on what.
TRACES = """
    import json, os, signal, time
    leaving = False
    def leave(*_):
        global leaving
        leaving = True
    signal.signal(signal.SIGTERM, leave)
    begun = time.monotonic_ns()
    run = int(os.path.basename(os.path.dirname(os.environ["SCAIMIND_METRICS_FILE"])))
    trace = os.open("trace", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    def tell(**what):
        os.write(trace, (json.dumps(what) + "\\n").encode())
    tell(begun=begun)
    time.sleep(0.01)
    tell(
        run=run,
        begun=begun,
        ended=time.monotonic_ns(),
        node=os.environ["SCAIMIND_NODE_ID"],
        gpus=[int(gpu) for gpu in os.environ["SCAIMIND_GPUS"].split(",") if gpu],
        cpus=int(os.environ["CPUS"]),
        done=not leaving,
    )
    # At once: a signal during a longer farewell would count as its end.
    os._exit(0)
"""


@dataclass(frozen=True)
class Run:
    """What one training process left as its trace."""

    run: int
    begun: int
    ended: int
    node: str
    gpus: tuple[int, ...]
    cpus: int
    done: bool


def runs_of(directory: JobDir) -> tuple[int, list[Run]]:
    """How many processes began, and those that came to their end."""
    trace = directory.work / "trace"
    lines = [json.loads(line) for line in trace.read_text().splitlines()] if trace.exists() else []
    ended = [Run(**{**line, "gpus": tuple(line["gpus"])}) for line in lines if "ended" in line]
    return len(lines) - len(ended), ended


def check_nothing_was_shared(runs: list[Run]) -> None:
    """From the traces alone: no GPU was held twice at a time, no node gave more than its cores."""
    cores = {node.node_id: node.cpus for node in NODES} | {"local": 4}
    events = sorted(
        [(run.begun, 1, run) for run in runs] + [(run.ended, 0, run) for run in runs],
        key=lambda event: event[:2],
    )
    held: dict[str, Counter[int]] = {node: Counter() for node in cores}
    taken: Counter[str] = Counter()
    most = 0
    for _, begins, run in events:
        change = 1 if begins else -1
        for gpu in run.gpus:
            held[run.node][gpu] += change
            assert held[run.node][gpu] <= 1, run
        taken[run.node] += change * run.cpus
        assert taken[run.node] <= cores[run.node], run
        most = max(most, sum(taken.values()))
    assert most > 4, "they hardly ran beside each other: nothing was tried"


class Commotion:
    """Cancels, drains and enables at random."""

    def __init__(self, client: Client, choose: random.Random) -> None:
        self._client = client
        self._choose = choose
        self.done: Counter[str] = Counter()

    async def stir(self, ids: list[str]) -> None:
        """Perhaps do something."""
        choose = self._choose
        chance = choose.random()
        if chance < 0.15:
            await self._cancel(choose.choice(ids[-60:]))
        elif chance < 0.25:
            force = choose.random() < 0.5
            request = DrainNodeRequest(node_id=choose.choice(NODES).node_id, force=force)
            await self._client.call("DrainNode", request)
            self.done["forced drain" if force else "drain"] += 1
        elif chance < 0.40:
            await self._enable(choose.choice(NODES).node_id)

    async def _cancel(self, job_id: str) -> None:
        try:
            await self._client.call("CancelJob", CancelJobRequest(job_id=job_id))
            self.done["cancel"] += 1
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            self.done["cancel of what had ended"] += 1

    async def _enable(self, node_id: str) -> None:
        await self._client.call("EnableNode", EnableNodeRequest(node_id=node_id))
        self.done["enable"] += 1

    async def calm(self) -> None:
        """Put all nodes back to work."""
        for node in NODES:
            await self._enable(node.node_id)


async def submit_one(client: Client, choose: random.Random, script: str) -> str:
    nodes = choose.choice([1] * 9 + [2])
    cpus = nodes * choose.choice([1, 2, 4])
    request = submission(
        resource_config={
            "gpu_count": nodes * choose.choice([0, 1, 1, 2, 3]),
            "node_count": nodes,
            "cpu_count": cpus,
        },
        scheduling_config={"preemptible": choose.random() < 0.3},
    )
    request.training_config.priority = choose.randrange(11)
    request.training_config.max_retries = choose.choice([0, 3])
    request.training_config.framework.custom_script_path = script
    request.training_config.environment["CPUS"] = str(cpus // nodes)
    job_id: str = (await client.call("SubmitJob", request)).job_id
    return job_id


async def all_jobs(client: Client) -> list[Job]:
    jobs: list[Job] = []
    token = ""
    while True:
        page = await client.call("ListJobs", ListJobsRequest(page_size=100, page_token=token))
        jobs += page.jobs
        token = page.next_page_token
        if not token:
            assert page.total_count == len(jobs)
            return jobs


@pytest.mark.slow
async def test_no_job_is_lost_or_run_twice_and_nothing_is_oversubscribed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = random.Random(4)
    async with running(tmp_path, virtual_nodes=NODES) as (coordinator, client):
        controller = coordinator.controller
        scheduler = controller.scheduler
        apply = controller.apply
        idle = asyncio.Event()
        steps = 0
        evicted: set[str] = set()

        def checked(change: Change[Any], *, also: Callable[[], None] | None = None) -> Any:
            nonlocal steps

            def watched(scheduler: Scheduler) -> tuple[Transition, Any]:
                transition, result = change(scheduler)
                evicted.update(
                    job.job_id for job in transition.changed if job.stop_reason is StopReason.EVICT
                )
                return transition, result

            result = apply(watched, also=also)
            scheduler.validate()
            steps += 1
            if not scheduler.jobs:
                idle.set()
            return result

        monkeypatch.setattr(controller, "apply", checked)
        script = client.write("traces.py", TRACES)
        commotion = Commotion(client, choose)
        ids: list[str] = []
        for _ in range(JOBS):
            ids.append(await submit_one(client, choose, script))
            await commotion.stir(ids)
        await commotion.calm()
        async with asyncio.timeout(300):
            while scheduler.jobs:
                idle.clear()
                await idle.wait()
        jobs = await all_jobs(client)

    assert {job.job_id for job in jobs} == set(ids)
    assert all(not node.job_ids for node in scheduler.cluster.nodes.values())
    outcomes = Counter(status_of(job) for job in jobs)
    assert steps > 5 * JOBS
    assert min(commotion.done[each] for each in ("cancel", "drain", "forced drain", "enable")) > 5
    assert set(outcomes) <= {"COMPLETED", "CANCELLED", "FAILED", "PREEMPTED"}
    assert outcomes["COMPLETED"] > JOBS / 2
    every: list[Run] = []
    for job in jobs:
        begun, runs = runs_of(JobDir(tmp_path / "jobs" / job.job_id))
        every += runs
        ranks = job.resource_config.node_count
        # A run that was stopped before its process could say anything has left no trace.
        assert begun <= job.run_count * ranks, job
        done = Counter(run.run for run in runs if run.done)
        whole = [number for number, count in done.items() if count == ranks]
        assert max(done.values(), default=0) <= ranks, job
        match status_of(job):
            case "COMPLETED":
                assert whole[-1:] == [job.run_count], job
            case "FAILED":
                assert "drained by force" in job.error_message, job
                assert job.job_id in evicted, job
        # One that is asked to leave while it ends has done its work, and is thought not to have.
        if job.job_id not in evicted:
            assert whole in ([], [job.run_count]), job
        allowed = 1 + job.training_config.max_retries
        assert job.run_count <= allowed, job
    check_nothing_was_shared(every)
