"""Where a job goes on: when it is resumed, and when it is retried."""

from pathlib import Path

import grpc.aio
import pytest

from app.coordinator.settings.virtual_nodes import parse_virtual_nodes
from generated.mindcoordinator.v1.evaluations_pb2 import Benchmark, SubmitEvaluationRequest
from generated.mindcoordinator.v1.jobs_pb2 import (
    ListCheckpointsRequest,
    PauseJobRequest,
    ResumeJobRequest,
    RetryJobRequest,
)
from tests.coordinator.harness import Client, running, status_of

#: Says where it begins, writes what it is told to write, and fails.
FAILS = """
    import os, sys
    print("from", os.path.basename(os.environ["SCAIMIND_RESUME_FROM"]) or "the beginning")
    os.mkdir(os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/step-7")
    sys.exit(3)
"""
#: Says where it begins; asked to leave, it writes what SAVES names.
WAITS = """
    import os, signal, sys, time
    def leave(*_):
        name = os.environ.get("SAVES")
        if name:
            open(os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/" + name, "w").close()
        sys.exit(0)
    signal.signal(signal.SIGTERM, leave)
    print("from", os.path.basename(os.environ["SCAIMIND_RESUME_FROM"]) or "the beginning")
    print("ready", flush=True)
    time.sleep(600)
"""
GPU = parse_virtual_nodes("v-1:1xL4")


async def began(client: Client, job_id: str) -> list[str]:
    """Where each of its runs began."""
    log = await client.log(job_id)
    return [each.message for each in log if each.message.startswith("from ")]


async def retried(client: Client, job_id: str, checkpoint_id: str = "") -> str:
    child = await client.call(
        "RetryJob", RetryJobRequest(job_id=job_id, checkpoint_id=checkpoint_id)
    )
    return str(child.job_id)


async def test_failed_jobs_start_again_where_they_were_to_start(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        start = client.write("given/weights.txt", "w").rpartition("/")[0]
        for given, expected in (("", "from the beginning"), (start, "from given")):
            job_id = await client.submit(FAILS, training_config={"resume_from_checkpoint": given})
            for _ in range(3):
                assert status_of(await client.end(job_id)) == "FAILED"
                assert await began(client, job_id) == [expected]
                job_id = await retried(client, job_id)


async def test_a_failed_job_starts_again_from_the_checkpoint_that_is_named(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (_, client):
        parent = await client.submit(FAILS)
        await client.end(parent)
        child = await retried(client, parent, checkpoint_id="step-7")
        job = await client.end(child)
        url = f"scaidrive://local/jobs/{parent}/checkpoints/step-7"
        assert job.training_config.resume_from_checkpoint == url
        # The child's own retry begins where the child did.
        grandchild = await retried(client, child)
        await client.end(grandchild)
        for each in (child, grandchild):
            assert await began(client, each) == ["from step-7"]


async def preempt(client: Client, job_id: str) -> None:
    await client.until_line(job_id, "ready")
    urgent = await client.submit(
        "", training_config={"priority": 9}, resource_config={"gpu_count": 1}
    )
    assert status_of(await client.end(job_id)) == "PREEMPTED"
    await client.end(urgent)


async def test_preempted_jobs_go_on_from_their_newest_checkpoint_or_their_parents(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, virtual_nodes=GPU) as (_, client):

        async def waits(saves: str) -> str:
            return await client.submit(
                WAITS,
                training_config={"priority": 1, "environment": {"SAVES": saves}},
                resource_config={"gpu_count": 1},
                scheduling_config={"preemptible": True},
            )

        nothing = await waits("")
        await preempt(client, nothing)
        again = await retried(client, nothing)
        await preempt(client, again)
        assert await began(client, again) == ["from the beginning"]

        saved = await waits("step-5.pt")
        await preempt(client, saved)
        child = await retried(client, saved)
        await preempt(client, child)
        grandchild = await retried(client, child)
        await preempt(client, grandchild)
        assert await began(client, child) == ["from step-5.pt"]
        assert await began(client, grandchild) == ["from step-5.pt"]


async def test_any_checkpoint_that_is_kept_can_be_gone_on_from(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        folder = tmp_path / "drive" / "local" / "jobs" / job_id / "checkpoints"
        for at in range(150):
            (folder / f"step-{at}").mkdir()
        await client.call("PauseJob", PauseJobRequest(job_id=job_id, save_checkpoint=True))
        job = await client.until_status(job_id, "PAUSED")
        assert (len(job.checkpoints), job.checkpoint_count) == (100, 150)
        page = await client.call(
            "ListCheckpoints", ListCheckpointsRequest(job_id=job_id, page_size=100)
        )
        page = await client.call(
            "ListCheckpoints",
            ListCheckpointsRequest(job_id=job_id, page_size=100, page_token=page.next_page_token),
        )
        oldest = page.checkpoints[-1].checkpoint_id
        assert oldest not in [each.checkpoint_id for each in job.checkpoints]
        await client.call("ResumeJob", ResumeJobRequest(job_id=job_id, checkpoint_id=oldest))
        await client.until_line(job_id, f"from {oldest}")
        client.write("data.jsonl", '{"text": "a"}\n')
        benchmark = Benchmark(name="perplexity", dataset="scaidrive://local/data.jsonl")
        evaluation = await client.call(
            "SubmitEvaluation",
            SubmitEvaluationRequest(job_id=job_id, checkpoint_id=oldest, benchmarks=[benchmark]),
        )
        assert evaluation.model_uri.endswith(f"/{oldest}")
        with pytest.raises(grpc.aio.AioRpcError, match="its newest are step-"):
            await client.call("ResumeJob", ResumeJobRequest(job_id=job_id, checkpoint_id="none"))
        (folder / "step-3").rmdir()
        with pytest.raises(grpc.aio.AioRpcError, match="step-3 does not exist"):
            await client.call("ResumeJob", ResumeJobRequest(job_id=job_id, checkpoint_id="step-3"))
