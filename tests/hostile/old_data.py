"""A data directory as an earlier coordinator leaves it: written by that coordinator itself."""

import asyncio
import json
import os
import signal
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.locks import locked
from generated.mindcoordinator.v1.evaluations_pb2 import Benchmark, SubmitEvaluationRequest
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest, PauseJobRequest
from tests.coordinator.harness import Client, status_of
from tests.coordinator.scripts import COUNTS, WAITS
from tests.hostile.cases import BROKEN_READS, RESULTS, STUCK, script
from tests.hostile.machine import HOSTILE, NEIGHBOUR, Machine

_ARCHIVE: Final = Path(__file__).parent.parent / "old_data" / "coordinator-349b57f.tar.xz"
#: Of the machine, before and after: the stuck jobs must leave room for the others.
CPUS: Final = 64
#: Checkpoints of the job that has many: more than are told with a job.
MANY: Final = 1_000
#: The value of a variable whose name looks like a credential's.
TOKEN: Final = "hf_0123456789abcdefghij"

#: Counts on for as long as nobody asks it to leave, then saves a checkpoint.
_COUNTS_ON: Final = {"environment": {"UP_TO": "1000000"}}
_ALL_CORES: Final = {"cpu_count": CPUS}


@dataclass
class OldData:
    """The jobs in such a directory, by what they are."""

    #: Jobs of the hostile tenant that hold the machine for ever, and what they did.
    stuck: dict[str, str]
    #: Ended jobs that break what is told of them.
    broken: dict[str, str]
    #: Ended ones, by their states.
    ended: dict[str, str]
    #: Jobs that have not ended, by what is to become of them.
    living: dict[str, str]
    evaluations: dict[str, str]
    many_checkpoints: str = ""


def old_code(folder: Path) -> Path:
    """Unpack the earlier coordinator; the folder whose `app` it is."""
    with tarfile.open(_ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


async def write_old_data(old: Machine) -> OldData:
    """Let an earlier coordinator write a data directory, and kill it."""
    async with old.client() as hostile, old.client(NEIGHBOUR) as neighbour:
        ended = await _ended(neighbour)
        evaluations = await _evaluations(hostile)
        broken = await _submit_all(hostile, BROKEN_READS)
        many = await hostile.submit(
            script(f'for number in range({MANY}): os.mkdir(C + f"/step-{{number}}")')
        )
        stuck = await _submit_all(hostile, STUCK)
        for job_id in (*broken.values(), many, *stuck.values()):
            await hostile.until_line(job_id, "here")
            await runner_gone(old.path, job_id)
        await hostile.end(many)
        living = await _living(neighbour)
    await asyncio.to_thread(old.stop, signal.SIGKILL)
    return OldData(stuck, broken, ended, living, evaluations, many)


async def runner_gone(data_dir: Path, job_id: str) -> None:
    """Wait until a job's runner has left: it holds the lock while it lives."""

    def wait() -> None:
        with locked(JobDir(data_dir / "jobs" / job_id).lock, wait=True):
            pass

    async with asyncio.timeout(60):
        await asyncio.to_thread(wait)


async def _submit_all(client: Client, cases: Mapping[str, Any]) -> dict[str, str]:
    return {name: await client.submit(case.script, **case.asked) for name, case in cases.items()}


async def _ended(client: Client) -> dict[str, str]:
    """One job in each state that ends one."""
    preempted = await client.submit(
        WAITS, scheduling_config={"preemptible": True}, resource_config=_ALL_CORES
    )
    await client.until_line(preempted, "ready")
    completed = await client.submit(
        script(
            'open(O + "/model.bin", "w").write("model");'
            ' measure(*(json.dumps({"step": n, "loss": 1 / n}) for n in range(1, 11)))'
        ),
        training_config={"priority": 9},
        resource_config=_ALL_CORES,
    )
    failed = await client.submit("raise SystemExit(3)")
    cancelled = await client.submit(WAITS)
    await client.until_line(cancelled, "ready")
    await client.call("CancelJob", CancelJobRequest(job_id=cancelled))
    jobs = {
        "PREEMPTED": preempted,
        "COMPLETED": completed,
        "FAILED": failed,
        "CANCELLED": cancelled,
    }
    for status, job_id in jobs.items():
        assert status_of(await client.end(job_id)) == status
    return jobs


async def _living(client: Client) -> dict[str, str]:
    """Jobs that run, wait and pause."""
    paused = await client.submit(COUNTS, training_config=_COUNTS_ON)
    await client.until_line(paused, "count 5")
    await client.call("PauseJob", PauseJobRequest(job_id=paused, save_checkpoint=True))
    await client.until_status(paused, "PAUSED")
    jobs = {"paused": paused}
    for name in ("runs on", "is paused later", "loses its runner"):
        jobs[name] = await client.submit(COUNTS, training_config=_COUNTS_ON)
        await client.until_line(jobs[name], "count 5")
    jobs["pending"] = await client.submit(
        'print("at last")', scheduling_config={"not_before": {"seconds": 4_000_000_000}}
    )
    jobs["queued"] = await client.submit(
        'import os\nprint(os.environ["CUDA_VISIBLE_DEVICES"], os.environ["HF_TOKEN"] == '
        f'"{TOKEN}")',
        resource_config=_ALL_CORES,
        training_config={"environment": {"HF_TOKEN": TOKEN, "CUDA_VISIBLE_DEVICES": "7"}},
    )
    # It is made, though the answer is an error; what is submitted behind it finds one, too.
    jobs["may run for ever"] = await _submit_for_ever(client)
    return jobs


async def _submit_for_ever(client: Client) -> str:
    before = set(await asyncio.to_thread(os.listdir, client.drive.parent / "jobs"))
    try:
        return await client.submit(
            'print("in time")',
            resource_config=_ALL_CORES,
            scheduling_config={"max_runtime_seconds": 2**63 - 1},
        )
    except grpc.aio.AioRpcError:
        after = set(await asyncio.to_thread(os.listdir, client.drive.parent / "jobs"))
        (job_id,) = after - before
        return job_id


async def _evaluations(client: Client) -> dict[str, str]:
    """Evaluations whose models left results that cannot be read."""
    found: dict[str, str] = {}
    data = client.write("text.jsonl", '{"text": "ab"}\n')
    for name, results in RESULTS.items():
        model = f"model-{len(found)}"
        client.write(f"{model}/scaimind_model.py", results)
        evaluation = await client.call(
            "SubmitEvaluation",
            SubmitEvaluationRequest(
                model_uri=f"scaidrive://{HOSTILE}/{model}",
                benchmarks=[Benchmark(name="perplexity", dataset=data)],
            ),
        )
        found[name] = evaluation.evaluation_id
    for job_id in found.values():
        assert status_of(await client.end(job_id)) == "COMPLETED"
    return found


def runner_of(data_dir: Path, job_id: str) -> int:
    """The pid of the runner of a job's first run."""
    who = json.loads(JobDir(data_dir / "jobs" / job_id).run(1).runner.read_text())
    pid: int = who["pid"]
    return pid
